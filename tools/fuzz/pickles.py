"""PyTorch's files with odd objects in place of tensors, and their archives and pickles damaged."""

from __future__ import annotations

import collections
import io
import pickle
import warnings
import zipfile
from collections.abc import Callable
from random import Random
from typing import Any

import torch

from .containers import damage_name
from .mutations import damage_bytes

NAMES = (
    "float64", "float16", "bfloat16", "int64", "int8", "uint8", "uint16", "uint64", "bool", "complex64",
    "float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu",
)  # fmt: skip
DTYPES = [getattr(torch, name) for name in NAMES if hasattr(torch, name)]  # torch 2.4 has not yet the last
KEYS: tuple[Any, ...] = (
    None,
    0,
    1.5,
    True,
    (),
    ("a", 1),
    b"a",
    "",
    "\ud800",
    "x" * 300,
    "\x1b[2J",
    "\n",
    "model",
    "state_dict",
)


class Stranger:
    """A class that no weights-only reader may build."""


def odd_objects(tensor: torch.Tensor) -> list[Callable[[], Any]]:
    """What may stand where a tensor should."""
    return [
        *(lambda dtype=dtype: tensor.to(dtype) for dtype in DTYPES),
        lambda: None,
        lambda: 3,
        lambda: "weights",
        lambda: [tensor, tensor],
        lambda: {"a": tensor},
        lambda: collections.OrderedDict(a=tensor),
        lambda: torch.nn.Parameter(tensor),
        lambda: tensor.detach().clone().requires_grad_(True),
        lambda: tensor.to_sparse(),
        lambda: torch.quantize_per_tensor(tensor.float(), 0.1, 0, torch.qint8),
        lambda: torch.empty(2**30, 2**10, device="meta"),
        lambda: torch.zeros(1).expand(2**40),
        lambda: torch.empty(0),
        lambda: torch.empty(0, 2**60),
        lambda: torch.tensor(1.0),
        lambda: torch.zeros(*[1] * 60),
        lambda: tensor.flip(0).t() if tensor.ndim == 2 else tensor.flip(0),
        lambda: torch.conj(torch.ones(2, 2, dtype=torch.complex64)),
        lambda: torch._neg_view(tensor),
        lambda: tensor.to_mkldnn() if tensor.dtype == torch.float32 else tensor,
        lambda: torch.nested.nested_tensor([torch.ones(1), torch.ones(2)]),
        lambda: torch.full_like(tensor, float("nan")),
        lambda: tensor.numpy(),
        lambda: Stranger(),
        lambda: torch.nn.Linear(2, 2),
        lambda: torch.device("cpu"),
        lambda: torch.Size([1, 2]),
        lambda: torch.float32,
        lambda: 10**1000,
        lambda: {1, 2},
        lambda: bytearray(b"abc"),
        lambda: tensor.untyped_storage(),
    ]


def nested(depth: int) -> Any:
    value: Any = {}
    for _ in range(depth):
        value = {"model": value}
    return value


def damage_object(state: dict[Any, Any], random: Random) -> Any:
    """A state dict with entries of other types and under other keys, in other containers."""
    made = dict(state)
    for _ in range(random.randint(0, 3)):
        name = random.choice(list(made))
        tensor = state[name] if name in state else torch.ones(2, 2)
        way = random.randrange(4)
        if way == 0:
            made[random.choice(KEYS)] = made.pop(name)
        elif way == 1 and isinstance(name, str):
            made[damage_name(name, random)[: 10**5]] = made.pop(name)
        else:
            made[name] = random.choice(odd_objects(tensor))()
    containers: tuple[Callable[[], Any], ...] = (
        lambda: made,
        lambda: made,
        lambda: {"state_dict": made, "optimizer": [made]},
        lambda: {"model": {"module": {"params": made}}},
        lambda: collections.OrderedDict(made),
        lambda: list(made.items()),
        lambda: next(iter(made.values()), None),
        lambda: {"model": nested(random.choice((3, 20, 200)))},
        lambda: {},
        lambda: {"model": None, "state_dict": 3, **made},
    )
    return random.choice(containers)()


def saved(value: Any, legacy: bool) -> bytes | None:
    """A file of PyTorch's, or None for what it cannot save."""
    buffer = io.BytesIO()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.save(value, buffer, _use_new_zipfile_serialization=not legacy)
    except Exception:  # there are many reasons
        return None
    return buffer.getvalue()


# -- pickles by hand --------------------------------------------------------------------------------------------------


