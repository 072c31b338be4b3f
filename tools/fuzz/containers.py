"""Damage to safetensors and GGUF that knows their structure: what is wrong then lies behind a header that is right."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

from joyimage.quantisation.formats import BY_CODE, BY_NUMBER

from .mutations import EDGES, damage_bytes, damage_value, json_text

MOST_BYTES = 2**20  # of a tensor that is made anew
LEAVES = (
    "weight", "bias", "weight_scale", "scale_weight", "weight_scale_2", "weight_scale_inv", "comfy_quant",
    "scaled_fp8", "input_scale", "alpha", "lora_A.weight", "lora_magnitude_vector", "gamma",
)  # fmt: skip
STARTS = ("model.", "model.diffusion_model.", "vae.", "transformer.", ".", "x" * 300 + ".", "\n", "é" * 150, "\x1b[2J")
NUMBERS = ("0", "1", "2", "7", "99999999999", "9" * 5000, "-1", "00", "٣", "")


def damage_name(name: str, random: Random) -> str:
    """Another name for a tensor: a part replaced, dropped or doubled, a number changed, a start put before it."""
    parts = name.split(".")
    at = random.randrange(len(parts))
    digits = [i for i, part in enumerate(parts) if part.isdecimal()] or [at]
    choices: tuple[Callable[[], Any], ...] = (
        lambda: parts.__setitem__(-1, random.choice(LEAVES)),
        lambda: parts.__setitem__(random.choice(digits), random.choice(NUMBERS)),
        lambda: parts.__setitem__(0, random.choice(STARTS) + parts[0]),
        lambda: parts.__delitem__(at),
        lambda: parts.insert(at, parts[at]),
        lambda: parts.__setitem__(at, parts[at] * random.choice((2, 100))),
    )
    random.choice(choices)()
    return ".".join(parts)


def damage_shape(shape: list[int], random: Random) -> list[int]:
    shape = list(shape)
    at = random.randrange(len(shape) + 1)
    choices: tuple[Callable[[], Any], ...] = (
        lambda: shape.insert(at, random.choice((0, 1, 2, 3, 16))),
        lambda: shape.__delitem__(slice(at, at + 1)),
        lambda: shape.reverse(),
        lambda: shape.__setitem__(slice(at, at + 1), [random.choice((0, 1, 2, 3, 5, 16, 32, 33, 128, 1000, 4096))]),
        lambda: shape.clear(),
        lambda: shape.extend([1] * random.choice((1, 5, 70))),
    )
    random.choice(choices)()
    return shape


# -- safetensors ------------------------------------------------------------------------------------------------------


@dataclass
class Stored:
    """A tensor of a safetensors file: the dtype's code, the shape, the bytes."""

    code: str
    shape: list[int]
    data: bytes

    def made(self, random: Random) -> Stored:
        """The same with as many bytes as dtype and shape take."""
        count = BY_CODE[self.code].nbytes(tuple(self.shape))
        if count > MOST_BYTES:
            return replace(self, shape=[0], data=b"")
        return replace(self, data=(self.data + random.randbytes(max(0, count - len(self.data))))[:count])


def read_safetensors(data: bytes) -> tuple[dict[str, Stored], dict[str, str]]:
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    metadata, start = header.pop("__metadata__", {}), 8 + length
    found = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        found[name] = Stored(entry["dtype"], entry["shape"], data[start + begin : start + end])
    return found, metadata


def safetensors_header(tensors: dict[str, Stored], metadata: dict[str, Any]) -> dict[str, Any]:
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    position = 0
    for name, stored in tensors.items():
        offsets = [position, position := position + len(stored.data)]
        header[name] = {"dtype": stored.code, "shape": stored.shape, "data_offsets": offsets}
    return header


def write_safetensors(header: bytes, tensors: dict[str, Stored]) -> bytes:
    data = b"".join(stored.data for stored in tensors.values())
    return len(header).to_bytes(8, "little") + header + data


