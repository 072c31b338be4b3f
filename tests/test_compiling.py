"""Compiled blocks: as few graphs as promised, the same numbers, with everything that a block can meet."""

from __future__ import annotations

import shutil
from itertools import product

import pytest
import torch
from safetensors.torch import save_file

from joyimage import JoyImage, compiling, lora
from joyimage.caching import StepCache
from joyimage.checkpoints import convert, load_mmdit
from joyimage.config import MMDiTConfig
from joyimage.errors import JoyImageError
from joyimage.memory import budget as budgets
from joyimage.memory import streaming
from joyimage.memory.budget import place
from joyimage.mmdit import MMDiT
from joyimage.versions import torch_version

CONFIG = MMDiTConfig(64, 2, 4, 16, 16, 48, 256, (1, 2, 2), (4, 14, 14), 10000.0)
CPU = torch.device("cpu")
PARTS = 3  # before attention, after it, after the last one
compiles = pytest.mark.skipif(torch_version() < compiling.LEAST_TORCH, reason="compile needs a newer torch")


class Backend:
    """Runs graphs as they are and counts them: no compiler is needed."""

    def __init__(self):
        self.graphs = 0

    def __call__(self, graph, _inputs):
        self.graphs += 1
        return graph.forward


@pytest.fixture
def backend():
    torch._dynamo.reset()
    yield Backend()
    torch._dynamo.reset()
    compiling.compiled_blocks.cache_clear()


def network(config=CONFIG):
    torch.manual_seed(0)
    model = MMDiT(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def model():
    return network()


def inputs(size, lengths, references, text_dim=48):
    generator = torch.Generator().manual_seed(len(lengths) + 10 * references)

    def draw(*shape):
        return torch.randn(shape, generator=generator)

    batch = len(lengths)
    contexts = [draw(length, text_dim) for length in lengths]
    images = [draw(batch, 16, 1, 4 + 2 * i, 6) for i in range(references)]
    return draw(batch, 16, 1, *size), torch.full((batch,), 731.25), contexts, images


def run(model, cases, run_block=None, **options):
    model.run_block = run_block
    try:
        with torch.inference_mode():
            return [model(*case, **options) for case in cases]
    finally:
        model.run_block = None


def assert_same(got, expected):
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5 * float(b.abs().max()), rtol=0)


SIZES = [(4, 4), (8, 6), (6, 10), (7, 5), (12, 12), (2, 16)]
LENGTHS = [[5], [9], [13], [30], [5, 7], [13, 12], [9, 9], [4, 4, 6]]  # pairs are guidance's, packed


@compiles
def test_three_graphs_serve_all_sizes_lengths_references_and_pairs(model, backend):
    cases = [inputs(*case) for case in product(SIZES, LENGTHS, range(4))]
    expected = run(model, cases)
    got = run(model, cases, compiling.compiled_blocks(backend))
    assert backend.graphs == PARTS
    assert_same(got, expected)


@compiles
@pytest.mark.parametrize("first", [((16, 16), [64], 0), ((16, 16), [16, 16], 2), ((2, 4), [2], 0)])
def test_what_comes_first_makes_no_difference(model, backend, first):
    """Numbers of tokens that equal a width, a number of heads or each other must not be taken to do so always."""
    cases = [inputs(*case) for case in (first, ((8, 6), [9], 1), ((6, 10), [5, 7], 0), ((12, 12), [30, 3, 8], 3))]
    expected = run(model, cases)
    assert_same(run(model, cases, compiling.compiled_blocks(backend)), expected)
    assert backend.graphs == PARTS


