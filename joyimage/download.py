"""The published weights, from the Hugging Face Hub into folders as ComfyUI has them.

A file comes as NAME.KEY.part beside its place, where KEY is of its content, and is renamed when it is whole and has
the hub's SHA-256. A download may be killed: the next one goes on from that part. `hf_hub_download` does not serve for
this, as recent releases of huggingface_hub throw away what has come when they fail; `http_get` below it does.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from .atomic import replace_file
from .errors import CheckpointError, JoyImageError

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo, RepoSibling

HUB = "https://huggingface.co"
EDIT, PLUS = "Comfy-Org/JoyAI-Image-Edit", "jdopensource/JoyAI-Image-Edit-Plus-ComfyUI"
# Of each model: the word in its files' names, its repository, and a call to try it with.
MODELS = {
    "edit": ("edit", EDIT, 'photo.jpg "Make it snow."'),
    "plus": ("edit_plus", PLUS, 'cup.jpg table.jpg "Put the cup of Image 1 on the table of Image 2."'),
}
FORMAT_WORDS = {"int8": "int8_convrot", "bf16": "bf16"}  # of --format: the word in the files' names
TIMEOUT = 30  # seconds for a listing
PAUSE = 1  # second before going on with a file that broke off
LISTED = 20  # files that an error names
CHUNK = 1 << 20  # bytes that are hashed at once
WEIGHTS = (".safetensors", ".gguf", ".pt", ".pth", ".bin")
TOKENIZER = (
    "FOLDER holds the Qwen tokenizer (tokenizer.json, or vocab.json and merges.txt): ComfyUI's own is in "
    f"comfy/text_encoders/qwen25_tokenizer, and {HUB}/Qwen/Qwen3-VL-8B-Instruct has one. Put into a folder "
    "named tokenizer beside the encoder, it is found without --tokenizer."
)
ADVICE = {
    401: "there is no such repository, or it wants a token: set HF_TOKEN to one that may read it",
    403: "your token may not read it: accept the terms on its page, or set HF_TOKEN to another",
    404: "it is not there; if HF_ENDPOINT is set, see that it names a hub that has it",
}


@dataclass(frozen=True)
class Wanted:
    """A file that a model needs: the `joyimage` option that takes it, ComfyUI's folder, and who may publish it."""

    option: str
    folder: str
    name: str
    repositories: tuple[str, ...]


@dataclass(frozen=True)
class RemoteFile:
    """A file on the hub and its place here. `size` in bytes; `sha256` is None where the hub names none."""

    option: str
    repository: str
    revision: str
    path: str
    size: int
    sha256: str | None
    place: Path

    @property
    def partial(self) -> Path:
        return self.place.with_name(f"{self.place.name}.{(self.sha256 or self.revision)[:12]}.part")

    @property
    def is_there(self) -> bool:
        return _size(self.place) == self.size

    @property
    def left(self) -> int:
        """Bytes that are still to come."""
        return 0 if self.is_there else max(self.size - _size(self.partial), 0)


def run(model: str, format: str, to: Path, *, yes: bool = False, quiet: bool = False, as_json: bool = False) -> None:
    """Fetch what is not in the folder `to` yet of the files of "edit" or "plus", and say how to use them.

    It asks first, unless `yes`. Raises `JoyImageError` for a hub that cannot be reached or lacks a file, a disk that is
    too small, and for a no; `OSError` for a folder that cannot be written; `KeyboardInterrupt` that says what is left.
    """
    hub, folder = Hub(), to.expanduser()
    files = [hub.find(wanted, folder) for wanted in wanted_files(model, format)]
    coming = [file for file in files if not file.is_there]
    print(describe(files, folder), file=sys.stderr if as_json else sys.stdout, flush=True)
    if coming:
        check_space(coming)
        if not yes:
            _ask(sum(file.left for file in coming), f'joyimage download {model} --format {format} --to "{to}" --yes')
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(folder), _progress_bars(not quiet), _interruptible():
            for file in coming:
                hub.fetch(file)
    _report(model, files, coming, folder, as_json)


def wanted_files(model: str, format: str) -> tuple[Wanted, ...]:
    """The files of "edit" or "plus" in "int8" or "bf16"; for a VAE that Plus' repository lacks, Edit's has it."""
    (word, repository, _), kind = MODELS[model], FORMAT_WORDS[format]
    own = (repository,)
    return (
        Wanted("mmdit", "diffusion_models", f"joyai_image_{word}_{kind}.safetensors", own),
        Wanted("encoder", "text_encoders", f"qwen3vl_8b_joyimage_{word}_{kind}.safetensors", own),
        Wanted("vae", "vae", "wan_2.1_vae.safetensors", tuple(dict.fromkeys((repository, EDIT)))),
    )


