"""Reading PyTorch's files, after a look at what a few of their bytes could make of memory and time.

Since 1.6 such a file is a zip archive, its entries as they are; before that, some pickles one after another and then
the numbers. `torch.load` builds no stranger's classes. It sets no limit to how much a pickle builds, and unpacks what
somebody has compressed.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CheckpointError
from ..quantisation.formats import FORMATS, Format, format_name
from .limits import MAX_NESTING, MAX_PICKLE_BYTES, MAX_PICKLE_STEPS, MAX_TENSORS
from .weights import TensorInfo, Weights

if TYPE_CHECKING:
    from torch import Tensor

# Where training scripts put the weights inside a .pth.
NESTED = ("state_dict", "model_state_dict", "ema", "model", "module", "params_ema", "params")
PICKLE = "data.pkl"
LEADING_PICKLES = 5  # of the older form: two numbers that tell it, the machine's, the weights, the storages' names
# Torch lets a pickle call it, and its argument is a number of bytes. No weights are made by it.
REFUSED_CALLS = ("builtins bytearray", "__builtin__ bytearray")


def open_archive(path: Path) -> Weights:
    """Open a file of PyTorch 1.6 or later, unpickling nothing but tensors and plain containers."""
    check_archive(path)
    return _open(path, mmap=True)


def open_pickles(path: Path) -> Weights:
    """The same of PyTorch before 1.6, whose files cannot be mapped."""
    check_pickles(path)
    return _open(path, mmap=False)


def _open(path: Path, mmap: bool) -> Weights:
    import torch  # here: other formats' headers are read without it

    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        wanted = re.search(r"GLOBAL ([\w.]+)", str(error))
        raise CheckpointError(
            f"{path}: refused: unpickling it would do more than rebuild tensors"
            f"{f' (it calls {wanted[1]})' if wanted else ''} and could run code; "
            "get the weights as safetensors, or from a source that saves a plain state dict"
        ) from None
    except Exception as error:  # a damaged archive surfaces as almost any type from inside the unpickler
        raise CheckpointError(
            f"{path}: damaged PyTorch file ({type(error).__name__}: {error}); download it again"
        ) from error
    tensors = _unwrap(loaded)
    if odd := next((name for name, tensor in tensors.items() if not _is_ordinary(tensor)), None):
        raise CheckpointError(
            f"{path}: {odd} is sparse, nested, without data or a view that repeats some; save it anew"
        )
    if not tensors:
        raise CheckpointError(f"{path}: holds no tensors; expected a state dict")
    info = {name: TensorInfo(tuple(tensor.shape), _format(tensor)) for name, tensor in tensors.items()}
    return Weights(
        (path,), info, tensors.__getitem__, lambda name: tensors[name].reshape(-1).view(torch.uint8).numpy().tobytes()
    )


def _format(tensor: Tensor) -> Format:
    name = format_name(tensor.dtype)
    return FORMATS.get(name) or Format(name, block_bytes=tensor.dtype.itemsize)  # complex numbers and the like


def _unwrap(loaded: Any) -> dict[str, Tensor]:
    """The tensors of a state dict, itself or inside `{"state_dict": …}` and the like."""
    from torch import Tensor

    for _ in range(MAX_NESTING):
        if not isinstance(loaded, dict):
            break
        inner = next((loaded[key] for key in NESTED if isinstance(loaded.get(key), dict)), None)
        if inner is None:
            return {k: v for k, v in loaded.items() if isinstance(k, str) and isinstance(v, Tensor)}
        loaded = inner
    return {}


def _is_ordinary(tensor: Tensor) -> bool:
    """Whether all of a tensor's numbers lie in the file."""
    import torch

    plain = tensor.layout == torch.strided and not tensor.is_nested and not tensor.is_meta and not tensor.is_quantized
    return plain and tensor.untyped_storage().nbytes() >= tensor.nbytes


# -- before unpickling ------------------------------------------------------------------------------------------------


def check_archive(path: Path) -> None:
    """Raises `CheckpointError` for an archive that is compressed, or whose pickle is beyond what weights need."""
    try:
        with zipfile.ZipFile(path) as archive:
            pickles = list(filter(_is_pickle, archive.infolist()))
            problem = _problem(archive.infolist(), sum(entry.file_size for entry in pickles))
            texts = [] if problem else [archive.read(entry) for entry in pickles]
    except Exception as error:  # zipfile too raises almost any type
        raise CheckpointError(f"{path}: damaged PyTorch file ({error}); download it again") from error
    if problem:
        raise CheckpointError(f"{path}: {problem}")
    for text in texts:
        _check_steps(path, io.BytesIO(text), 1)


def check_pickles(path: Path) -> None:
    """Raises `CheckpointError` for a file of the older form whose pickles are beyond what weights need."""
    with path.open("rb") as file:
        head = io.BytesIO(file.read(MAX_PICKLE_BYTES))
    _check_steps(path, head, LEADING_PICKLES)


def _problem(entries: list[zipfile.ZipInfo], pickled: int) -> str:
    """Why an archive with so many bytes of pickles is not unpickled; empty where nothing speaks against it."""
    if not pickled or len(entries) > MAX_TENSORS:
        return f"damaged PyTorch file of {len(entries):,} entries; download it again"
    if pickled > MAX_PICKLE_BYTES:
        return f"its description of tensors has {pickled:,} bytes, and at most {MAX_PICKLE_BYTES:,} are read"
    packed = next((entry.filename for entry in entries if entry.compress_type != zipfile.ZIP_STORED), None)
    return f"{packed} in it is compressed, as PyTorch never does; save it anew" if packed else ""


def _is_pickle(entry: zipfile.ZipInfo) -> bool:
    """Whether torch might unpickle an entry: it takes capitals for small letters, and one folder of several."""
    return entry.filename.lower().endswith(PICKLE)


def _check_steps(path: Path, text: io.BytesIO, pickles: int) -> None:
    for number, (call, argument) in enumerate(_steps(text, pickles)):
        if number >= MAX_PICKLE_STEPS:
            raise CheckpointError(
                f"{path}: takes over {MAX_PICKLE_STEPS:,} steps to unpickle: it is no model's weights"
            )
        if call == "GLOBAL" and argument in REFUSED_CALLS:
            raise CheckpointError(
                f"{path}: refused: it calls {argument}, which no weights need; get them as safetensors"
            )


def _steps(text: io.BytesIO, pickles: int) -> Iterator[tuple[str, Any]]:
    """What pickles that follow each other do, each step with its argument, up to where they cannot be read."""
    for _ in range(pickles):
        try:
            for opcode, argument, _ in pickletools.genops(text):
                yield opcode.name, argument
        except ValueError:  # torch gets no further, and says what it is
            return