@compiles
def test_another_network_and_what_is_kept_need_no_graph_more(model, backend):
    other, cases = network(), [inputs((8, 6), lengths, 2) for lengths in ([7], [5, 9], [6, 6])]
    blocks = compiling.compiled_blocks(backend)
    run(model, cases, blocks)
    assert_same(run(other, cases, blocks), run(other, cases))
    for case in cases:
        for options in ({"reference_every": 3}, {"block_cache": 0.5}, {"reference_every": 2, "block_cache": 0.5}):
            got = run(other, [case] * 4, blocks, cache=StepCache(**options))
            assert_same(got, run(other, [case] * 4, cache=StepCache(**options)))
    assert backend.graphs == PARTS


@compiles
@pytest.mark.parametrize("form", ["fp8", "int8", "gguf:Q8_0", "gguf:Q4_K"])
def test_quantised_weights(tmp_path, backend, form):
    save_file(network(MMDiTConfig(256, 2, 3, 16, 16, 48, 1024)).state_dict(), tmp_path / "plain.safetensors")
    file = tmp_path / ("weights.gguf" if "gguf" in form else "weights.safetensors")
    convert(tmp_path / "plain.safetensors", file, format=form)
    model = load_mmdit(file, dtype=torch.float32)
    cases = [inputs((8, 6), [9], 1), inputs((6, 10), [5, 7], 2)]
    expected = run(model, cases)
    assert_same(run(model, cases, compiling.compiled_blocks(backend)), expected)
    assert backend.graphs == PARTS


@compiles
@pytest.mark.parametrize("merge", [True, False])
def test_loras(tmp_path, backend, merge):
    model, cases = network(), [inputs((8, 6), [9], 1), inputs((6, 10), [5, 7], 2)]
    generator = torch.Generator().manual_seed(4)
    state = {}
    for i in range(CONFIG.num_layers):
        name = f"transformer.double_blocks.{i}.attn.img_attn_qkv"
        state[f"{name}.lora_A.weight"] = torch.randn(4, 64, generator=generator)
        state[f"{name}.lora_B.weight"] = torch.randn(192, 4, generator=generator)
    save_file(state, tmp_path / "lora.safetensors")
    plain = run(model, cases)
    applied = lora.match((model,), [(lora.read(tmp_path / "lora.safetensors"), 0.5)]).apply(torch.float32, merge)
    expected = run(model, cases)
    got = run(model, cases, compiling.compiled_blocks(backend))
    assert_same(got, expected)
    assert backend.graphs == PARTS
    applied.remove()
    assert_same(run(model, cases, compiling.compiled_blocks(backend)), plain)


