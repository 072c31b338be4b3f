"""Products whose activations are rounded: their arithmetic on any processor, when they run, and which runs where."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from joyimage import JoyImage, tiny
from joyimage.checkpoints import convert
from joyimage.cli import main
from joyimage.errors import JoyImageError
from joyimage.quantisation import layers, products, recipes, rounded
from joyimage.quantisation.formats import FORMATS, ROWS, SQUARES, WHOLE, Format
from joyimage.quantisation.kernels import FEWEST_TOKENS, KERNELS, Hardware, Kernel, kernel_for
from joyimage.quantisation.tensor import QuantizedTensor, stored_tensor
from joyimage.settings import PRODUCTS

IN, OUT, TOKENS = 512, 96, 64
EXACT_SUMS = torch._int_mm
KITCHEN = "comfy-kitchen"
CPU, CPU_VNNI = Hardware("cpu"), Hardware("cpu", vnni=True)
A100, H100, B200 = (Hardware("cuda", (major, 0)) for major in (8, 9, 10))


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(autouse=True)
def whole_numbers(monkeypatch):
    """Sums of products of int8 in float64, where they are exact: what `_int_mm` gives on processors that have VNNI."""
    monkeypatch.setattr(torch, "_int_mm", lambda a, b: (a.double() @ b.double()).to(torch.int32))


def quantised(name: str, shape: tuple[int, int] = (OUT, IN), scales=None) -> QuantizedTensor:
    """A weight of random numbers in a format, as its usual writer makes it."""
    weight, form = draw(*shape, seed=1) / 32, FORMATS[name]
    if name in ("mxfp8", "nvfp4"):
        return by_kitchen(name, weight, form)
    if name in products.CODES:
        form = replace(form, scales=(ROWS,) if scales is None else scales)
        limit = torch.finfo(products.CODES[name]).max if form.floating else 127
        turned = rounded.rotate(weight, form.rotation) if form.rotation else weight
        peak = turned.abs().amax(1, keepdim=True) if form.scales == (ROWS,) else turned.abs().amax()
        scale = peak / limit if form.scales else torch.tensor(1.0)
        codes = (turned / scale).clamp(-limit, limit)
        codes = (codes if form.floating else codes.round()).to(products.CODES[name])
        return stored_tensor(codes, [scale] if form.scales else [], form, shape)
    made = recipes.ggml(name)(shape)
    assert made is not None
    return stored_tensor(made.encode(weight)[0], (), form, shape)


def by_kitchen(name: str, weight: Tensor, form: Format) -> QuantizedTensor:
    kitchen = pytest.importorskip("comfy_kitchen")
    if name == "mxfp8":
        data, scale = kitchen.quantize_mxfp8(weight)
        return stored_tensor(data, [scale], form, (OUT, IN))
    whole = weight.abs().amax() / (448 * 6)
    data, scale = kitchen.quantize_nvfp4(weight, whole)
    return stored_tensor(data, [scale, whole], form, (OUT, IN))


@pytest.fixture
def kitchen_on_cpu(monkeypatch):
    """comfy-kitchen's products of blocks with scales, which no processor has, from the numbers of their factors."""
    kitchen = pytest.importorskip("comfy_kitchen")

    def mxfp8(a, b, scale_a, scale_b, bias, out_dtype):
        x, w = (kitchen.dequantize_mxfp8(*each, torch.float32) for each in ((a, scale_a), (b, scale_b)))
        return (x @ w.T).to(out_dtype)

    def nvfp4(a, b, whole_a, whole_b, scale_a, scale_b, out_dtype):
        factors = (a, whole_a, scale_a), (b, whole_b, scale_b)
        x, w = (kitchen.dequantize_nvfp4(*each, torch.float32) for each in factors)
        return (x @ w.T).to(out_dtype)

    monkeypatch.setattr(kitchen, "scaled_mm_mxfp8", mxfp8)
    monkeypatch.setattr(kitchen, "scaled_mm_nvfp4", nvfp4)