def damage_safetensors(data: bytes, random: Random) -> bytes:
    """A third to the bytes, a third to the header's values, a third to tensors under a header that is right."""
    way = random.randrange(3)
    if way == 0:
        return damage_bytes(data, random)
    tensors, metadata = read_safetensors(data)
    if way == 1:
        header = json_text(damage_value(safetensors_header(tensors, metadata), random), random)
        return write_safetensors(header, tensors)
    for _ in range(random.randint(1, 4)):
        if tensors:
            _damage_tensor(tensors, random)
    if random.random() < 0.3:
        metadata = damage_metadata(metadata, random)
    return write_safetensors(json_text(safetensors_header(tensors, metadata), random), tensors)


def _damage_tensor(tensors: dict[str, Stored], random: Random) -> None:
    name = random.choice(list(tensors))
    stored = tensors[name]
    way = random.randrange(7)
    if way == 0:
        del tensors[name]
    elif way == 1:
        tensors[damage_name(name, random)] = tensors.pop(name)
    elif way == 2:
        tensors[damage_name(name, random)] = stored
    elif way == 3:
        tensors[name] = replace(stored, code=random.choice(list(BY_CODE))).made(random)
    elif way == 4:
        tensors[name] = replace(stored, shape=damage_shape(stored.shape, random)).made(random)
    elif way == 5:
        layer = name.rpartition(".")[0]
        note = json_text(
            damage_value({"format": "int8_tensorwise", "convrot": True, "convrot_groupsize": 16}, random), random
        )
        tensors[f"{layer}.comfy_quant"] = Stored("U8", [len(note)], note)
    else:
        other = random.choice(list(tensors))
        tensors[name], tensors[other] = tensors[other], tensors[name]


def damage_metadata(metadata: dict[str, Any], random: Random) -> dict[str, Any]:
    """Texts that the header may hold, with values that they may not."""
    configs = {
        "config": {"theta": 10000, "rope_dim_list": [4, 6, 6], "num_layers": 2, "latents_mean": [0.0] * 16},
        "_quantization_metadata": {"format_version": "1.0", "layers": {"proj_out": {"format": "float8_e4m3fn"}}},
        "lora_adapter_metadata": {"transformer.lora_alpha": 4, "transformer.r": 2},
        "joyimage.base_size": 64,
        "lora_alpha": 4,
        "network_alpha": 4,
    }
    key = random.choice(list(configs))
    text = json_text(damage_value(configs[key], random), random).decode(errors="replace")
    return {**metadata, key: text} if random.random() < 0.9 else damage_value(metadata | {key: text}, random)


# -- GGUF -------------------------------------------------------------------------------------------------------------

SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # of a value, by its type
STRING, ARRAY = 8, 9


@dataclass
class Ggml:
    """A tensor of a GGUF file, its axes in the file's order."""

    name: bytes
    axes: list[int]
    type: int
    data: bytes


@dataclass
class Gguf:
    """A GGUF file in parts; `values` are names with types and bytes."""

    values: list[tuple[bytes, int, bytes]] = field(default_factory=list)
    tensors: list[Ggml] = field(default_factory=list)

    def __bytes__(self) -> bytes:
        return self.written(len(self.tensors), len(self.values))

    def written(self, tensors: int, values: int, version: int = 3, alignment: int = 32) -> bytes:
        """With these counts in the header, whatever there is."""
        parts = [b"GGUF" + struct.pack("<IQQ", version, tensors % 2**64, values % 2**64)]
        parts += [text(name) + struct.pack("<I", kind) + value for name, kind, value in self.values]
        position, body = 0, []
        for tensor in self.tensors:
            axes = struct.pack(f"<{len(tensor.axes)}Q", *(axis % 2**64 for axis in tensor.axes))
            parts.append(text(tensor.name) + struct.pack("<I", len(tensor.axes)) + axes)
            parts.append(struct.pack("<IQ", tensor.type % 2**32, position))
            body.append(tensor.data + bytes(-len(tensor.data) % alignment))
            position += len(body[-1])
        header = b"".join(parts)
        return header + bytes(-len(header) % alignment) + b"".join(body)


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def read_gguf(data: bytes) -> Gguf:
    """Of a file that the gguf package has written, with its alignment of 32."""
    position = 24
    _, tensors, values = struct.unpack_from("<IQQ", data, 4)

    def take(code: str) -> int:
        nonlocal position
        position += struct.calcsize(code)
        return struct.unpack_from(f"<{code}", data, position - struct.calcsize(code))[0]

    def string() -> bytes:
        nonlocal position
        count = take("Q")
        position += count
        return data[position - count : position]

    found = Gguf()
    for _ in range(values):
        name, kind = string(), take("I")
        start = position
        if kind == STRING:
            string()
        elif kind == ARRAY:
            inner, count = take("I"), take("Q")
            position += SIZES[inner] * count
        else:
            position += SIZES[kind]
        found.values.append((name, kind, data[start:position]))
    entries = [(string(), [take("Q") for _ in range(take("I"))], take("I"), take("Q")) for _ in range(tensors)]
    position += -position % 32
    ends = [position + offset for *_, offset in entries[1:]] + [len(data)]
    for (name, axes, kind, offset), end in zip(entries, ends, strict=True):
        found.tensors.append(Ggml(name, axes, kind, data[position + offset : end]))
    return found


