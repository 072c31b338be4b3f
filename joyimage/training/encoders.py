"""The two networks that a training set visits once, the encoder and the VAE, and what tells one from another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Protocol

import torch
from PIL import Image
from torch import Tensor

from ..conditioning import EncodePicture, EncodeTexts
from ..images import to_tensor
from ..pipeline import JoyImage
from .fingerprints import fingerprint


class Encoders(Protocol):
    """What a cache needs of a model. A host has its own."""

    @property
    def base_size(self) -> int:
        """The one that the weights were trained for."""
        ...

    @property
    def text_identity(self) -> str:
        """What the encoder is: contexts of two that are called the same are equal."""
        ...

    @property
    def picture_identity(self) -> str:
        """What the VAE is."""
        ...

    def texts(self, pixels: int, tokens: int) -> AbstractContextManager[EncodeTexts]:
        """The encoder at work, on texts of at most so many tokens together with pictures of so many pixels."""
        ...

    def pictures(self, pixels: int) -> AbstractContextManager[EncodePicture]:
        """The VAE at work, on pictures of at most so many pixels."""
        ...


class ModelEncoders:
    """Those of a `JoyImage`, each on the device only while it works if the model has a memory budget."""

    def __init__(self, model: JoyImage):
        self.model = model
        self.base_size = model.base_size
        model.memory.leave()  # weights that stream are whole only at home
        self.text_identity = fingerprint(model.encoder.backbone, str(model.dtype))
        self.picture_identity = fingerprint(model.vae)

    @contextmanager
    def texts(self, pixels: int, tokens: int) -> Iterator[EncodeTexts]:
        def encode(texts: list[str], pictures: Sequence[Image.Image]) -> list[Tensor]:
            return [each.to("cpu", self.model.dtype) for each in self.model.encoder.encode(texts, pictures)]

        with torch.inference_mode(), self.model.memory.conditioning(pixels, tokens):
            yield encode

    @contextmanager
    def pictures(self, pixels: int) -> Iterator[EncodePicture]:
        with torch.inference_mode(), self.model.memory.vae(pixels) as tiled:

            def encode(picture: Image.Image) -> Tensor:
                encoded = tiled(partial(self.model.vae.encode, to_tensor(picture).to(self.model.device)))
                return encoded.to("cpu", torch.float32)

            yield encode
