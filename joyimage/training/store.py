"""Tensors by name, in safetensors shards of a folder: written while they are made, read one at a time.

A shard is written whole or not at all, so a run that was killed has lost what was not written yet and nothing else.
Names are hashes of what made the tensors: an entry is never wrong, and what has changed has another name.
"""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from tqdm import tqdm

from ..checkpoints.write import Entry, Writer
from ..errors import JoyImageError, MissingFileError

SHARD = 256  # entries
SHARD_BYTES = 2**28
SECONDS = 30  # of work that a kill may lose
TYPES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}  # as the format names them
PATTERN = "*.safetensors"


class Store:
    """The entries in a folder, which is made. Raises `JoyImageError` for a shard that is damaged."""

    def __init__(self, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._files: dict[str, Path] = {}
        for path in sorted(folder.glob(PATTERN)):
            with _opened(path) as file:
                self._files.update(dict.fromkeys(file.keys(), path))

    def __contains__(self, name: str) -> bool:
        return name in self._files

    def read(self, name: str) -> Tensor:
        """A tensor of its own: no file stays open or mapped, so memory does not grow with what has been read.

        Raises `KeyError` for a name that is not there, `MissingFileError` if its file has been removed.
        """
        path = self._files[name]
        with _opened(path) as file:
            return file.get_tensor(name).clone()

    def write(self, kind: str, tensors: dict[str, Tensor]) -> None:
        """Write a shard; its file begins with the kind. Raises `JoyImageError` if the disk is too small."""
        names = "".join(sorted(tensors)).encode()
        path = self.folder / f"{kind}-{hashlib.blake2b(names, digest_size=8).hexdigest()}.safetensors"
        entries = [Entry(name, TYPES[each.dtype], tuple(each.shape), each.nbytes) for name, each in tensors.items()]
        with Writer(path, entries, {"format": "pt"}, "safetensors") as writer, tqdm(disable=True) as bar:
            for name, tensor in tensors.items():
                writer.write(name, tensor)
            writer.finish(bar)
        self._files.update(dict.fromkeys(tensors, path))


class Shards:
    """Gathers entries of one kind into shards, as a context.

    What was gathered is written at its end, also when the work is interrupted or cancelled.
    """

    def __init__(self, store: Store, kind: str, most: int = SHARD):
        self.store = store
        self.kind = kind
        self.most = most
        self._held: dict[str, Tensor] = {}
        self._since = time.monotonic()

    def __enter__(self) -> Shards:
        return self

    def add(self, name: str, tensor: Tensor) -> None:
        self._held[name] = tensor.contiguous()
        size = sum(each.nbytes for each in self._held.values())
        if len(self._held) >= self.most or size >= SHARD_BYTES or time.monotonic() - self._since > SECONDS:
            self._flush()

    def __exit__(self, kind, error, trace) -> None:
        if not isinstance(error, OSError | JoyImageError):  # after which writing would fail once more
            self._flush()

    def _flush(self) -> None:
        if self._held:
            self.store.write(self.kind, self._held)
        self._held = {}
        self._since = time.monotonic()


def _opened(path: Path):
    try:
        return safe_open(path, framework="pt")
    except FileNotFoundError:
        raise MissingFileError(f"{path} has been removed; begin again, and what was in it will be made anew") from None
    except (SafetensorError, OSError) as error:
        raise JoyImageError(f"{path}: is damaged ({error}); delete it, and what was in it will be made anew") from None
