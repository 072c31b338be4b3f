"""The host's encoder and VAE as a training set visits them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import comfy.latent_formats
import torch
from PIL import Image
from torch import Tensor

from ...joyimage.conditioning import EncodePicture, EncodeTexts
from ...joyimage.images import to_batch
from ...joyimage.training.fingerprints import fingerprint
from .encoder import ManagedEncoder
from .model import check_latent

NORMALISED = comfy.latent_formats.Wan21()


class HostEncoders:
    """`joyimage.training.encoders.Encoders` by the host, which loads each when it is called, and unloads it for others.

    Raises `JoyImageError` when a picture is encoded by another kind of VAE.
    """

    def __init__(self, encoder: ManagedEncoder, vae: Any):
        self.encoder, self.vae = encoder, vae
        self.base_size = encoder.base_size
        self.text_identity = fingerprint(encoder.model)
        self.picture_identity = fingerprint(vae.first_stage_model)

    @contextmanager
    def texts(self, pixels: int, tokens: int) -> Iterator[EncodeTexts]:
        def encode(texts: list[str], pictures: Sequence[Image.Image]) -> list[Tensor]:
            return [context.cpu() for context in self.encoder.encode(texts, pictures)]

        yield encode

    @contextmanager
    def pictures(self, pixels: int) -> Iterator[EncodePicture]:
        def encode(picture: Image.Image) -> Tensor:
            latent = self.vae.encode(to_batch([picture]))
            check_latent(latent, "a picture", NORMALISED.latent_channels)
            return NORMALISED.process_in(latent.to("cpu", torch.float32))

        yield encode


def conditioning(context: Tensor, references: Sequence[Tensor]) -> list:
    """A CONDITIONING from what a training set holds: (L, D), and normalised latents (16, 1, h, w)."""
    latents = [NORMALISED.process_out(latent[None]) for latent in references]
    return [[context[None], {"reference_latents": latents} if latents else {}]]
