"""Damage to bytes and to JSON, drawn from a generator, so that a seed gives it again."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

EDGES = (0, 1, 2, 127, 255, 2**15, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**62, 2**63 - 1, 2**63, 2**64 - 1)
HEADER = 16384  # most damage goes where the structure is
SIGNS = b'0123456789-.eE"[]{}:,tn\\u'

# -- bytes ------------------------------------------------------------------------------------------------------------

ByteMutation = Callable[[bytes, int, Random], bytes]

BYTES: dict[str, ByteMutation] = {
    "byte": lambda data, at, random: data[:at] + bytes([random.randrange(256)]) + data[at + 1 :],
    "flip": lambda data, at, random: data[:at] + bytes([data[at] ^ (1 << random.randrange(8))]) + data[at + 1 :],
    "number": lambda data, at, random: _number(data, at, random),
    "sign": lambda data, at, random: data[:at] + bytes([random.choice(SIGNS)]) + data[at + 1 :],
    "cut": lambda data, at, random: data[:at],
    "remove": lambda data, at, random: data[:at] + data[at + random.randint(1, 64) :],
    "insert": lambda data, at, random: data[:at] + random.randbytes(random.randint(1, 64)) + data[at:],
    "double": lambda data, at, random: data[: at + random.randint(1, 64)] + data[at:],
}


def _number(data: bytes, at: int, random: Random) -> bytes:
    """An edge of a number's range, of 2, 4 or 8 bytes in either order."""
    size, order = random.choice((2, 4, 8)), random.choice(("little", "big"))
    value = random.choice(EDGES) % 2 ** (8 * size)
    return data[:at] + value.to_bytes(size, order) + data[at + size :]


def damage_bytes(data: bytes, random: Random) -> bytes:
    """One to four mutations, most of them near the start."""
    for _ in range(random.randint(1, 4)):
        if data:
            reach = random.choice((64, HEADER, len(data)))
            data = random.choice(list(BYTES.values()))(data, random.randrange(min(reach, len(data))), random)
    return data


# -- JSON -------------------------------------------------------------------------------------------------------------

RAW = "\0raw"  # stands for text that `json` would not write
RAWS = (
    "NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1" * 5000, "-0", "1.0", "0x10", "[" * 3000, '{"a":' * 3000,
    "[" * 200 + "]" * 200, '"\\ud800"', '"\\udfff\\ud800"', '"\\u0000"', '"\\u001b[2J"', "nul", "", '"', "[1,]",
)  # fmt: skip
ODD: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 3, 7, 16, 10**6, 2**31, 2**53, 2**63, 2**64, 10**18, 10**400, -(10**18),
    0.5, -1.5, 1e308, "", "a", "0", "-1", "auto", "x" * 300, "x" * 100_000, "é" * 150,
    "../a", "/etc/passwd", "a/../b", ".", "\n", "a\0b",
    [], [[]], [0], [None], [-1], ["a"], [1, 2, 3], [0] * 1000, [10**12] * 4, {}, {"a": 1}, {"": None}, {"a": {"a": {}}},
)  # fmt: skip


def odd(random: Random) -> Any:
    return copy.deepcopy(random.choice(ODD)) if random.random() < 0.8 else RAW + random.choice(RAWS)


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container within a value with each of its keys or indexes."""
    for key, inner in _entries(value):
        yield value, key
        yield from places(inner)


def _entries(value: Any) -> list[tuple[Any, Any]]:
    if isinstance(value, dict):
        return list(value.items())
    return list(enumerate(value)) if isinstance(value, list) else []


def damage_value(value: Any, random: Random, times: int = 3) -> Any:
    """A copy of a JSON value with entries replaced, removed, added, renamed or exchanged."""
    value = {"": copy.deepcopy(value)}
    for _ in range(random.randint(1, times)):
        found = list(places(value))
        container, key = random.choice(found)
        VALUES[random.choice(list(VALUES))](container, key, random, found)
        if "" not in value:
            return odd(random)
    return value[""]


def _replace(container, key, random: Random, found) -> None:
    container[key] = odd(random)


def _near(container, key, random: Random, found) -> None:
    """A number a little beside the right one; another type for what is none."""
    value = container[key]
    if isinstance(value, int | float):
        container[key] = random.choice(
            (value + 1, value - 1, -value, value * 2, float(max(-(2**999), min(value, 2**999))), str(value))
        )
    else:
        container[key] = odd(random)


def _remove(container, key, random: Random, found) -> None:
    del container[key]


def _add(container, key, random: Random, found) -> None:
    if isinstance(container, dict):
        container[random.choice(("a", "", "x" * 300, "__metadata__", "config", "\u202e"))] = odd(random)
    else:
        container.insert(key, odd(random))


def _rename(container, key, random: Random, found) -> None:
    if isinstance(container, dict) and isinstance(key, str):
        container[random.choice((key + "_", key[1:], key.upper(), "x" * 300, key * 2))] = container.pop(key)


def _exchange(container, key, random: Random, found) -> None:
    """Another entry's value, which may be anything that the file holds."""
    other, place = random.choice(found)
    container[key] = copy.deepcopy(other[place])


VALUES: dict[str, Callable[[Any, Any, Random, list], None]] = {
    "replace": _replace,
    "near": _near,
    "remove": _remove,
    "add": _add,
    "rename": _rename,
    "exchange": _exchange,
}


def json_text(value: Any, random: Random) -> bytes:
    """A value as JSON, with what `json` would not write put in; now and then with a key twice."""
    text = json.dumps(value, ensure_ascii=False)
    for raw in RAWS:
        text = text.replace(json.dumps(RAW + raw, ensure_ascii=False), raw)
    if random.random() < 0.1 and isinstance(value, dict) and value:
        key = random.choice(list(value))
        text = f"{{{json.dumps(key)}: {json.dumps(random.choice(ODD))}, {text[1:]}"
    return text.encode(errors="surrogatepass")


def damage_json(data: bytes, random: Random) -> bytes:
    """Damage to a JSON text: most of it to its values, the rest to its bytes."""
    if random.random() < 0.25:
        return damage_bytes(data, random)
    return json_text(damage_value(json.loads(data), random), random)
