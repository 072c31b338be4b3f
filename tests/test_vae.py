"""The Wan VAE against Diffusers' on tiny random weights, its names, and its tiles."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLWan
from torch import Tensor, nn

from joyimage.checkpoints import vae_keys
from joyimage.config import WanVAEConfig
from joyimage.errors import CheckpointError, JoyImageError
from joyimage.vae import RMSNorm, WanVAE

# of the published Wan2.1_VAE.pth: where its levels begin, end, widen and resample in time
REAL_NAMES = {
    "encoder.conv1.weight": (96, 3, 3, 3, 3),
    "encoder.downsamples.0.residual.0.gamma": (96, 1, 1, 1),
    "encoder.downsamples.2.resample.1.weight": (96, 96, 3, 3),
    "encoder.downsamples.3.shortcut.weight": (192, 96, 1, 1, 1),
    "encoder.downsamples.5.time_conv.weight": (192, 192, 3, 1, 1),
    "encoder.downsamples.8.resample.1.bias": (384,),
    "encoder.downsamples.10.residual.6.weight": (384, 384, 3, 3, 3),
    "encoder.middle.0.residual.2.weight": (384, 384, 3, 3, 3),
    "encoder.head.0.gamma": (384, 1, 1, 1),
    "conv1.weight": (32, 32, 1, 1, 1),
    "conv2.weight": (16, 16, 1, 1, 1),
    "decoder.conv1.bias": (384,),
    "decoder.middle.1.norm.gamma": (384, 1, 1),
    "decoder.middle.1.to_qkv.weight": (1152, 384, 1, 1),
    "decoder.middle.1.proj.bias": (384,),
    "decoder.middle.2.residual.3.gamma": (384, 1, 1, 1),
    "decoder.upsamples.3.resample.1.weight": (192, 384, 3, 3),
    "decoder.upsamples.3.time_conv.weight": (768, 384, 3, 1, 1),
    "decoder.upsamples.4.shortcut.weight": (384, 192, 1, 1, 1),
    "decoder.upsamples.11.resample.1.weight": (96, 192, 3, 3),
    "decoder.upsamples.14.residual.6.weight": (96, 96, 3, 3, 3),
    "decoder.head.2.weight": (3, 96, 3, 3, 3),
}
SIZES = [
    {"base_dim": 8},
    {"base_dim": 6, "dim_mult": [1, 2, 3], "num_res_blocks": 1, "temperal_downsample": [False, True]},
    {"base_dim": 8, "dim_mult": [2], "num_res_blocks": 3, "temperal_downsample": []},
]


def make_reference(**sizes) -> AutoencoderKLWan:
    """Diffusers' VAE with random weights whose activations neither fade nor explode."""
    torch.manual_seed(0)
    reference = AutoencoderKLWan(**sizes).eval().requires_grad_(False)
    for name, parameter in reference.named_parameters():
        if name.endswith("gamma"):
            parameter.uniform_(0.5, 1.5)
        elif parameter.ndim > 1:
            nn.init.kaiming_normal_(parameter)
    return reference


def original_state(reference: AutoencoderKLWan) -> dict[str, Tensor]:
    state = reference.state_dict()
    names = vae_keys.diffusers_to_original(state.keys())
    return {names[key]: tensor for key, tensor in state.items()}


def load(state: dict[str, Tensor], dtype=None) -> WanVAE:
    """A VAE with weights in the original naming, of sizes read off them."""
    vae = WanVAE(WanVAEConfig.from_shapes({key: tuple(tensor.shape) for key, tensor in state.items()}), device="meta")
    vae.load_state_dict(vae_keys.image_kernels(state), assign=True)
    return vae.to(dtype)


def statistics(config: WanVAEConfig) -> tuple[Tensor, Tensor]:
    return tuple(torch.tensor(values).view(1, -1, 1, 1, 1) for values in (config.latents_mean, config.latents_std))


def smooth_picture(height: int, width: int) -> Tensor:
    """Gradients and low frequencies in [-1, 1], (1, 3, height, width)."""
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    return torch.stack([2 * x - 1, torch.sin(3 * y) * torch.cos(4 * x), 1 - x - y])[None]