def decibels(value: Tensor, wanted: Tensor) -> float:
    return (20 * torch.log10(wanted.norm() / (value.double() - wanted).norm())).item()


# -- the arithmetic ---------------------------------------------------------------------------------------------------


def activations(kind: str) -> Tensor:
    """As layers get them: after a norm, after GELU, with channels 30 times as large as the rest, with tokens of any
    size."""
    x = draw(TOKENS, IN, seed=3)
    if kind == "gelu":
        return F.gelu(1.5 * x, approximate="tanh")
    if kind == "channels":
        return torch.cat([30 * x[:, :4], x[:, 4:]], dim=1)
    return x * (2 * draw(TOKENS, 1, seed=4)).exp() if kind == "tokens" else x


# Decibels per layer against the exact product: 35 of int8 unless channels stick out, which is what rotation is for.
# Three bits of mantissa are 31 decibels however large a number is, and one bit 20.
LEAST = {
    ("int8", "torch._int_mm"): {"norm": 47, "gelu": 49, "tokens": 42.5, "channels": 31},
    ("int8_convrot", "torch._int_mm"): {"norm": 47, "gelu": 48, "tokens": 41.5, "channels": 44},
    ("int8", "comfy-kitchen int8_linear"): {"norm": 41, "gelu": 38.5, "tokens": 41, "channels": 26},
    ("int8_convrot", "comfy-kitchen int8_linear"): {"norm": 41, "gelu": 41, "tokens": 41, "channels": 41},
    ("float8_e4m3fn", "torch._scaled_mm"): {"norm": 31, "gelu": 31, "tokens": 31, "channels": 31},
    ("mxfp8", "comfy-kitchen scaled_mm_mxfp8"): {"norm": 31, "gelu": 31, "tokens": 31, "channels": 31},
    ("nvfp4", "comfy-kitchen scaled_mm_nvfp4"): {"norm": 20, "gelu": 20, "tokens": 18, "channels": 20},
}


@pytest.mark.parametrize("kind", ["norm", "gelu", "tokens", "channels"])
@pytest.mark.parametrize(("name", "kernel"), LEAST)
def test_a_layer_is_as_near_to_its_exact_product_as_its_format_lets_it(name, kernel, kind, kitchen_on_cpu):
    weight, x, bias = quantised(name), activations(kind), draw(OUT, seed=5)
    wanted = F.linear(x.double(), weight.dense(torch.float32).double(), bias.double())
    assert decibels(rounded.IMPLEMENTATIONS[kernel](x, weight, bias), wanted) > LEAST[name, kernel][kind]


def test_a_bound_stands_for_each_row_of_the_table():
    assert {(name, row.name) for row in KERNELS for name in row.formats} == set(LEAST)
    assert {row.name for row in KERNELS} == set(rounded.IMPLEMENTATIONS)


@pytest.mark.parametrize("name", ["int8", "int8_convrot"])
def test_int8_is_what_rounded_activations_times_the_weight_are(name):
    weight, x = quantised(name), draw(300, IN, seed=3)  # more tokens than are worked on at once
    codes, scale, middle = rounded.as_int8(rounded.rotate(x, 256) if weight.format.rotation else x)
    assert (codes.amax(1).int() - codes.amin(1).int()).ge(252).all()
    wanted = (codes.double() * scale + middle) @ weight.dense_rotated(torch.float32).double().T
    assert decibels(rounded.int8_product(x, weight, None), wanted) > 120


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    ("name", "scales"),
    [("int8", (WHOLE,)), ("int8", (ROWS,)), *(("float8_e4m3fn", kinds) for kinds in ((), (WHOLE,), (ROWS,)))],
)
def test_every_scale_and_dtype(name, scales, dtype):
    weight, x, bias = quantised(name, scales=scales), draw(2, 40, IN, seed=3).to(dtype), draw(OUT, seed=5).to(dtype)
    kernel = next(row for row in KERNELS if row.takes(weight.format, weight.shape) and KITCHEN not in row.name)
    skip_before(kernel)
    result = products.linear(x, weight, bias, replace(kernel, device="cpu"))
    assert (result.shape, result.dtype) == ((2, 40, OUT), dtype)
    wanted = F.linear(x.double(), weight.dense(torch.float32).double(), bias.double())
    assert decibels(result, wanted) > (38 if name == "int8" else 29)