class Hub:
    """The hub in $HF_ENDPOINT, read when this is made. Raises `JoyImageError` for one that is no address."""

    def __init__(self) -> None:
        self.endpoint = (os.environ.get("HF_ENDPOINT") or HUB).rstrip("/")
        if not self.endpoint.startswith(("http://", "https://")):
            raise JoyImageError("HF_ENDPOINT must begin with http:// or https://")
        self._listings: dict[str, ModelInfo] = {}

    def find(self, wanted: Wanted, folder: Path) -> RemoteFile:
        """The file of this name, wherever it lies in the first repository that has it.

        Raises `JoyImageError` that says what the repository holds instead, or why it cannot be listed.
        """
        siblings: dict[PurePosixPath, RepoSibling] = {}
        for repository in wanted.repositories:
            listing = self._listing(repository)
            siblings = {PurePosixPath(file.rfilename): file for file in listing.siblings or ()}
            paths = sorted(path for path in siblings if path.name == wanted.name)
            if paths:
                path = next((path for path in paths if path.parent.name == wanted.folder), paths[0])
                size, lfs, place = siblings[path].size, siblings[path].lfs, folder / wanted.folder / wanted.name
                if size is None or not listing.sha:
                    raise JoyImageError(f"{self.endpoint}/{repository}: the hub does not say how large {path} is")
                sha256 = lfs.sha256 if lfs else None
                return RemoteFile(wanted.option, repository, listing.sha, str(path), size, sha256, place)
        held = sorted(str(path) for path in siblings if path.suffix in WEIGHTS) or ["no weights"]
        names = ", ".join(held[:LISTED]) + (f" and {len(held) - LISTED} more" if len(held) > LISTED else "")
        raise JoyImageError(
            f"{self.endpoint}/{wanted.repositories[-1]}: holds no {wanted.name} but {names}; choose another --format, "
            f"or download by hand what fits to {folder / wanted.folder}"
        )

    def _listing(self, repository: str) -> ModelInfo:
        """What the repository holds, asked for once. Raises `JoyImageError`."""
        from huggingface_hub import HfApi

        if repository not in self._listings:
            where = f"{self.endpoint}/{repository}"
            try:
                with _network(where):
                    found = HfApi(endpoint=self.endpoint).model_info(repository, files_metadata=True, timeout=TIMEOUT)
            except JoyImageError:
                raise
            except (KeyError, TypeError, ValueError) as error:
                raise JoyImageError(
                    f"{where}: the answer is not a hub's; see that HF_ENDPOINT names a hub, and that no page of a "
                    "proxy or a network's login comes between"
                ) from error
            self._listings[repository] = found
        return self._listings[repository]

    def fetch(self, file: RemoteFile) -> None:
        """Bring a file to its place, from where an earlier call stopped.

        Raises `JoyImageError` when the hub fails or what came is damaged, `OSError` when the disk does.
        """
        file.place.parent.mkdir(parents=True, exist_ok=True)
        for old in file.place.parent.glob(f"{file.place.name}.*.part"):
            if old != file.partial or _size(old) > file.size:  # of another version, which will not be gone on with
                old.unlink()
        self._stream(file)
        if file.sha256 and _sha256(file.partial) != file.sha256:
            file.partial.unlink()
            raise JoyImageError(f"{file.place}: was damaged on its way and is removed; run the same command again")
        replace_file(file.partial, file.place)

    def _stream(self, file: RemoteFile) -> None:
        """Add to the part until it is whole, as long as each try brings something."""
        from huggingface_hub import hf_hub_url
        from huggingface_hub.file_download import http_get
        from huggingface_hub.utils import build_hf_headers

        url = hf_hub_url(file.repository, file.path, revision=file.revision, endpoint=self.endpoint)
        with file.partial.open("ab") as target:
            while (start := target.tell()) < file.size:
                try:
                    with _network(url):
                        http_get(
                            url,
                            target,
                            resume_size=start,
                            headers=build_hf_headers(),
                            expected_size=file.size,
                            displayed_filename=file.place.name,
                        )
                except JoyImageError:
                    if target.tell() <= start:
                        raise
                    time.sleep(PAUSE)


@contextmanager
def _network(where: str) -> Iterator[None]:
    """Raise `JoyImageError` in one line for what the hub's client raises; `OSError` of the disk and `ValueError` pass.

    Its transport is requests up to huggingface_hub 0.x, whose errors are `OSError`, and httpx since, whose are not.
    """
    from huggingface_hub.errors import HfHubHTTPError

    transport = [base for base in HfHubHTTPError.__bases__ if issubclass(base, Exception)]
    try:
        yield
    except (OSError, *transport) as error:
        if status := getattr(getattr(error, "response", None), "status_code", None):
            advice = ADVICE.get(status, "try again later; the same command goes on from what has come")
            raise JoyImageError(f"{where}: the hub answered {status}: {advice}") from error
        if getattr(error, "errno", None) is not None or isinstance(error, ValueError):
            raise
        raise JoyImageError(
            f"{where}: cannot be reached, or broke off ({_innermost(error)}); check the connection, or name another "
            "hub in HF_ENDPOINT, and run the same command again: it goes on from what has come"
        ) from error


def _innermost(error: BaseException) -> str:
    while cause := error.__cause__ or error.__context__:
        error = cause
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


