"""The VAE as ComfyUI's own VAE of Wan 2.1."""

from __future__ import annotations

import logging
from pathlib import Path

import comfy.latent_formats
import comfy.ldm.wan.vae
import comfy.model_management
import comfy.model_patcher
import comfy.ops
import comfy.sd
import torch
from torch import Tensor

from ...joyimage import checkpoints, tiny
from ...joyimage.checkpoints.vae_keys import video_kernels
from ...joyimage.errors import JoyImageError
from ...joyimage.quantisation.formats import format_name
from ...joyimage.vae import WanVAE
from .weights import State


class HostVAE(WanVAE):
    """The VAE in the host's terms: pixels and latents have a time axis of length 1, latents are not normalised."""

    def encode(self, image: Tensor, tile: int | None = None) -> Tensor:
        """(B, 3, 1, H, W) in [-1, 1] -> (B, 16, 1, H/8, W/8)."""
        latent = finite(super().encode(image.squeeze(2), tile), self.conv1.weight.dtype)
        return comfy.latent_formats.Wan21().process_out(latent)

    def decode(self, latent: Tensor, tile: int | None = None) -> Tensor:
        """(B, 16, 1, h, w) -> (B, 3, 1, 8h, 8w) in [-1, 1]."""
        latent = comfy.latent_formats.Wan21().process_in(latent.float())
        return finite(super().decode(latent, tile), self.conv2.weight.dtype).unsqueeze(2)

    def encode_tiled(self, image: Tensor, tile_x: int = 512, tile_y: int = 512, **_overlap) -> Tensor:
        """Tiles read all that they depend on, so there is no overlap to choose and no seam."""
        return self.encode(image, tile=min(tile_x, tile_y))

    def decode_tiled(self, latent: Tensor, tile_x: int = 64, tile_y: int = 64, **_overlap) -> Tensor:
        """`tile_x` and `tile_y` count latent pixels."""
        return self.decode(latent, tile=self.config.spatial_factor * min(tile_x, tile_y))


def finite(result: Tensor, dtype: torch.dtype) -> Tensor:
    """Raise `JoyImageError` for NaN or infinity, of which the host would make a black picture."""
    if not result.isfinite().all():
        half = "start ComfyUI without --fp16-vae: this VAE exceeds the range of float16"
        remedy = half if dtype == torch.float16 else "look at the picture or latent that it was given"
        raise JoyImageError(f"the VAE computed NaN or infinity in {format_name(dtype)}; {remedy}")
    return result


class ImageVAE(comfy.sd.VAE):
    """The host's Wan 2.1 VAE with our network inside. A batch is a batch of images, not the frames of a video.

    It computes in float32 unless the host is told otherwise: bf16 (`--bf16-vae`) moves pixels by a level or two.
    """

    # Tensors alive at once in the published size are 550 bytes per pixel and byte of the dtype; the rest is workspace.
    BYTES_PER_PIXEL = 800

    def __init__(self, network: WanVAE, fits_half: bool = True):
        """With `fits_half` false it computes in float32 where the host is told float16 (`--fp16-vae`)."""
        dtype = comfy.model_management.vae_dtype(allowed_dtypes=[torch.float32])
        if dtype == torch.float16 and not fits_half:
            logging.info("the bundled VAE computes in float32: its activations exceed the range of float16")
            dtype = torch.float32
        super().__init__(sd=smallest_wan_vae(), dtype=dtype)  # for every setting of a Wan 2.1 VAE that the host has
        self.first_stage_model = HostVAE(network.config, operations=comfy.ops.disable_weight_init, device="meta").eval()
        self.first_stage_model.load_state_dict(network.state_dict(), assign=True)
        self.first_stage_model.to(dtype)
        comfy.model_management.archive_model_dtypes(self.first_stage_model)
        self.patcher = comfy.model_patcher.CoreModelPatcher(
            self.first_stage_model, self.device, comfy.model_management.vae_offload_device()
        )
        self.not_video = True
        self.handles_tiling = True
        self.memory_used_encode = lambda shape, dtype: self.BYTES_PER_PIXEL * shape[3] * shape[4] * dtype.itemsize
        self.memory_used_decode = lambda shape, dtype: 64 * self.memory_used_encode(shape, dtype)
        self.size = None
        self.model_size()

    def get_sd(self) -> State:
        """For files, which hold no channels_last: as published, but for the layers of video."""
        return {
            name: tensor.contiguous() for name, tensor in video_kernels(self.first_stage_model.state_dict()).items()
        }


def smallest_wan_vae() -> State:
    """Weights from which the host recognises a Wan 2.1 VAE, two channels wide."""
    return comfy.ldm.wan.vae.WanVAE(
        dim=2, z_dim=16, dim_mult=[1, 2, 4, 4], num_res_blocks=2, temperal_downsample=[False, True, True]
    ).state_dict()


def load_vae(path: Path | None) -> ImageVAE:
    """A VAE from the Wan 2.1 weights in a file or folder, or from the bundled tiny ones. Errors as for `load_mmdit`."""
    if path is None:
        return ImageVAE(tiny.vae(), fits_half=False)
    return ImageVAE(checkpoints.load_vae(path, dtype=torch.float32))  # rounded once, to what the host computes in
