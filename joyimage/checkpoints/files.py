"""Weight files as lazy mappings of names to tensors, recognised by their first bytes and never by their name.

Names, shapes and dtypes come from the header; a tensor is read when it is asked for, as a view of the memory-mapped
file. A further format is one more row of `READERS`.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from safetensors import SafetensorError, safe_open

from ..errors import CheckpointError, JoyImageError, MissingFileError
from ..quantisation.formats import BY_CODE
from .companions import fold
from .gguf import MAGIC, open_gguf
from .limits import MAX_HEADER_BYTES, MAX_JSON_BYTES, MAX_NAME, MAX_TENSORS
from .pytorch import open_archive, open_pickles
from .weights import TensorInfo, Weights, parse_json

HEAD_BYTES = 512  # what a file is recognised by
INDEX_PATTERN = "*.index.json"
LARGEST_HEADER = 100_000_000  # bytes, by the safetensors format

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def refusing(read: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Let a function raise `CheckpointError` where the system will not let it read, or such a name cannot be."""

    @functools.wraps(read)
    def call(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        try:
            return read(*args, **kwargs)
        except JoyImageError:  # one of them is an OSError too
            raise
        except OSError as error:
            raise CheckpointError(f"{error.filename or args[0]}: cannot be read: {error.strerror or error}") from None

    return call


@refusing
def open_weights(path: str | Path, *, unit: bool = False) -> Weights:
    """Open a weight file, an index of shards, or the folder that holds one of them. Quantised weights come quantised.

    A `unit` is one that `weight_units` gives, and so no shard of others, which is looked for among all of its folder.
    Raises `MissingFileError` for a path or shard that does not exist, `CheckpointError` for a file that is truncated,
    inconsistent, of no known format, may not be read, or a pickle that would do more than rebuild tensors.
    """
    path = existing(path)
    if not path.is_dir():
        if not unit:
            _refuse_single_shard(path)
        head = _head(path)
        return fold(_named(open_shards(path) if _is_json(head) and not reader_of(head) else open_file(path)))
    units = weight_units(path)
    if not units:
        raise MissingFileError(
            f"{path}: the folder holds no weights; expected a safetensors or PyTorch file, or shards with an index.json"
        )
    if len(units) > 1:
        names = ", ".join(unit.name for unit in units)
        raise CheckpointError(f"{path}: the folder holds several weight files ({names}); give one of them")
    return open_weights(units[0], unit=True)


def _named(weights: Weights) -> Weights:
    """The same weights, if their names are such that a message, a terminal and another file can hold them."""
    for name in weights:
        if len(name) > MAX_NAME or not name.isprintable():
            raise CheckpointError(f"{weights.files[0]}: calls a tensor {name:.80}, which is no name; download it again")
    return weights


@refusing
def weight_units(folder: Path) -> list[Path]:
    """What can be opened in a folder: its indexes of shards, and its weight files that are no such shard.

    Pickles beside other formats are left out: they are copies, optimizer states or training arguments.
    """
    indexes = {index: read_index(index) for index in _indexes(folder)}
    shards = {shard for weight_map in indexes.values() for shard in weight_map.values()}
    files = [f for f in sorted(folder.iterdir()) if f.is_file() and f.name not in shards and reader_of(_head(f))]
    samples = {index: folder / next(iter(weight_map.values())) for index, weight_map in indexes.items()}
    samples.update((file, file) for file in files)
    safe = [unit for unit, sample in samples.items() if not sample.is_file() or _is_safe(_head(sample))]
    return safe or list(samples)


def _indexes(folder: Path) -> list[Path]:
    return [file for file in sorted(folder.glob(INDEX_PATTERN)) if file.is_file()]


def existing(path: str | Path) -> Path:
    """The path of a regular file or a folder, with `~` replaced.

    Raises `MissingFileError` if there is none, `CheckpointError` for anything else, such as a pipe, which might never
    end.
    """
    if not isinstance(path, str | Path):
        raise CheckpointError(f"{path!r:.80} is no path; give the name of a file or folder")
    try:
        found = Path(path).expanduser()
        there, regular = found.exists(), found.is_file() or found.is_dir()
    except PermissionError:
        raise CheckpointError(f"{path}: may not be read: its folder does not let you look for it") from None
    except (OSError, ValueError, RuntimeError):  # too long for a name, a byte 0 in it, the home of nobody
        there, regular, found = False, False, Path(path)
    if not there:
        raise MissingFileError(f"{found}: no such file or folder")
    if not regular:
        raise CheckpointError(f"{found}: is neither a regular file nor a folder")
    return found


@refusing
def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; raises `CheckpointError` if it holds anything else."""
    try:
        with path.open("rb") as file:
            return parse_json(file.read(MAX_JSON_BYTES + 1))
    except ValueError as error:
        raise CheckpointError(f"{path}: not a JSON object ({error}); download the file again") from None


# -- recognising ------------------------------------------------------------------------------------------------------


def _is_safetensors(head: bytes) -> bool:
    """A little-endian header length that a header can have, then the header's opening brace."""
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= LARGEST_HEADER


def _is_pytorch_zip(head: bytes) -> bool:
    return head.startswith(b"PK\x03\x04") and b"data.pkl" in head and not re.match(TORCHSCRIPT, head, re.DOTALL)


def _is_pickle(head: bytes) -> bool:
    return head[:1] == b"\x80" and head[1:2] <= b"\x05"


def _is_gguf(head: bytes) -> bool:
    return head.startswith(MAGIC)


def _is_safe(head: bytes) -> bool:
    return _is_safetensors(head) or _is_gguf(head)


def _is_json(head: bytes) -> bool:
    return head.lstrip()[:1] == b"{"


GET = "get the weights as safetensors or GGUF, or a PyTorch state dict"
# The first entry of an archive of PyTorch's, after the 30 bytes of its header; of a state dict it is the data.pkl.
ENTRY = rb"PK\x03\x04.{26}[^/]+/"
EXPORTED = ENTRY + rb"(data/weights/|models/|archive_format)|PK\x03\x04.{26}serialized_exported"  # torch 2.4's
TORCHSCRIPT = ENTRY + rb"(data/\d|code/|constants)"
# By how a file begins
IMPOSTORS = (
    (rb"version https://git-lfs", "is a Git LFS pointer instead of the file itself; run `git lfs pull` in its folder"),
    (rb"<", "is a web page; the download went wrong, fetch it again"),
    (EXPORTED, f"is a program of torch.export; {GET}"),
    (TORCHSCRIPT, f"is a TorchScript program; {GET}"),
    (rb"PK", "is a zip archive without PyTorch weights; unpack it first"),
    (rb"\x08[\x01-\x20]\x12", f"is an ONNX model; {GET}"),
    (rb"[fp]trt", f"is a TensorRT engine; {GET}"),
    (rb"", "is not a weight file; expected safetensors, GGUF, a PyTorch .pth, or an index.json of shards"),
)


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(HEAD_BYTES)


def reader_of(head: bytes) -> Callable[[Path], Weights] | None:
    return next((reader for matches, reader in READERS if matches(head)), None)


def open_file(path: Path) -> Weights:
    """Open one file of weights; raises `CheckpointError` saying what the file is instead."""
    head = _head(path)
    if reader := reader_of(head):
        return reader(path)
    if len(head) < 16:
        raise CheckpointError(f"{path}: has only {len(head)} bytes; the download was cut off, fetch it again")
    raise CheckpointError(f"{path}: {next(text for start, text in IMPOSTORS if re.match(start, head, re.DOTALL))}")


# -- safetensors ------------------------------------------------------------------------------------------------------


def open_safetensors(path: Path) -> Weights:
    """Check the header before anything is mapped, then read through `safe_open`."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if 8 + length > size:
            raise CheckpointError(
                f"{path}: truncated: its header alone has {length:,} bytes and the file {size:,}; download it again"
            )
        if length > MAX_HEADER_BYTES:
            raise CheckpointError(
                f"{path}: its header has {length:,} bytes, and at most {MAX_HEADER_BYTES:,} are read: it is no model's"
            )
        text = file.read(length)
    try:
        header = parse_json(text.decode())
        metadata = _string_map(header.pop("__metadata__", {}))
        info, spans = _check_entries(header, size - 8 - length)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    except ValueError as error:
        raise CheckpointError(f"{path}: broken safetensors header: {error}; download it again") from None
    handle = functools.cache(functools.partial(_map_safetensors, path))  # at the first read

    def read_bytes(name: str) -> bytes:
        begin, end = spans[name]
        with path.open("rb") as file:
            file.seek(8 + length + begin)
            return file.read(end - begin)

    return Weights((path,), info, lambda name: handle().get_tensor(name), read_bytes, metadata, handle.cache_clear)


def _map_safetensors(path: Path) -> safe_open:
    try:
        return safe_open(path, framework="pt")
    except SafetensorError as error:  # a name that is there twice, or whatever else Python's JSON allows
        raise CheckpointError(f"{path}: broken safetensors header: {error}; download it again") from None


def _string_map(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
        raise ValueError("__metadata__ is not a map of strings")
    return value


def _check_entries(header: dict[str, Any], data_bytes: int) -> tuple[dict[str, TensorInfo], dict[str, tuple[int, int]]]:
    """Tensors must fill the data one after another, each with the bytes that its shape and dtype take."""
    if len(header) > MAX_TENSORS:
        raise ValueError(f"it lists {len(header):,} tensors, and at most {MAX_TENSORS:,} are read")
    checked = {name: _check_entry(name, entry) for name, entry in header.items()}
    position = 0
    for begin, end, name in sorted((*span, name) for name, (_, span) in checked.items()):
        if begin != position:
            raise ValueError(f"{name} {'overlaps the tensor before it' if begin < position else 'leaves a gap'}")
        position = end
    if position > data_bytes:
        raise ValueError(f"the file is truncated: the tensors take {position:,} bytes, it holds {data_bytes:,}")
    if position < data_bytes:
        raise ValueError(f"{data_bytes - position:,} bytes follow the last tensor")
    return {name: info for name, (info, _) in checked.items()}, {name: span for name, (_, span) in checked.items()}


def _check_entry(name: str, entry: Any) -> tuple[TensorInfo, tuple[int, int]]:
    try:
        code, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        integers = all(type(n) is int and 0 <= n < 2**63 for n in (*shape, begin, end))
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"the entry of {name} is malformed") from None
    if not isinstance(code, str):
        raise ValueError(f"the entry of {name} is malformed")
    if code not in BY_CODE:
        raise CheckpointError(
            f"{name} is stored as {code!r:.40}, which is not supported; get a file in bf16, fp8 or int8"
        )
    if not integers or math.prod(n or 1 for n in shape) >= 2**63:  # an empty tensor can have sides that no stride fits
        raise ValueError(f"{name} has the shape {shape} and the offsets {begin}, {end}")
    info = TensorInfo(tuple(shape), BY_CODE[code])
    if end - begin != info.nbytes:
        raise ValueError(f"{name} of shape {shape} takes {info.nbytes:,} bytes, not {end - begin:,}")
    return info, (begin, end)


# -- shards -----------------------------------------------------------------------------------------------------------


def open_shards(path: Path) -> Weights:
    """Open the shards that an `*.index.json` names, beside it."""
    weight_map = read_index(path)
    shards = {}
    for name in sorted(set(weight_map.values())):
        file = path.parent / name
        if not file.is_file():
            raise MissingFileError(f"{file}: this shard, named by {path.name}, is missing; download it into the folder")
        shards[name] = open_file(file)
    absent = [key for key, shard in weight_map.items() if key not in shards[shard]]
    if absent:
        raise CheckpointError(
            f"{path}: {len(absent)} tensors are not in the shard it names, the first is {absent[0]} "
            f"in {weight_map[absent[0]]}; download the index and the shards from the same place"
        )

    def release():
        for shard in shards.values():
            shard.release()

    return Weights(
        tuple(file for shard in shards.values() for file in shard.files),
        {key: shards[shard].info[key] for key, shard in weight_map.items()},
        lambda key: shards[weight_map[key]][key],
        lambda key: shards[weight_map[key]].read_bytes(key),
        {name: text for shard in shards.values() for name, text in shard.metadata.items()},
        release,
    )


def read_index(path: Path) -> dict[str, str]:
    """Tensor name -> file name of its shard."""
    weight_map = read_json(path).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{path}: has no weight_map, so it is no index of shards; give the folder or weight file")
    for shard in weight_map.values():
        if not isinstance(shard, str) or Path(shard).name != shard or shard == path.name:
            raise CheckpointError(f"{path}: names the shard {shard!r}, which is not a file beside it")
    return weight_map


def _refuse_single_shard(path: Path) -> None:
    for index in _indexes(path.parent):
        with index.open("rb") as file:
            named = f'"{path.name}"'.encode(errors="surrogateescape") in file.read(MAX_JSON_BYTES)
        if named:
            raise CheckpointError(f"{path}: is one shard of several; give the folder {path.parent} or {index.name}")


READERS: tuple[tuple[Callable[[bytes], bool], Callable[[Path], Weights]], ...] = (
    (_is_gguf, open_gguf),
    (_is_safetensors, open_safetensors),
    (_is_pytorch_zip, open_archive),
    (_is_pickle, open_pickles),
)