@compiles
@pytest.mark.parametrize("kind", ["lora", "lokr"])
def test_loras_of_some_layers_come_and_go_after_compiling(tmp_path, backend, kind):
    model, cases = network(), [inputs((8, 6), [9], 1), inputs((6, 10), [5, 7], 2)]
    blocks, generator = compiling.compiled_blocks(backend), torch.Generator().manual_seed(4)
    assert_same(run(model, cases, blocks), run(model, cases))
    for i, layer in enumerate(("attn.img_attn_qkv", "attn.txt_attn_qkv", "img_mlp.net.2")):
        name = f"transformer.double_blocks.{i}.{layer}"
        rows, columns = model.get_submodule(name.removeprefix("transformer.")).weight.shape
        factors = {"lora_A": (4, columns), "lora_B": (rows, 4)}
        if kind == "lokr":
            factors = {"lokr_w1": (4, 4), "lokr_w2": (rows // 4, columns // 4)}
        suffix = ".weight" if kind == "lora" else ""
        state = {f"{name}.{key}{suffix}": torch.randn(s, generator=generator) for key, s in factors.items()}
        save_file(state, tmp_path / "lora.safetensors")
        plain = run(model, cases)
        applied = lora.match((model,), [(lora.read(tmp_path / "lora.safetensors"), 0.5)]).apply(torch.float32)
        expected = run(model, cases)
        assert_same(run(model, cases, blocks), expected)
        assert any((a - b).abs().max() > 1e-3 for a, b in zip(plain, expected, strict=True))
        applied.remove()
        assert_same(run(model, cases, blocks), plain)


@compiles
def test_a_compiled_network_takes_compiled_blocks_into_its_graph(model, backend):
    cases = [inputs((8, 6), [9], 1)]
    expected = run(model, cases)
    model.run_block = compiling.compiled_blocks(backend)
    try:
        with torch.inference_mode():
            got = [torch.compile(model, backend=backend)(*case) for case in cases]
    finally:
        model.run_block = None
    assert_same(got, expected)
    assert backend.graphs > 0


@compiles
def test_blocks_that_stream_are_inputs_of_the_same_graphs(model, backend):
    cases = [inputs((8, 6), [9], 1), inputs((6, 10), [5, 7], 2)]
    expected = run(model, cases)
    part = streaming.Worker(model, [model.double_blocks], CPU, streaming.pinned_for(CPU))
    weights = budgets.measure("mmdit", model, {"blocks": model.double_blocks})
    part.enter(place(weights, 0, weights.rest + 2 * max(weights.groups[0].blocks)))
    try:
        got = run(model, cases * 2, compiling.compiled_blocks(backend))
    finally:
        part.leave()
    assert_same(got, expected * 2)
    assert backend.graphs == PARTS


@compiles
@pytest.mark.slow
@pytest.mark.skipif(shutil.which(compiling.compiler()) is None, reason="there is no C++ compiler")
def test_the_default_backend_computes_the_same(model, backend):
    cases = [inputs((8, 6), [9], 1), inputs((6, 10), [5, 7], 2)]
    assert_same(run(model, cases, compiling.compiled_blocks()), run(model, cases))


@compiles
def test_a_compiler_that_fails_is_named(model):
    def broken(_graph, _inputs):
        raise ValueError("no such instruction")

    with pytest.raises(JoyImageError, match=r"torch.compile failed: .*; leave compile off"):
        run(model, [inputs((8, 6), [9], 1)], compiling.compiled_blocks(broken))
    torch._dynamo.reset()


@pytest.mark.parametrize("device, message", [("cpu", "needs a C.. compiler"), ("cuda", "needs triton")])
def test_what_is_missing_is_said_before_anything_runs(monkeypatch, device, message):
    monkeypatch.setattr(compiling.shutil, "which", lambda _name: None)
    monkeypatch.setattr(compiling.importlib.util, "find_spec", lambda _name: None)
    monkeypatch.setattr(compiling.torch, "__version__", "2.13.0")
    with pytest.raises(JoyImageError, match=message):
        compiling.check_compiler(torch.device(device))
    monkeypatch.setattr(compiling.torch, "__version__", "2.5.1+cpu")
    with pytest.raises(JoyImageError, match=r"needs torch 2.6 or newer, and this is 2.5.1"):
        compiling.check_compiler(torch.device(device))


@pytest.mark.parametrize("named, message", [("no-such", "no-such is not in PATH"), (None, "g.. is not in PATH")])
def test_another_compiler_than_the_one_that_torch_takes_is_no_help(monkeypatch, named, message):
    monkeypatch.setenv("CXX", named) if named else monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(compiling.sys, "platform", "linux")
    monkeypatch.setattr(compiling.shutil, "which", lambda name: "/usr/bin/clang++" if name == "clang++" else None)
    with pytest.raises(JoyImageError, match=message):
        compiling.check_compiler(CPU)
    monkeypatch.setenv("CXX", "clang++")
    compiling.check_compiler(CPU)


@compiles
def test_a_model_is_loaded_with_compiled_blocks(tmp_path):
    options = {"size": (64, 64), "steps": 2, "output": "latent"}
    expected = JoyImage.load("tiny").generate("a cup", **options)
    got = JoyImage.load("tiny", compile="eager").generate("a cup", **options)
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=0)
    with pytest.raises(JoyImageError, match="compile is 'nonsense', which torch has no backend for"):
        JoyImage.load(tmp_path, compile="nonsense")