def calls(module: str, name: str, *arguments: Any) -> bytes:
    """A pickle that calls a function."""
    return b"\x80\x02c" + f"{module}\n{name}\n".encode() + b"(" + b"".join(map(plain, arguments)) + b"tR."


def plain(value: Any) -> bytes:
    """What a pickle does to put a value on its stack; without memo, so that several fit together."""
    buffer = io.BytesIO()
    pickler = pickle.Pickler(buffer, 2)
    pickler.fast = True
    pickler.dump(value)
    return buffer.getvalue()[2:-1]


def tensor_pickle(
    size: int, shape: tuple[int, ...], strides: tuple[int, ...], key: str = "0", offset: int = 0
) -> bytes:
    """A pickle of {"a": tensor} over a storage that says it has so many numbers."""
    storage = b"(" + plain("storage") + b"ctorch\nFloatStorage\n" + plain(key) + plain("cpu") + plain(size) + b"tQ"
    sizes = b"".join(map(plain, (offset, shape, strides, False)))
    call = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + sizes + b"ccollections\nOrderedDict\n)RtR"
    return b"\x80\x02}" + plain("a") + call + b"s."


def hostile_pickles() -> list[bytes]:
    return [
        calls("builtins", "bytearray", 2**33),
        calls("os", "system", "true"),
        calls("torch", "Tensor", 2**40),
        calls("torch", "Size", [2**62] * 100),
        calls("_codecs", "encode", "x" * 1000, "zlib"),
        calls("collections", "Counter", "abc"),
        calls("builtins", "complex", "1" * 10000),
        calls("torch._utils", "_rebuild_tensor_v2", None, 0, (1,), (1,), False, None),
        tensor_pickle(4, (2**40,), (0,)),
        tensor_pickle(2**40, (4,), (1,)),
        tensor_pickle(4, (2, 2), (2**62, 1)),
        tensor_pickle(4, (4,), (1,), offset=2**62),
        tensor_pickle(4, (4,), (-1,)),
        tensor_pickle(4, (-4,), (1,)),
        tensor_pickle(4, (4,), (1,), key="../../a"),
        tensor_pickle(4, (4,), (1,), key="nowhere"),
        tensor_pickle(-1, (4,), (1,)),
        b"\x80\x02" + b"]" * 10**6 + b".",
        b"\x80\x02" + b"(" * 10**6 + b".",
        b"\x80\x02" + b"}" * 10**6 + b".",
        b"\x80\x02N" + b"\x85" * 10**5 + b".",
        b"\x80\x02" + b"(l" * 1000 + b".",
        b"\x80\x02h\xff.",
        b"\x80\x02X\xff\xff\xff\xff.",
        b"\x80\x02\x8a\xff" + b"\xff" * 255 + b".",
        b"\x80\x02.",
        b"\x80\xff.",
    ]


# -- archives ---------------------------------------------------------------------------------------------------------


def damage_archive(data: bytes, random: Random) -> bytes:
    """Entries of a zip archive changed, compressed, doubled, renamed, left out."""
    target = io.BytesIO()
    chosen = random.randrange(8)
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(target, "w") as made, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that are there twice
        names = source.namelist()
        victim = random.choice(names)
        for name in names:
            content, where = source.read(name), name
            pickled = name.endswith("data.pkl")
            if chosen == 0 and name == victim:
                continue
            if chosen == 1 and pickled:
                content = random.choice(hostile_pickles())
            if chosen == 2 and pickled:
                content = damage_bytes(content, random)
            if chosen == 3 and name == victim:
                content = damage_bytes(content, random)
            if chosen == 4 and name == victim:
                where = random.choice(("../a", "a" * 300, name.upper(), "/data/0", "archive/data/0"))
            if chosen == 5 and name == victim:
                made.writestr(name, b"twice")
            if chosen == 6 and name == victim:
                content = bytes(random.choice((0, 2**16, 2**24)))
            kind = zipfile.ZIP_DEFLATED if chosen in (6, 7) else zipfile.ZIP_STORED
            made.writestr(where, content, compress_type=kind)
    return target.getvalue()


def damage_pytorch(state: dict[str, torch.Tensor], legacy: bool, random: Random) -> bytes:
    """The bytes of a damaged file, of the archives since PyTorch 1.6 or of the pickles before."""
    data = saved(damage_object(state, random), legacy)
    while data is None:
        data = saved(damage_object(state, random), legacy)
    if random.random() < 0.4:
        return data
    if legacy and random.random() < 0.2:
        return random.choice(hostile_pickles())
    if not legacy and random.random() < 0.6:
        return damage_archive(data, random)
    return damage_bytes(data, random)
