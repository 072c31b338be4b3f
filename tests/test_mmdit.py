"""The MMDiT against Diffusers' two transformers, and what must hold for any batch."""

from __future__ import annotations

import pytest
import torch
from diffusers import JoyImageEditPlusTransformer3DModel, JoyImageEditTransformer3DModel

from joyimage import rope
from joyimage.config import MMDiTConfig, default_rope_dims
from joyimage.errors import CheckpointError, JoyImageError
from joyimage.mmdit import MMDiT

SIZES = {
    "hidden_size": 64,
    "num_attention_heads": 2,
    "num_layers": 3,
    "in_channels": 16,
    "text_dim": 48,
    "rope_dim_list": [4, 14, 14],
    "theta": 10000,
}
T = torch.tensor([731.25, 20.5])


def randomise(module: torch.nn.Module) -> torch.nn.Module:
    """Random tables and norms too: at their initial zeros and ones half the network would not be tested."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if "modulate_table" in name:
                parameter.copy_(0.3 * noise)
            elif "norm" in name:
                parameter.copy_(1 + 0.2 * noise)
    return module.eval()


@pytest.fixture(scope="module")
def oracle():
    torch.manual_seed(0)
    return randomise(JoyImageEditTransformer3DModel(**SIZES))


@pytest.fixture(scope="module")
def model(oracle):
    state = oracle.state_dict()
    model = MMDiT(MMDiTConfig.from_shapes({key: tuple(value.shape) for key, value in state.items()}))
    model.load_state_dict(state)
    return model.eval().requires_grad_(False)


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_config_is_read_from_shapes(model):
    assert model.config == MMDiTConfig(64, 2, 3, 16, 16, 48, 256, (1, 2, 2), (4, 14, 14), 10000.0)


def test_default_rope_dims_are_the_checkpoints():
    assert default_rope_dims(128) == (16, 56, 56)
    for head_dim in range(4, 260, 4):
        dims = default_rope_dims(head_dim)
        assert sum(dims) == head_dim and all(d % 2 == 0 for d in dims)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_forward_equals_diffusers_edit(oracle, model, count):
    """Diffusers keeps references before the target, all of one size."""
    target, context = draw(2, 16, 1, 8, 6), draw(2, 11, 48, seed=1)
    references = [draw(2, 16, 1, 8, 6, seed=2 + i) for i in range(count)]
    items = torch.stack([*references, target], dim=1)
    with torch.no_grad():
        expected = oracle(items, T, context, return_dict=False)[0][:, -1]
    torch.testing.assert_close(model(target, T, context, references), expected, atol=1e-5, rtol=0)


def patches(latent):
    """(C, 1, h, w) -> (rows * columns, C, 1, 2, 2)."""
    c, _, h, w = latent.shape
    x = latent.reshape(c, 1, 1, h // 2, 2, w // 2, 2)
    return x.permute(1, 3, 5, 0, 2, 4, 6).reshape(-1, c, 1, 2, 2)


@pytest.mark.parametrize("sizes", [[], [(6, 10)], [(6, 10), (4, 4)]])
def test_forward_equals_diffusers_edit_plus(oracle, model, sizes):
    """References of different sizes, and prompts of different lengths in a padded batch with a mask."""
    plus = JoyImageEditPlusTransformer3DModel(**SIZES).eval()
    plus.load_state_dict(oracle.state_dict())
    target, context = draw(2, 16, 1, 8, 6), draw(2, 11, 48, seed=1)
    references = [draw(2, 16, 1, h, w, seed=2 + i) for i, (h, w) in enumerate(sizes)]
    mask = torch.ones(2, 11)
    mask[1, 7:] = 0
    images = [target, *references]
    items = torch.stack([torch.cat([patches(image[i]) for image in images]) for i in range(2)])
    shapes = [[(1, image.shape[3] // 2, image.shape[4] // 2) for image in images]] * 2
    with torch.no_grad():
        expected = plus(items, T, context, mask, shapes, return_dict=False)[0]
    got = model(target, T, [context[0], context[1, :7]], references)
    for i in range(2):
        torch.testing.assert_close(patches(got[i]), expected[i, : 4 * 3], atol=1e-5, rtol=0)


def test_sample_does_not_depend_on_its_batch(model):
    target, reference = draw(3, 16, 1, 6, 6), draw(3, 16, 1, 4, 8, seed=1)
    prompts = [draw(length, 48, seed=length) for length in (5, 12, 1)]
    t = torch.tensor([900.0, 10.0, 333.3])
    together = model(target, t, prompts, [reference])
    for i in range(3):
        alone = model(target[i : i + 1], t[i : i + 1], [prompts[i]], [reference[i : i + 1]])
        torch.testing.assert_close(together[i : i + 1], alone, atol=1e-5, rtol=0)


def test_norms_of_small_numbers_equal_diffusers_too(oracle, model):
    """Queries, keys and tokens of a thousandth: there the epsilon of every norm is as large as what it is added to."""
    small = {
        name: tensor * 1e-3 if "_attn_qkv" in name or name.startswith(("img_in", "condition_embedder.text")) else tensor
        for name, tensor in model.state_dict().items()
    }
    theirs = JoyImageEditTransformer3DModel(**SIZES).eval()
    theirs.load_state_dict(small)
    ours = MMDiT(model.config).eval().requires_grad_(False)
    ours.load_state_dict(small)
    target, context = draw(2, 16, 1, 8, 6), draw(2, 11, 48, seed=1)
    with torch.no_grad():
        expected = theirs(target[:, None], T, context, return_dict=False)[0][:, -1]
    torch.testing.assert_close(ours(target, T, context), expected, atol=1e-5, rtol=0)


def test_everything_is_made_where_the_inputs_are(model):
    network = MMDiT(model.config, dtype=torch.bfloat16, device="meta")
    target, reference = (torch.empty(2, 16, 1, *size, device="meta") for size in [(7, 6), (4, 8)])
    prompts = [torch.empty(length, 48, dtype=torch.bfloat16, device="meta") for length in (5, 3)]
    got = network(target, torch.empty(2, device="meta"), prompts, [reference])
    assert (got.device, got.dtype, got.shape) == (target.device, target.dtype, target.shape)


@pytest.mark.parametrize("size", [(7, 6), (8, 5), (7, 5), (1, 1)])
def test_odd_latents_are_padded_and_cropped(model, size):
    h, w = size
    target, context = draw(1, 16, 1, h, w), draw(1, 4, 48)
    got = model(target, T[:1], context, [target])
    padded = torch.cat([target, target[..., -1:, :]], dim=3) if h % 2 else target
    padded = torch.cat([padded, padded[..., -1:]], dim=4) if w % 2 else padded
    assert got.shape == target.shape
    expected = model(padded, T[:1], context, [padded])[..., :h, :w]
    torch.testing.assert_close(got, expected, atol=1e-6, rtol=0)


def test_reference_order_and_prompt_matter(model):
    target, context = draw(1, 16, 1, 6, 6), draw(1, 4, 48)
    a, b = draw(1, 16, 1, 6, 6, seed=1), draw(1, 16, 1, 6, 6, seed=2)
    base = model(target, T[:1], context, [a, b])
    assert (base - model(target, T[:1], context, [b, a])).abs().max() > 1e-3
    assert (base - model(target, T[:1], 2 * context, [a, b])).abs().max() > 1e-3


def test_computes_in_the_dtype_of_the_context(model):
    torch.set_default_dtype(torch.bfloat16)  # as transformers has it while it makes a network
    try:
        half = MMDiT(model.config, dtype=torch.bfloat16).eval().requires_grad_(False)
    finally:
        torch.set_default_dtype(torch.float32)
    half.load_state_dict(model.state_dict())
    assert half.condition_embedder.time_embedder.linear_1.weight.dtype == torch.float32
    target, context = draw(1, 16, 1, 8, 8), draw(1, 9, 48)
    exact = model(target, T[:1], context)
    got = half(target, T[:1], context.bfloat16())
    assert got.dtype == torch.float32
    assert (got - exact).norm() / exact.norm() < 0.03


def test_host_brings_layers_and_attention(model):
    calls = []

    class Operations:
        Linear, RMSNorm, Conv3d = (type(n, (getattr(torch.nn, n),), {}) for n in ("Linear", "RMSNorm", "Conv3d"))

    def attention(q, k, v):
        calls.append((q.shape[2], k.shape[2]))
        weights = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)
        return (weights @ v).transpose(1, 2).flatten(2)

    hosted = MMDiT(model.config, operations=Operations, attention=attention).eval().requires_grad_(False)
    hosted.load_state_dict(model.state_dict())
    kinds = {type(m) for m in hosted.modules() if any(True for _ in m.parameters(recurse=False))}
    assert {kind.__name__ for kind in kinds} == {"Linear", "RMSNorm", "Conv3d", "Modulation"}
    assert torch.nn.Linear not in kinds
    target, context = draw(1, 16, 1, 4, 4), draw(1, 5, 48)
    expected = model(target, T[:1], context, [target])
    torch.testing.assert_close(hosted(target, T[:1], context, [target]), expected, atol=1e-5, rtol=0)
    assert calls == [(13, 13), (13, 13), (4, 13)]  # the last block asks for the target's tokens only


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"latent": draw(1, 16, 6, 6)}, r"latent has shape \(1, 16, 6, 6\)"),
        ({"latent": draw(1, 4, 1, 6, 6)}, r"expected \(1, 16, 1, height, width\)"),
        ({"references": [draw(2, 16, 1, 6, 6)]}, "reference 0"),
        ({"t": torch.tensor(3.0)}, "one time per sample"),
        ({"context": draw(1, 4, 32)}, r"expected 1 of \(length, 48\)"),
        ({"context": draw(2, 4, 48)}, "expected 1 of"),
    ],
)
def test_shapes_that_do_not_fit_are_named(model, change, message):
    inputs = {"latent": draw(1, 16, 1, 6, 6), "t": T[:1], "context": draw(1, 4, 48), "references": ()}
    with pytest.raises(JoyImageError, match=message):
        model(**{**inputs, **change})


def test_config_refuses_sizes_that_do_not_fit(oracle):
    shapes = {key: tuple(value.shape) for key, value in oracle.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"rope_dims \(16, 56, 56\)"):
        MMDiTConfig.from_shapes(shapes, rope_dims=(16, 56, 56))
    shapes.pop("proj_out.weight")
    with pytest.raises(CheckpointError, match=r"'proj_out.weight' is missing"):
        MMDiTConfig.from_shapes(shapes)


def test_a_compiler_gets_the_rotation_in_real_numbers_and_computes_the_same():
    x, freqs = draw(2, 12, 3, 16), rope.frequencies([(2, 3), (3, 2)], (4, 6, 6), 10000.0)
    compiled = torch.compile(rope.rotate, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x, freqs), rope.rotate(x, freqs), atol=1e-6, rtol=0)


@pytest.mark.parametrize("size", [16, 128])
def test_one_kernel_for_norm_and_rotation_computes_what_torch_does(size):
    pytest.importorskip("comfy_kitchen")
    x, freqs = draw(2, 12, 3, size), rope.frequencies([(2, 3), (3, 2)], default_rope_dims(size), 10000.0)
    norm = torch.nn.RMSNorm(size, eps=1e-6)
    torch.nn.init.normal_(norm.weight)
    torch_rotary, kitchen = rope.TorchRotary(), rope.KitchenRotary()
    with torch.no_grad():
        expected = torch_rotary(x, norm, torch_rotary.angles(freqs))
        torch.testing.assert_close(kitchen(x, norm, kitchen.angles(freqs)), expected, atol=1e-5, rtol=0)


def test_a_network_takes_another_norm_and_rotation(model, monkeypatch):
    pytest.importorskip("comfy_kitchen")
    case = draw(2, 16, 1, 8, 6), T, [draw(5, 48), draw(9, 48, seed=1)], [draw(2, 16, 1, 4, 6)]
    expected = model(*case)
    monkeypatch.setattr(model, "rotary_for", lambda _device: rope.KitchenRotary())
    torch.testing.assert_close(model(*case), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "device, installed, kind", [("cuda", True, "Kitchen"), ("cuda", False, "Torch"), ("cpu", True, "Torch")]
)
def test_the_kernel_is_used_where_it_is(monkeypatch, device, installed, kind):
    monkeypatch.setattr(rope, "has_operators", lambda *_names: installed)
    with torch.inference_mode():
        assert type(rope.rotary_for(torch.device(device))).__name__ == f"{kind}Rotary"
    assert type(rope.rotary_for(torch.device(device))) is rope.TorchRotary  # which has a derivative