def skip_before(kernel: Kernel) -> None:
    """Skip where torch is older than a product of its own."""
    if rounded.hardware(torch.device("cpu")).torch < kernel.torch:
        pytest.skip(f"{kernel.name} came to processors with a newer torch than {torch.__version__}")


def test_beside_one_huge_number_the_others_are_rounded_to_0():
    """And not all to the nearest code, off by as much: that would add up."""
    x = draw(20, IN, seed=3)
    x[:, 0] = torch.linspace(500, 3000, 20)
    codes, scale, middle = rounded.as_int8(x)
    assert (codes * scale + middle)[:, 1:].abs().lt(1e-2).float().mean() > 0.5
    assert (codes * scale + middle)[:, 1:].double().mean(1).abs().max() < 0.4


def test_tokens_do_not_hang_on_each_other():
    weight, x = quantised("int8_convrot"), draw(40, IN, seed=3)
    alone = rounded.int8_product(x[:20], weight, None)
    x[20:] *= 1e4
    torch.testing.assert_close(rounded.int8_product(x, weight, None)[:20], alone, rtol=0, atol=0)


@pytest.mark.parametrize("kernel", ["torch._int_mm", "torch._scaled_mm"])
def test_a_token_of_zeros_is_the_bias(kernel):
    skip_before(next(row for row in KERNELS if row.name == kernel))
    weight, bias = quantised("int8" if "int" in kernel else "float8_e4m3fn"), draw(OUT, seed=5)
    torch.testing.assert_close(rounded.IMPLEMENTATIONS[kernel](torch.zeros(20, IN), weight, bias), bias.expand(20, OUT))


def test_sums_of_int8_are_exact_where_the_table_says_so():
    if kernel_for(quantised("int8").format, (OUT, IN), rounded.hardware(torch.device("cpu"))) is None:
        pytest.skip("this processor has no VNNI, and so no such product")
    a, b = torch.full((20, IN), 127, dtype=torch.int8), torch.full((IN, OUT), 127, dtype=torch.int8)
    assert EXACT_SUMS(a, b).eq(127 * 127 * IN).all()


# -- when they run ----------------------------------------------------------------------------------------------------


def network(*names: str) -> nn.Module:
    """Layers of these formats one after the other."""
    made = nn.Sequential()
    for name in names:
        layer = layers.Linear(IN, OUT)
        layer.pack(quantised(name))
        made.append(layer.eval().requires_grad_(False))
    return made


@pytest.fixture
def calls(monkeypatch) -> list[str]:
    """The names of the kernels that are called, which all run here."""
    called: list[str] = []

    def spy(name):
        return lambda *given: (called.append(name), products.exact(*given))[1]

    monkeypatch.setattr(rounded, "IMPLEMENTATIONS", {name: spy(name) for name in rounded.IMPLEMENTATIONS})
    return called


def use(monkeypatch, made: nn.Module, found: Hardware, kind: str = "8bit") -> None:
    monkeypatch.setattr(layers, "hardware", lambda device: found)
    layers.use_products([made], kind, "cpu")


def test_they_run_on_request_alone(monkeypatch, calls):
    made, x = network("int8"), draw(TOKENS, IN, seed=3)
    made(x)
    use(monkeypatch, made, CPU_VNNI, "exact")
    made(x)
    assert not calls
    use(monkeypatch, made, CPU_VNNI)
    made(x)
    assert calls == ["torch._int_mm"]
    use(monkeypatch, made, CPU_VNNI, "exact")
    made(x)
    assert len(calls) == 1


def test_few_tokens_run_exact(monkeypatch, calls):
    made = network("int8")
    use(monkeypatch, made, CPU_VNNI)
    for count in (0, 1, FEWEST_TOKENS - 1):
        assert made(draw(2, count, IN, seed=3)[:1]).shape == (1, count, OUT)
    assert not calls
    made(draw(FEWEST_TOKENS, IN, seed=3))
    assert calls