@pytest.fixture(scope="module")
def reference() -> AutoencoderKLWan:
    return make_reference(**SIZES[0])


@pytest.fixture(scope="module")
def vae(reference) -> WanVAE:
    return load(original_state(reference))


@pytest.mark.parametrize("sizes", SIZES, ids=["published", "three levels", "one level"])
@pytest.mark.parametrize("batch, height, width", [(1, 6, 6), (2, 5, 9)])
def test_encode_and_decode_equal_the_reference(sizes, batch, height, width):
    reference = make_reference(**sizes)
    vae = load(original_state(reference))
    mean, std = statistics(vae.config)
    factor = vae.config.spatial_factor

    image = torch.rand(batch, 3, height * factor, width * factor) * 2 - 1
    latent = vae.encode(image)
    expected = (reference.encode(image[:, :, None]).latent_dist.mode() - mean) / std
    assert latent.shape == (batch, 16, 1, height, width)
    assert latent.dtype == torch.float32
    assert expected.std() > 0.1
    assert (latent - expected).abs().max() <= 1e-5

    latent = torch.randn(batch, 16, 1, height, width)
    decoded = vae.decode(latent)
    expected = reference.decode(latent * std + mean).sample[:, :, 0]
    assert decoded.shape == image.shape
    assert decoded.dtype == torch.float32
    assert expected.std() > 0.1
    assert (decoded - expected).abs().max() <= 1e-5


def test_decoded_images_are_clamped(vae):
    decoded = vae.decode(20 * torch.randn(1, 16, 1, 4, 4))
    assert decoded.min() == -1
    assert decoded.max() == 1


def test_names_and_shapes_are_those_of_the_published_checkpoint():
    with torch.device("meta"):
        reference = AutoencoderKLWan()
    shapes = {key: tuple(tensor.shape) for key, tensor in original_state(reference).items()}
    assert len(shapes) == 194
    assert {key: shapes.get(key) for key in REAL_NAMES} == REAL_NAMES
    assert WanVAEConfig.from_shapes(shapes) == WanVAEConfig()


@pytest.mark.parametrize("sizes", SIZES)
def test_name_maps_are_inverse_to_each_other(sizes):
    keys = make_reference(**sizes).state_dict().keys()
    to_original = vae_keys.diffusers_to_original(keys)
    to_diffusers = vae_keys.original_to_diffusers(to_original.values())
    assert to_diffusers == {original: key for key, original in to_original.items()}
    assert not to_original.keys() & to_diffusers.keys()


def test_unknown_keys_keep_their_name_and_fail_strict_loading(reference):
    keys = [*reference.state_dict(), "decoder.mystery.weight"]
    assert vae_keys.diffusers_to_original(keys)["decoder.mystery.weight"] == "decoder.mystery.weight"
    with pytest.raises(RuntimeError, match=r"decoder\.mystery\.weight"):
        load({**original_state(reference), "decoder.mystery.weight": torch.zeros(1)})


def test_kernels_already_2d_load_alike(reference, vae):
    kernels = vae_keys.image_kernels(original_state(reference))
    plain = {key: tensor.contiguous() for key, tensor in kernels.items()}
    again = load(plain)
    assert again.config == vae.config
    latent = torch.randn(1, 16, 1, 4, 4)
    assert torch.equal(again.decode(latent), vae.decode(latent))


def test_kernels_stay_channels_last_however_they_are_loaded(reference, vae):
    copied = WanVAE(vae.config)
    copied.load_state_dict(vae_keys.image_kernels(original_state(reference)))
    for model in (vae, copied):
        kernels = [parameter for parameter in model.parameters() if parameter.ndim == 4]
        assert all(kernel.is_contiguous(memory_format=torch.channels_last) for kernel in kernels)


@pytest.mark.parametrize("missing", ["encoder.conv1.weight", "conv2.weight", "encoder.downsamples.0.residual.6.weight"])
def test_missing_keys_are_named(reference, missing):
    shapes = {key: tuple(tensor.shape) for key, tensor in original_state(reference).items() if key != missing}
    with pytest.raises(CheckpointError, match=missing.replace(".", r"\.")):
        WanVAEConfig.from_shapes(shapes)