def damage_gguf(data: bytes, random: Random) -> bytes:
    """A third to the bytes, the rest to values and tensors."""
    if random.randrange(3) == 0:
        return damage_bytes(data, random)
    parsed = read_gguf(data)
    for _ in range(random.randint(1, 4)):
        if random.random() < 0.4:
            _damage_values(parsed, random)
        else:
            _damage_ggml(parsed.tensors, random)
    if random.random() < 0.1:
        counts = random.choice(EDGES), random.choice(EDGES)
        return parsed.written(*counts, random.choice((1, 2, 3, 4)))
    return parsed.written(len(parsed.tensors), len(parsed.values), alignment=random.choice((8, 32, 32, 32, 64)))


def _damage_values(parsed: Gguf, random: Random) -> None:
    names = [
        b"general.alignment", b"general.architecture", b"split.count", b"config", b"joyimage.base_size", b"", b"\xff",
        *(b"comfy.gguf.orig_shape." + tensor.name for tensor in parsed.tensors[:40]),
    ]  # fmt: skip
    kinds: tuple[Callable[[], tuple[int, bytes]], ...] = (
        lambda: (STRING, text(random.choice((b"", b"wan", b"{}", b'{"theta": "a"}', b"\xff\xfe", b"x" * 10**5)))),
        lambda: (ARRAY, struct.pack("<IQ", kind := random.choice(list(SIZES)), 3) + random.randbytes(3 * SIZES[kind])),
        lambda: (ARRAY, struct.pack("<IQ", STRING, count := random.choice((1, 5, 1000))) + text(b"ab") * count),
        lambda: (ARRAY, struct.pack("<IQ", ARRAY, random.choice(EDGES))),
        lambda: (ARRAY, struct.pack("<IQ", random.choice((*SIZES, STRING, 99)), random.choice(EDGES))),
        lambda: (ARRAY, struct.pack("<IQ4Q", 10, 4, *(random.choice((0, 1, 2, 32, 2**63)) for _ in range(4)))),
        lambda: (kind := random.choice(list(SIZES)), random.choice(EDGES).to_bytes(8, "little")[: SIZES[kind]]),
        lambda: (random.choice((13, 99, 2**32 - 1)), b""),
    )
    parsed.values.insert(random.randrange(len(parsed.values) + 1), (random.choice(names), *random.choice(kinds)()))


def _damage_ggml(tensors: list[Ggml], random: Random) -> None:
    if not tensors:
        return
    tensor = random.choice(tensors)
    way = random.randrange(6)
    if way == 0:
        tensors.remove(tensor)
    elif way == 1:
        tensor.name = damage_name(tensor.name.decode(errors="replace"), random).encode()
    elif way == 2:
        tensors.append(replace(tensor, name=random.choice((tensor.name, tensor.name + b"x"))))
    elif way == 3:
        tensor.type = random.choice((*BY_NUMBER, 4, 5, 31, 99, 2**32 - 1))
    elif way == 4:
        tensor.axes = damage_shape(tensor.axes, random)
    else:
        tensor.axes = [random.choice(EDGES) for _ in tensor.axes]
    if random.random() < 0.7 and tensor.type in BY_NUMBER:
        count = min(BY_NUMBER[tensor.type].nbytes(tuple(tensor.axes)), MOST_BYTES)
        tensor.data = (tensor.data + random.randbytes(max(0, count - len(tensor.data))))[:count]
