"""Mutated weight files: only the library's own errors come out, quickly, and nothing is allocated beyond the file.

`JOYIMAGE_FUZZ=5000 pytest tests/test_fuzz.py` runs that many inputs of each kind of file instead of a hundred.
"""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from quantised_files import fp8_comfy, int8_convrot, write_gguf
from safetensors.torch import save_file
from torch import nn

from joyimage import lora
from joyimage.checkpoints import inspect, load_mmdit
from joyimage.config import MMDiTConfig
from joyimage.errors import CheckpointError
from joyimage.mmdit import MMDiT

EXAMPLES = int(os.environ.get("JOYIMAGE_FUZZ", "100"))
SECONDS = 5
ALLOWED_BYTES = 256 * 2**20  # of address space that a run may grow by: mappings of small files, torch's own arenas

State = dict[str, torch.Tensor]


def state() -> State:
    torch.manual_seed(0)
    model = MMDiT(MMDiTConfig(32, 2, 1, text_dim=32, mlp_size=32, rope_dims=(4, 6, 6)))
    return {name: nn.init.normal_(tensor, std=0.1) for name, tensor in model.state_dict().items()}


def matrices(tensors: State) -> list[str]:
    return [name for name, tensor in tensors.items() if name.startswith("double_blocks") and tensor.ndim == 2]


def shards(folder: Path, tensors: State) -> Path:
    fp8_comfy(folder / "shard.safetensors", tensors, [])
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": dict.fromkeys(tensors, "shard.safetensors")}))
    return index


def lora_file(folder: Path, tensors: State) -> Path:
    """Rank 2, with alphas, for two layers."""
    factors = {}
    for name in matrices(tensors)[:2]:
        layer, (rows, columns) = f"diffusion_model.{name.removesuffix('.weight')}", tensors[name].shape
        factors[f"{layer}.lora_down.weight"] = torch.ones(2, columns)
        factors[f"{layer}.lora_up.weight"] = torch.ones(rows, 2)
        factors[f"{layer}.alpha"] = torch.tensor(2.0)
    save_file(factors, folder / "a")
    return folder / "a"


WRITERS: dict[str, Callable[[Path, State], Path]] = {
    "safetensors fp8": lambda folder, tensors: fp8_comfy(folder / "a", tensors, matrices(tensors)),
    "safetensors int8": lambda folder, tensors: int8_convrot(folder / "a", tensors, matrices(tensors)),
    "gguf": lambda folder, tensors: write_gguf(folder / "a", tensors, matrices(tensors), "Q8_0"),
    "index.json": shards,
    "lora": lora_file,
}


@pytest.fixture(scope="module", params=WRITERS)
def original(request, tmp_path_factory) -> Path:
    return WRITERS[request.param](tmp_path_factory.mktemp("fuzz"), state())


EDGES = [0, 1, 255, 2**31 - 1, 2**32 - 1, 2**62, 2**63, 2**64 - 1]
HEADER = 16384  # most mutations go where the structure is
place = st.one_of(st.integers(0, 64), st.integers(0, HEADER), st.integers(0, 2**20))
mutation = st.one_of(
    st.tuples(st.just("byte"), place, st.integers(0, 255)),
    st.tuples(st.just("flip"), place, st.integers(0, 7)),
    st.tuples(st.just("number"), place, st.sampled_from(EDGES)),
    st.tuples(st.just("digit"), place, st.sampled_from(b'0123456789-.eE"[]{}:,tn')),
    st.tuples(st.just("cut"), place, st.just(0)),
    st.tuples(st.just("remove"), place, st.integers(1, 64)),
    st.tuples(st.just("double"), place, st.integers(1, 64)),
)
MUTATIONS: dict[str, Callable[[bytearray, int, int], bytes]] = {
    "byte": lambda data, at, value: data[:at] + bytes([value]) + data[at + 1 :],
    "flip": lambda data, at, bit: data[:at] + bytes([data[at] ^ (1 << bit)]) + data[at + 1 :],
    "number": lambda data, at, value: data[:at] + value.to_bytes(8, "little") + data[at + 8 :],
    "digit": lambda data, at, value: data[:at] + bytes([value]) + data[at + 1 :],
    "cut": lambda data, at, _: data[:at],
    "remove": lambda data, at, count: data[:at] + data[at + count :],
    "double": lambda data, at, count: data[: at + count] + data[at:],
}


def mutate(data: bytes, mutations: list[tuple[str, int, int]]) -> bytes:
    for kind, at, value in mutations:
        if data:
            data = bytes(MUTATIONS[kind](bytearray(data), at % len(data), value))
    return data


@settings(max_examples=EXAMPLES, deadline=1000 * SECONDS, suppress_health_check=list(HealthCheck), derandomize=True)
@given(mutations=st.lists(mutation, min_size=1, max_size=4))
def test_mutated_files_give_our_errors_or_load(original, mutations):
    path = original.with_name(f"mutated{''.join(original.suffixes)}")
    path.write_bytes(mutate(original.read_bytes(), mutations))
    limit = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (address_space() + ALLOWED_BYTES, limit[1]))
    try:
        for use in (inspect, load_mmdit, lora.read):
            try:
                use(path)
            except CheckpointError as error:
                assert str(path) in str(error) or str(original.parent) in str(error)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limit)


def address_space() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()