def test_a_vae_of_another_family_is_refused(reference):
    shapes = {key: tuple(tensor.shape) for key, tensor in original_state(reference).items()}
    with pytest.raises(CheckpointError, match="12 image channels"):  # Wan 2.2's, which packs pixels
        WanVAEConfig.from_shapes({**shapes, "encoder.conv1.weight": (8, 12, 3, 3, 3)})


@pytest.mark.parametrize(
    "change",
    [{"z_dim": 4}, {"latents_std": (0.0,) * 16}, {"num_res_blocks": 0}, {"dim_mult": ()}, {"base_dim": 3}],
)
def test_impossible_sizes_are_refused(change):
    with pytest.raises(CheckpointError):
        replace(WanVAEConfig(), **change)


@pytest.mark.parametrize("tile", [8, 32, 50])
@pytest.mark.slow
def test_tiles_leave_no_seams(vae, tile):
    """Tiles change neither latent nor image, though the convolutions and the attention of one tile alone would."""
    image = smooth_picture(96, 128)
    latent = vae.encode(image)
    decoded = vae.decode(latent)
    alone = torch.cat([vae.decode(half) for half in latent.chunk(2, dim=-1)], dim=-1)
    assert (alone - decoded).abs().max() / 2 > 10 / 255

    assert (vae.encode(image, tile=tile) - latent).abs().max() <= 1e-5
    assert (vae.decode(latent, tile=tile) - decoded).abs().max() <= 1e-5


def test_tiles_of_one_side_only_and_of_a_batch(vae):
    image = torch.rand(2, 3, 16, 200) * 2 - 1
    latent = vae.encode(image)
    assert (vae.encode(image, tile=64) - latent).abs().max() <= 1e-5
    assert (vae.decode(latent, tile=64) - vae.decode(latent)).abs().max() <= 1e-5


def test_a_tile_as_large_as_the_image_is_a_whole_run(vae):
    image = smooth_picture(40, 64)
    latent = vae.encode(image)
    assert torch.equal(vae.encode(image, tile=64), latent)
    assert torch.equal(vae.decode(latent, tile=512), vae.decode(latent))


def test_no_layer_sees_more_than_a_tile_and_its_surroundings(vae):
    """What bounds the memory: the largest activation at the image's size."""
    largest = 0

    def record(module, inputs, output):
        nonlocal largest
        largest = max(largest, output.shape[-1] * output.shape[-2])

    hooks = [layer.register_forward_hook(record) for layer in vae.modules() if isinstance(layer, nn.Conv2d)]
    vae.encode(smooth_picture(256, 256), tile=64)
    assert largest == (64 + 2 * 40) ** 2
    largest = 0
    vae.decode(torch.randn(1, 16, 1, 32, 32), tile=64)
    assert largest == (64 + 2 * 56) ** 2
    for hook in hooks:
        hook.remove()


@pytest.mark.parametrize(
    "shape, dtype, message",
    [
        ((1, 3, 20, 16), torch.float32, "multiples of 8"),
        ((1, 3, 0, 16), torch.float32, "multiples of 8"),
        ((1, 4, 16, 16), torch.float32, r"\(1, 4, 16, 16\)"),
        ((3, 16, 16), torch.float32, r"\(3, 16, 16\)"),
        ((1, 3, 16, 16), torch.uint8, "uint8"),
    ],
)
def test_encode_refuses(vae, shape, dtype, message):
    with pytest.raises(JoyImageError, match=message):
        vae.encode(torch.zeros(shape, dtype=dtype))


@pytest.mark.parametrize("shape", [(1, 8, 1, 4, 4), (1, 16, 4, 4), (1, 16, 2, 4, 4), (1, 16, 1, 0, 4)])
def test_decode_refuses(vae, shape):
    with pytest.raises(JoyImageError, match="16, 1, h, w"):
        vae.decode(torch.zeros(shape))


