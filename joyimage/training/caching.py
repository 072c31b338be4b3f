"""Latents and contexts of a training set, encoded once: then encoder and VAE can go, and training takes neither.

As for an edit, first all texts visit the encoder with their pictures, then all pictures visit the VAE. What is there
already, by a hash of all that made it, is not encoded again: not after a kill, not when other examples have changed,
and not for a control that many targets share.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, overload

from PIL import Image

from ..conditioning import Group, encode_texts
from ..images import Size, cover
from ..inputs import seen_pixels, text_tokens
from ..pipeline import JoyImage
from ..settings import AUTO, check_base_size
from . import pictures
from .checking import Counting
from .encoders import Encoders, ModelEncoders
from .examples import Example
from .fitting import Sizes, fitting_sizes
from .masks import CELL, DIFFERENT, SAME, difference_weights, mask_weights
from .pictures import Picture
from .samples import Sample
from .store import SHARD, Shards, Store

VERSION = 1  # of what is kept; a change of the prompt's template or of how pictures are fitted needs another

Shapes: TypeAlias = tuple[Size, ...]  # latent heights and widths: the target's, then each reference's


@dataclass(frozen=True)
class EntryNames:
    """Under what names the parts of a sample are kept: hashes of all that made them."""

    latent: str
    references: tuple[str, ...]
    context: str
    empty: str
    mask: str | None


@dataclass(frozen=True)
class Job:
    """An example, with the sizes at which it is encoded and the names of its parts."""

    example: Example
    sizes: Sizes
    names: EntryNames


class Samples(Sequence[Sample]):
    """A training set, encoded. A sample is read from the disk when it is asked for, and kept nowhere.

    `key` is a hash of all that made it, in its order; `shapes` are the latents' sizes, by which batches are formed.
    """

    def __init__(self, store: Store, jobs: Sequence[Job]):
        self._store = store
        self._names = [job.names for job in jobs]
        self.shapes: list[Shapes] = [tuple((h // CELL, w // CELL) for h, w in job.sizes) for job in jobs]
        self.key = _hash("samples", *map(repr, self._names))

    def __len__(self) -> int:
        return len(self._names)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...
    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        names, read = self._names[index], self._store.read
        return Sample(
            read(names.latent),
            tuple(map(read, names.references)),
            read(names.context),
            read(names.empty),
            None if names.mask is None else read(names.mask),
        )


def cache(
    model: JoyImage | Encoders,
    examples: Sequence[Example],
    folder: str | Path,
    *,
    base_size: int | str | None = AUTO,
    loss: str = "target",
    progress: Counting | None = None,
    shard: int = SHARD,
) -> Samples:
    """Encode what is not in `folder` yet, and return the whole set.

    `examples` have passed `check` with the same base size ("auto" is the model's own) and loss: "mask" takes each
    example's mask, "difference" weights where the target differs from the last control. Many sets can share a folder.
    `progress(what, done, total)` is told of "texts", "pictures" and "masks", and may raise to cancel: what is done
    is kept. A shard is written after `shard` entries, 256 MB or half a minute, and only that much is lost by a kill.
    Raises `JoyImageError` for a picture that can no longer be read, and if the disk is too small.
    """
    check_base_size(base_size)
    encoders = ModelEncoders(model) if isinstance(model, JoyImage) else model
    base = encoders.base_size if isinstance(base_size, str) else base_size  # the only word is "auto"
    store = Store(Path(folder))
    jobs = [_job(example, base, loss, encoders) for example in examples]
    _encode_texts(encoders, jobs, Shards(store, "contexts", shard), progress)
    _encode_pictures(encoders, jobs, Shards(store, "latents", shard), progress)
    _make_masks(jobs, loss, Shards(store, "masks", shard), progress)
    return Samples(store, jobs)


def _job(example: Example, base_size: int | None, loss: str, model: Encoders) -> Job:
    own, *others = map(pictures.size_of, example.pictures)
    sizes = fitting_sizes(own, others, base_size)
    seen = [f"{pictures.digest(picture)} {size}" for picture, size in zip(example.pictures, sizes, strict=True)]
    latent, *references = (_hash("latent", model.picture_identity, each) for each in seen)
    empty, context = (_hash("context", model.text_identity, text, *seen[1:]) for text in ("", example.caption))
    mask = None
    if loss == "mask" and example.mask is not None:
        mask = _hash(loss, pictures.digest(example.mask), str(sizes[0]))
    elif loss == "difference":
        mask = _hash(loss, seen[0], seen[-1], repr((SAME, DIFFERENT)))
    return Job(example, sizes, EntryNames(latent, tuple(references), context, empty, mask))


def _encode_texts(model: Encoders, jobs: Sequence[Job], shards: Shards, progress: Counting | None) -> None:
    """The first pass. Each text visits the encoder alone: together with others its last digits would hang on them.

    Then a run that was killed and resumed here trains on the same numbers as one that was not, to the bit.
    """
    wanted: dict[str, tuple[Job, str]] = {}
    for job in jobs:
        for text, name in ((job.example.caption, job.names.context), ("", job.names.empty)):
            if name not in shards.store:
                wanted.setdefault(name, (job, text))
    if not wanted:
        return
    pixels = max(seen_pixels(job.sizes[1:]) for job, _ in wanted.values())
    tokens = max(text_tokens([text]) for _, text in wanted.values())
    with model.texts(pixels, tokens) as encode, shards:
        for done, (name, (job, text)) in enumerate(wanted.items()):
            _tell(progress, "texts", done, len(wanted))
            controls = tuple(map(_fitted, job.example.controls, job.sizes[1:]))
            group = Group(controls, job.sizes[0], ((text, text),))
            shards.add(name, encode_texts([group], encode)[0][0][0])
        _tell(progress, "texts", len(wanted), len(wanted))


def _encode_pictures(model: Encoders, jobs: Sequence[Job], shards: Shards, progress: Counting | None) -> None:
    """The second pass: each picture once at each size."""
    wanted: dict[str, tuple[Picture, Size]] = {}
    for job in jobs:
        names = (job.names.latent, *job.names.references)
        for name, picture, size in zip(names, job.example.pictures, job.sizes, strict=True):
            if name not in shards.store:
                wanted.setdefault(name, (picture, size))
    if not wanted:
        return
    with model.pictures(max(height * width for _, (height, width) in wanted.values())) as encode, shards:
        for done, (name, (picture, size)) in enumerate(wanted.items()):
            _tell(progress, "pictures", done, len(wanted))
            shards.add(name, encode(_fitted(picture, size))[0])  # (1, 16, 1, h, w) -> (16, 1, h, w)
        _tell(progress, "pictures", len(wanted), len(wanted))


def _make_masks(jobs: Sequence[Job], loss: str, shards: Shards, progress: Counting | None) -> None:
    wanted = {job.names.mask: job for job in jobs if job.names.mask and job.names.mask not in shards.store}
    with shards:
        for done, (name, job) in enumerate(wanted.items()):
            _tell(progress, "masks", done, len(wanted))
            if loss == "mask":
                assert job.example.mask is not None
                weights = mask_weights(cover(pictures.load_mask(job.example.mask), job.sizes[0]))
            else:
                target, source = job.example.target, job.example.controls[-1]
                weights = difference_weights(_fitted(target, job.sizes[0]), _fitted(source, job.sizes[0]))
            shards.add(name, weights)


def _fitted(picture: Picture, size: Size) -> Image.Image:
    return cover(pictures.load(picture), size)


def _tell(progress: Counting | None, what: str, done: int, total: int) -> None:
    if progress:
        progress(what, done, total)


def _hash(*parts: str) -> str:
    found = hashlib.blake2b(f"joyimage {VERSION}".encode(), digest_size=16)
    for part in parts:
        data = part.encode()
        found.update(len(data).to_bytes(8, "little") + data)
    return found.hexdigest()