def test_training_takes_the_exact_product(monkeypatch, calls):
    made, x = network("int8"), draw(TOKENS, IN, seed=3)
    use(monkeypatch, made, CPU_VNNI)
    x.requires_grad_()
    exact = F.linear(x, quantised("int8").dense(torch.float32), made[0].bias)
    torch.testing.assert_close(made(x), exact, rtol=1e-4, atol=1e-5)
    made.train()(x.detach())
    made.eval()[0].bias.requires_grad_()
    made(x.detach())
    assert not calls
    with torch.no_grad():
        made(x)
    assert calls


def test_a_layer_moved_to_another_device_runs_exact(monkeypatch, calls):
    made = network("int8")
    use(monkeypatch, made, H100)
    assert made[0].kernel.device == "cuda"
    made(draw(TOKENS, IN, seed=3))
    assert not calls


def test_without_vnni_no_processor_sums_int8(monkeypatch):
    def wrong(*_):
        raise AssertionError("it saturates here")

    monkeypatch.setattr(torch, "_int_mm", wrong)
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: False, raising=False)
    rounded.hardware.cache_clear()
    made = network("int8", "int8_convrot")
    try:
        with pytest.warns(UserWarning, match="int8, int8_convrot runs exact"):
            layers.use_products([made], "8bit", "cpu")
    finally:
        rounded.hardware.cache_clear()
    made[0](draw(TOKENS, IN, seed=3))


@pytest.mark.parametrize(
    ("name", "found", "kernel"),
    [
        ("int8", CPU, None),
        ("int8", CPU_VNNI, "torch._int_mm"),
        ("int8_convrot", CPU_VNNI, "torch._int_mm"),
        ("float8_e4m3fn", CPU_VNNI, None),
        ("Q8_0", CPU_VNNI, None),
        ("int8", Hardware("cuda", (7, 0)), None),
        ("int8_convrot", Hardware("cuda", (7, 5)), "torch._int_mm"),
        ("int8_convrot", replace(A100, kitchen=True), "comfy-kitchen int8_linear"),
        ("float8_e4m3fn", A100, None),
        ("float8_e4m3fn", Hardware("cuda", (8, 9)), "torch._scaled_mm"),
        ("float8_e4m3fn", replace(H100, torch=(2, 7)), None),
        ("float8_e4m3fn", replace(H100, kitchen=True), "torch._scaled_mm"),
        ("float8_e5m2", H100, None),
        ("mxfp8", replace(H100, kitchen=True), None),
        ("mxfp8", replace(B200, kitchen=True), "comfy-kitchen scaled_mm_mxfp8"),
        ("nvfp4", replace(B200, kitchen=True), "comfy-kitchen scaled_mm_nvfp4"),
        ("nvfp4", B200, None),
        ("Q4_K", replace(B200, kitchen=True), None),
        ("int8", Hardware("rocm"), None),
        ("int8", Hardware("mps"), None),
    ],
)
def test_the_table_says_what_runs(name, found, kernel, monkeypatch, calls):
    """On a device that is described; the tensors are on the CPU, and so is what stands for its kernels."""
    monkeypatch.setattr(layers, "kernel_for", lambda *given: (row := kernel_for(*given)) and replace(row, device="cpu"))
    made = network(name)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        use(monkeypatch, made, found)
    made(draw(TOKENS, IN, seed=3))
    assert calls == ([kernel] if kernel else [])
    assert [name in str(each.message) for each in told] == ([] if kernel else [True])


def test_the_page_on_weights_has_the_table():
    page = (Path(__file__).parents[1] / "docs/weights.md").read_text(encoding="utf-8")
    head = "| weights | activations rounded to | product | where |"
    rows = page.split(head)[1].split("\n\n")[0].splitlines()[2:]
    assert rows == [f"| {', '.join(row.formats)} | {row.activations} | {row.name} | {row.where} |" for row in KERNELS]