@pytest.mark.parametrize("tile", [0, 7, -64])
def test_tiles_below_a_latent_pixel_are_refused(vae, tile):
    with pytest.raises(JoyImageError, match=f"{tile} pixels"):
        vae.encode(torch.zeros(1, 3, 16, 16), tile=tile)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_any_floating_input(vae, dtype):
    image = smooth_picture(16, 24).to(dtype)
    latent = vae.encode(image)
    assert torch.equal(latent, vae.encode(image.float()))
    assert torch.equal(vae.decode(latent.to(dtype)), vae.decode(latent.to(dtype).float()))


def test_bfloat16_stays_near_float32(reference, vae):
    """bfloat16 has 8 bits: through 30 roundings the images stay within a hundredth on average."""
    half = load(original_state(reference), dtype=torch.bfloat16)
    image = smooth_picture(48, 64)
    latent = vae.encode(image)
    coarse = half.encode(image)
    assert coarse.dtype == torch.float32
    assert 0 < (coarse - latent).abs().mean() / latent.abs().mean() <= 0.02
    decoded = half.decode(latent)
    assert decoded.dtype == torch.float32
    assert 0 < (decoded - vae.decode(latent)).abs().mean() <= 0.01


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_norms_of_half_precision_are_computed_in_float32_and_rounded_once(dtype):
    x = torch.randn(2, 48, 6, 5, generator=torch.Generator().manual_seed(0)).to(dtype)
    norm = RMSNorm(48, dtype=dtype).requires_grad_(False)
    norm.gamma.copy_(torch.linspace(0.5, 2, 48))
    exact = F.normalize(x.double(), dim=1, eps=1e-12) * 48**0.5 * norm.gamma.double().view(-1, 1, 1)
    assert norm(x).dtype == dtype
    assert ((norm(x) - exact).abs() / exact.abs()).max() <= torch.finfo(dtype).eps / 2 + 1e-6


@pytest.mark.parametrize("in_place", [False, True])
def test_a_norm_overwrites_its_input_only_where_it_may(in_place):
    norm = RMSNorm(48, in_place=in_place).requires_grad_(False)
    x = torch.randn(2, 48, 6, 5, generator=torch.Generator().manual_seed(0))
    before = x.clone()
    got = norm(x)
    assert torch.equal(x, before) != in_place
    torch.testing.assert_close(got, F.normalize(before, dim=1) * 48**0.5)
    assert got.data_ptr() == x.data_ptr() or not in_place


def test_everything_is_made_where_the_inputs_are():
    vae = WanVAE(WanVAEConfig(base_dim=4), device="meta")
    latent = vae.encode(torch.empty(1, 3, 64, 80, device="meta"), tile=32)
    assert (latent.device.type, latent.shape) == ("meta", (1, 16, 1, 8, 10))
    image = vae.decode(latent, tile=32)
    assert (image.device.type, image.shape) == ("meta", (1, 3, 64, 80))


def test_gradients_flow_through_the_networks(reference):
    """For training: overwriting activations must not change a gradient."""
    vae = load(original_state(reference))
    image = smooth_picture(16, 16)
    vae.decoder(vae.conv2(vae.conv1(vae.encoder(image))[:, :16])).square().mean().backward()
    reference.requires_grad_(True)
    latent = reference.quant_conv(reference.encoder(image[:, :, None]))[:, :16]
    reference.decoder(reference.post_quant_conv(latent)).square().mean().backward()
    names = vae_keys.diffusers_to_original(reference.state_dict().keys())
    expected = {names[key]: parameter.grad for key, parameter in reference.named_parameters()}
    expected = vae_keys.image_kernels({key: grad for key, grad in expected.items() if grad is not None})
    for key, parameter in vae.named_parameters():
        assert (parameter.grad - expected[key]).abs().max() <= 1e-4 * expected[key].abs().max(), key
    reference.requires_grad_(False)


def test_convolutions_come_from_the_host():
    class HostConv2d(nn.Conv2d):
        pass

    vae = WanVAE(WanVAEConfig(base_dim=4, dim_mult=(1, 2)), operations=SimpleNamespace(Conv2d=HostConv2d))
    assert all(type(layer) is HostConv2d for layer in vae.modules() if isinstance(layer, nn.Conv2d))
    assert vae.encode(torch.zeros(1, 3, 4, 4)).shape == (1, 16, 1, 2, 2)
