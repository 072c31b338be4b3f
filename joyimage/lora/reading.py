"""A LoRA file's updates, layer by layer. A further family is one more row of `FAMILIES`, and its class in `updates`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..checkpoints.files import existing, open_weights
from ..checkpoints.weights import Weights
from ..errors import CheckpointError
from ..quantisation.tensor import dense
from .keys import UNSUPPORTED, canonical, parse
from .scaling import Scaling
from .updates import Decomposed, Difference, Generalised, Hadamard, Kronecker, LowRank, Rotated, Update, Value

Roles = dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class LayerUpdate:
    """A file's part for one layer: what becomes of its weight, what is added to its bias (out,), and the keys.

    `shape` is the one that the layer's weight must have, where the file says it.
    """

    weight: Update | None
    bias: Tensor | None
    shape: tuple[int, ...] | None
    keys: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Lora:
    """A file's updates by the canonical names of their layers."""

    path: Path
    updates: dict[str, LayerUpdate]
    unknown: tuple[str, ...]  # keys that are no part of an update


def read(path: str | Path) -> Lora:
    """Read a LoRA from a file, or from a folder that holds one.

    Raises `CheckpointError` for a file without LoRA keys, of a kind that is not supported, or with half an update.
    """
    weights = open_weights(path)
    layers: dict[str, _Layer] = {}
    unknown = []
    for key in weights:
        if kind := next((kind for part, kind in UNSUPPORTED.items() if part in key), None):
            raise CheckpointError(
                f"{path}: is of the kind {kind} ({key}), which is not supported; get a plain LoRA, or the edited "
                "weights themselves"
            )
        if (parsed := parse(key)) is None:
            unknown.append(key)
            continue
        name, role = parsed
        layers.setdefault(canonical(name), _Layer(path, name, {}, {})).take(key, role, _tensor(weights, key, role))
    if not layers:
        raise CheckpointError(f"{path}: is no LoRA: it has no keys such as X.lora_A.weight or X.lora_down.weight")
    scaling = Scaling.of(weights)
    return Lora(existing(path), {name: layer.update(scaling) for name, layer in layers.items()}, tuple(unknown))


def _tensor(weights: Weights, key: str, role: str) -> Tensor:
    info = weights.info[key]
    if not info.format.supported or not (info.floating or role in ("alpha", "reshape")):
        raise CheckpointError(
            f"{weights.files[0]}: {key} is stored as {info.format.name}; get the LoRA in bf16 or fp16"
        )
    tensor = dense(weights[key]).float()
    if ".lora_magnitude_vector" in key:
        tensor = tensor.flatten()  # PEFT has the rows' norms of a kernel as (1, out, 1, …)
    return tensor


@dataclass(frozen=True, eq=False)
class _Layer:
    """What a file holds for one layer, by role."""

    path: str | Path
    name: str  # as the keys spell it
    roles: Roles
    keys: dict[str, str]

    def take(self, key: str, role: str, tensor: Tensor) -> None:
        if role in self.roles:
            raise CheckpointError(
                f"{self.path}: {key} and {self.keys[role]} are of the same layer; the file mixes namings or adapters"
            )
        self.roles[role] = tensor
        self.keys[role] = key

    def update(self, scaling: Scaling) -> LayerUpdate:
        rest = {role: tensor for role, tensor in self.roles.items() if role not in ("alpha", "bias", "reshape")}
        family = next((family for family in FAMILIES if family.marks & rest.keys()), None)
        if family is None and (rest or "bias" not in self.roles):
            raise self._unusable("is half of an update: what it belongs to is missing; download it again")
        scale, weight = 1.0, None
        if family is not None:
            if extra := sorted(rest.keys() - family.roles):
                raise self._unusable(f"and {self.keys[extra[0]]} are of two families")
            scale, weight = self._build(family, rest, scaling)
        bias = self.roles.get("bias")
        if "up_bias" in rest:
            bias = rest["up_bias"] * scale
        return LayerUpdate(weight, bias, self._shape(), tuple(self.keys.values()))

    def _build(self, family: Family, roles: Roles, scaling: Scaling) -> tuple[float, Update]:
        if not any(wanted <= roles.keys() for wanted in family.wanted):
            raise self._unusable("is half of an update: up or down is missing; download it again")
        rank = family.rank(roles)
        scale = self._scale(rank, scaling)
        try:
            update = family.build(self.roles, scale)
        except (RuntimeError, ValueError, IndexError):
            shapes = " and ".join(str(tuple(tensor.shape)) for tensor in roles.values())
            raise self._unusable(f"shapes {shapes} do not go together as a {family.name}") from None
        if "magnitude" in roles:
            update = Decomposed(roles["magnitude"], update)
        return scale, update

    def _scale(self, rank: int | None, scaling: Scaling) -> float:
        alpha = self.roles.get("alpha")
        if alpha is None:
            scale = scaling.scale(self.name, rank)
        elif alpha.numel() != 1:
            raise self._unusable(f"its alpha has the shape {tuple(alpha.shape)}, not one number")
        else:
            scale = alpha.item() / rank if rank else 1.0
        if not math.isfinite(scale):
            raise self._unusable(f"its scale is {scale}; download the file again")
        return scale

    def _shape(self) -> tuple[int, ...] | None:
        sizes = self.roles.get("reshape")
        return None if sizes is None else tuple(int(size) for size in sizes.flatten().tolist())

    def _unusable(self, why: str) -> CheckpointError:
        return CheckpointError(f"{self.path}: {next(iter(self.keys.values()))}: {why}")