def test_scales_of_squares_and_odd_shapes_have_no_such_product():
    e4m3, int8 = quantised("float8_e4m3fn").format, quantised("int8").format
    assert kernel_for(replace(e4m3, scales=(SQUARES,)), (OUT, IN), H100) is None
    assert kernel_for(e4m3, (OUT, IN - 8), H100) is None
    assert kernel_for(int8, (OUT + 4, IN), A100) is None
    assert kernel_for(int8, (OUT + 1, IN - 1), CPU_VNNI) is not None


def test_odd_shapes_multiply_on_a_processor():
    weight, x = quantised("int8", (OUT + 1, IN - 1)), draw(TOKENS, IN - 1, seed=3)
    wanted = x.double() @ weight.dense(torch.float32).double().T
    assert decibels(rounded.int8_product(x, weight, None), wanted) > 38


def test_a_network_without_quantised_weights_says_so():
    with pytest.warns(UserWarning, match="no weights are quantised"):
        layers.use_products([nn.Linear(4, 4)], "8bit", "cpu")


def test_an_unknown_kind_is_refused():
    with pytest.raises(JoyImageError, match="choose one of exact, 8bit"):
        layers.use_products([], "4bit", "cpu")


@pytest.mark.parametrize("name", ["int8", "int8_convrot"])
def test_a_compiled_layer_has_one_graph_and_follows_the_choice(name, monkeypatch):
    """Traced whole, so that nothing in it waits for a number from the device."""
    made, x = network(name), draw(TOKENS, IN, seed=3)
    use(monkeypatch, made, CPU_VNNI)
    compiled = torch.compile(made, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), made(x), rtol=1e-4, atol=1e-5)
        use(monkeypatch, made, CPU_VNNI, "exact")
        torch.testing.assert_close(compiled(x), made(x), rtol=1e-4, atol=1e-5)


# -- in a model -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def int8_files(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("int8")
    for name in ("mmdit", "encoder"):
        convert(tiny.FILES[name], folder / f"{name}.safetensors", format="int8")
    quantised = {name: folder / f"{name}.safetensors" for name in ("mmdit", "encoder")}
    return {**quantised, "vae": tiny.FILES["vae"], "tokenizer": tiny.TOKENIZER}


def test_a_model_edits_with_them_under_a_memory_and_a_lora(int8_files, monkeypatch, tmp_path):
    monkeypatch.setattr(layers, "hardware", lambda device: CPU_VNNI)
    ran = []
    original = rounded.int8_product
    monkeypatch.setitem(rounded.IMPLEMENTATIONS, "torch._int_mm", lambda *given: (ran.append(1), original(*given))[1])
    up, down = 0.05 * draw(480, 4, seed=6), draw(4, 160, seed=7)
    name = "double_blocks.0.img_attn_qkv"
    save_file({f"{name}.lora_up.weight": up, f"{name}.lora_down.weight": down}, tmp_path / "lora.safetensors")
    latents = {}
    for kind in PRODUCTS:
        model = JoyImage.load(**int8_files, dtype=torch.float32, products=kind, memory="40MB", device="cpu")
        model.set_loras(tmp_path / "lora.safetensors")
        picture = Image.new("RGB", (64, 64), "red")
        options = {"steps": 2, "base_size": 64, "output": "latent", "count": 2}
        # of one picture alone a flip of its network could be seen: these differ by 20 to 32 decibels
        latents[kind] = model.edit(
            picture, ["Make the cube blue.", "Remove the red cone.", "Move the cube."], **options
        )
        assert bool(ran) == (kind == "8bit")
    assert 25 < decibels(latents["8bit"], latents["exact"].double()) < 80


def test_the_command_line_asks_for_them(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["generate", "a red cube", "--steps", "1", "--products", "8bit", "--device", "cpu", "--quiet"]) == 0
    assert capsys.readouterr().err.count("products='8bit': on cpu no weights are quantised, so all run exact") == 1
    with pytest.raises(JoyImageError, match="choose one of exact, 8bit"):
        JoyImage.load("tiny", products="fast")