@contextmanager
def _interruptible() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt("what has come is kept, and the same command goes on from there") from None


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep a second download out of the folder, as both would add to the same part. Raises `JoyImageError` for it."""
    from filelock import FileLock, Timeout

    path = folder / ".joyimage-download.lock"
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise JoyImageError(f"{folder}: another joyimage download is at work there; wait until it is done") from None
    try:
        yield
    finally:
        lock.release()
        path.unlink(missing_ok=True)


@contextmanager
def _progress_bars(shown: bool) -> Iterator[None]:
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    if shown or are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


def describe(files: Sequence[RemoteFile], folder: Path) -> str:
    """What comes from where, how large, and what is there already."""
    width = max(len(str(file.place.relative_to(folder))) for file in files)
    lines = [f"To {folder.resolve()}:"]
    for file in files:
        source = f"from {file.repository}"
        if file.is_there:
            source = "there already"
        elif came := _size(file.partial):
            source += f", goes on after {_bytes(came)}"
        elif file.place.exists():
            source += f", replaces a file of {_bytes(_size(file.place))}"
        lines.append(f"  {file.place.relative_to(folder)!s:{width}}  {_bytes(file.size):>8}  {source}")
    left, free = sum(file.left for file in files), shutil.disk_usage(_existing(folder)).free
    total = f"To download: {_bytes(left)}. Free on the disk: {_bytes(free)}."
    return "\n".join((*lines, total if left else "Nothing is left to download."))


def check_space(files: Iterable[RemoteFile]) -> None:
    """Raise `JoyImageError` if a disk has less room than what is to come; ComfyUI's folders may lie on several."""
    needed: Counter[int] = Counter()
    folders = {}
    for file in files:
        folder = _existing(file.place.parent)
        disk = folder.stat().st_dev
        folders[disk] = folder
        needed[disk] += file.left
    for disk, folder in folders.items():
        if (lacking := needed[disk] - (free := shutil.disk_usage(folder).free)) > 0:
            raise JoyImageError(
                f"{folder}: {_bytes(free)} are free on its disk, and {_bytes(lacking)} more are needed; nothing was "
                "downloaded. Make room, or name a folder on another disk with --to"
            )


def _ask(count: int, agreeing: str) -> None:
    """Raises `JoyImageError` unless the answer is yes; where nobody can answer, it names the command that agrees."""
    if not (sys.stdin and sys.stdin.isatty()):
        raise JoyImageError(f"nothing was downloaded, as there is no terminal to ask at; to agree, type: {agreeing}")
    print(f"Download {_bytes(count)}? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise JoyImageError("nothing was downloaded, as the answer was not y")


def _report(model: str, files: Sequence[RemoteFile], came: Sequence[RemoteFile], folder: Path, as_json: bool) -> None:
    """Say what the new files are, and the command that uses them all. Raises `CheckpointError` for one that is none."""
    from .checkpoints import inspect

    try:
        reports = [inspect(file.place) for file in came]
    except CheckpointError as error:
        raise CheckpointError(f"{error}\nIt came as the hub has it; remove it and tell those who publish it") from error
    tokenizer = _tokenizer(next(file.place for file in files if file.option == "encoder"), folder)
    given = [(file.option, file.place) for file in files] + [("tokenizer", tokenizer or "FOLDER")]
    command = " ".join(("joyimage edit", MODELS[model][2], *(f'--{option} "{path}"' for option, path in given)))
    note = "" if tokenizer else TOKENIZER
    if not as_json:
        print("\n" + "\n\n".join(filter(None, (*map(str, reports), f"Use them:\n{command}", note))))
        return
    listed = [
        {"path": str(file.place), "repository": file.repository, "bytes": file.size, "downloaded": file in came}
        for file in files
    ]
    reported = [report.as_dict() for report in reports]
    print(json.dumps({"files": listed, "reports": reported, "command": command, "note": note}, indent=2))


def _tokenizer(encoder: Path, folder: Path) -> Path | None:
    """Where the encoder's tokenizer is: beside it, or ComfyUI's own if the folder is ComfyUI's."""
    from .checkpoints.folders import find_tokenizer, is_tokenizer

    comfy = folder.absolute().parent / "comfy" / "text_encoders" / "qwen25_tokenizer"
    return find_tokenizer(encoder) or (comfy if is_tokenizer(comfy) else None)


def _existing(path: Path) -> Path:
    """The folder itself, or the nearest above it that there is."""
    path = path.absolute()
    return next(folder for folder in (path, *path.parents) if folder.is_dir())


def _sha256(path: Path) -> str:
    from huggingface_hub.utils import tqdm

    digest = hashlib.sha256()
    bar = tqdm(total=_size(path), desc="checking", unit="B", unit_scale=True, disable=None)
    with path.open("rb") as file, bar:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            bar.update(len(chunk))
    return digest.hexdigest()


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _bytes(count: int) -> str:
    """In the decimal units that the hub and disks are labelled in."""
    unit, name = next(((10**k, name) for k, name in ((9, "GB"), (6, "MB")) if count >= 10**k), (1000, "kB"))
    return f"{count / unit:.1f} {name}"