# -- families ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Family:
    """How an update is known and made.

    `marks` are the roles of its tensors that tell it from the families below; it needs all of any of `wanted`, and
    `optional` ones may come with it.
    """

    name: str
    marks: frozenset[str]
    wanted: tuple[frozenset[str], ...]
    optional: frozenset[str]
    rank: Callable[[Roles], int | None]
    build: Callable[[Roles, float], Update]

    @property
    def roles(self) -> frozenset[str]:
        return self.optional.union(*self.wanted)


def _low_rank(roles: Roles, scale: float) -> LowRank:
    down, up = roles["down"], roles["up"].flatten(1)
    if "mid" in roles:  # Tucker's core (rank, rank, …) between the two
        down = torch.einsum("mn...,ni->mi...", roles["mid"], down.flatten(1))
    if down.ndim < 2 or not len(down) or up.shape[1] != len(down):
        raise ValueError("ranks differ")
    return LowRank(scale, down=down, up=up)


def _hadamard(roles: Roles, scale: float) -> Hadamard:
    return Hadamard(scale, **{role: roles.get(role) for role in HADAMARD | CORES})


def _kronecker(roles: Roles, scale: float) -> Kronecker:
    return Kronecker(scale, **{role: roles.get(role) for role in KRONECKER | {"inner_core"}})


def _generalised(roles: Roles, scale: float) -> Generalised:
    roles = _as_newer(roles)
    return Generalised(roles["into_up"], roles["into_down"], _low_rank(roles, scale))


def _as_newer(roles: Roles) -> Roles:
    """GLoRA's roles; older files of LyCORIS name each pair the other way round: `into_up` is (rank, in) there."""
    rows, columns = roles["into_up"].flatten(1).shape
    if rows >= columns:
        return roles
    pairs = {"up": "down", "down": "up", "into_up": "into_down", "into_down": "into_up"}
    return roles | {role: roles[other] for role, other in pairs.items()}


def _rotated(roles: Roles, scale: float) -> Rotated:
    blocks, limit = roles["blocks"], roles.get("alpha")
    if blocks.ndim not in (3, 4) or blocks.shape[-1] != blocks.shape[-2]:
        raise ValueError("no square blocks")
    return Rotated(blocks, roles.get("rescale"), 0.0 if limit is None else limit.item())


def _rank_of(role: str) -> Callable[[Roles], int | None]:
    """The first size of a tensor, if it is there and no single number."""
    return lambda roles: roles[role].shape[0] if role in roles and roles[role].ndim > 1 else None


def _kronecker_rank(roles: Roles) -> int | None:
    """Of the inner factor, or else the outer one; whole ones have none, and their alpha does not count."""
    return _rank_of("inner_down")(roles) or _rank_of("outer_down")(roles)


def _generalised_rank(roles: Roles) -> int | None:
    return _rank_of("down")(_as_newer(roles))


def _no_rank(roles: Roles) -> None:
    return None


def _roles(*names: str) -> frozenset[str]:
    return frozenset(names)


LOW_RANK = _roles("down", "up")
INTO = _roles("into_up", "into_down")
HADAMARD, CORES = _roles("left_up", "left_down", "right_up", "right_down"), _roles("left_core", "right_core")
OUTER, INNER = (_roles("outer"), _roles("outer_up", "outer_down")), (_roles("inner"), _roles("inner_up", "inner_down"))
KRONECKER = frozenset[str]().union(*OUTER, *INNER)
PAIRS = tuple(outer | inner for outer in OUTER for inner in INNER)
DORA = _roles("magnitude")
FAMILIES = (
    Family("GLoRA", INTO, (INTO | LOW_RANK,), DORA | {"mid"}, _generalised_rank, _generalised),
    Family("LoRA", LOW_RANK, (LOW_RANK,), DORA | {"mid", "up_bias"}, _rank_of("down"), _low_rank),
    Family("LoHa", HADAMARD, (HADAMARD,), DORA | CORES, _rank_of("left_down"), _hadamard),
    Family("LoKr", KRONECKER, PAIRS, DORA | {"inner_core"}, _kronecker_rank, _kronecker),
    Family("OFT", _roles("blocks"), (_roles("blocks"),), DORA | {"rescale"}, _no_rank, _rotated),
    Family(
        "difference", _roles("difference"), (_roles("difference"),), _roles(), _no_rank,
        lambda roles, _: Difference(value=roles["difference"]),
    ),
    Family(
        "value", _roles("value"), (_roles("value"),), _roles(), _no_rank, lambda roles, _: Value(value=roles["value"])
    ),
)  # fmt: skip
