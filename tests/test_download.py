"""`joyimage download`, against a hub on loopback that holds the bundled model under the published names."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import namedtuple
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from PIL import Image

from joyimage import download, tiny
from joyimage.cli import main

TINY = Path(tiny.__file__).parent
PARTS = {part: (TINY / f"{part}.safetensors").read_bytes() for part in ("mmdit", "encoder", "vae")}
TOKEN = "hf_never_to_be_shown"
COMMIT = "c0ffee" * 6 + "beef"
MMDIT = "diffusion_models/joyai_image_edit_int8_convrot.safetensors"
ENCODER = "text_encoders/qwen3vl_8b_joyimage_edit_int8_convrot.safetensors"
VAE = "vae/wan_2.1_vae.safetensors"
PLUS_MMDIT = MMDIT.replace("edit", "edit_plus")
PLUS_ENCODER = ENCODER.replace("edit", "edit_plus")
CHUNK = 1 << 16  # bytes written at once, instead of ten megabytes


class Hub(ThreadingHTTPServer):
    """What a hub answers to the client's questions, with faults to order; `requests` keeps (path, range, token)."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories = {
            download.EDIT: {MMDIT: PARTS["mmdit"], ENCODER: PARTS["encoder"], VAE: PARTS["vae"]},
            download.PLUS: {f"split/{PLUS_MMDIT}": PARTS["mmdit"], Path(PLUS_ENCODER).name: PARTS["encoder"]},
        }
        self.requests: list[tuple[str, str | None, str | None]] = []
        self.breaks: list[int] = []  # after so many bytes the next answers with a file end
        self.stall: int | None = None  # after so many bytes all answers with a file wait
        self.damaged = b""  # goes out instead of as much of the end of a file
        self.statuses: dict[str, int] = {}  # by the beginning of a path
        self.listing: bytes | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def files(self) -> list[tuple[str, str | None]]:
        return [(path.rsplit("/", 1)[1], ranged) for path, ranged, _ in self.requests if "/resolve/" in path]


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self):
        path = unquote(urlsplit(self.path).path)
        self.server.requests.append((path, self.headers["Range"], self.headers["Authorization"]))
        for start, status in self.server.statuses.items():
            if path.startswith(start):
                return self.answer(status, b"", {"X-Error-Code": "RepoNotFound"} if status == 404 else {})
        repository, _, file = path[1:].partition(f"/resolve/{COMMIT}/")
        if path.startswith("/api/models/"):
            body = self.server.listing or self.listed(path.removeprefix("/api/models/"))
            self.answer(200, body, {"Content-Type": "application/json"})
        elif file:
            self.send_file(self.server.repositories[repository][file])
        else:  # what the client asks of a hub for itself
            self.answer(404, b"", {})

    def listed(self, repository: str) -> bytes:
        siblings = [
            {
                "rfilename": path,
                "size": len(content),
                "blobId": hashlib.sha1(content).hexdigest(),
                "lfs": {"size": len(content), "sha256": hashlib.sha256(content).hexdigest(), "pointerSize": 134},
            }
            for path, content in self.server.repositories[repository].items()
        ]
        return json.dumps({"id": repository, "sha": COMMIT, "siblings": siblings}).encode()

    def send_file(self, content: bytes):
        start = int(re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "bytes=0-")[1])
        if self.server.damaged:
            content = content[: -len(self.server.damaged)] + self.server.damaged
        headers = {"ETag": '"e"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self.answer(206 if start else 200, content[start:], headers)

    def answer(self, status: int, body: bytes, headers: dict[str, str]):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        is_file = "Accept-Ranges" in headers
        if is_file and self.server.breaks:
            body = body[: self.server.breaks.pop(0)]
        if is_file and self.server.stall is not None:
            self.wfile.write(body[: self.server.stall])
            self.wfile.flush()
            while self.server.stall is not None:
                time.sleep(0.01)
            return
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("JOYIMAGE_MODEL", "HF_HUB_OFFLINE", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", CHUNK)
    monkeypatch.setattr(download, "PAUSE", 0)
    monkeypatch.setattr("sys.stdin", io.StringIO())
    with Hub() as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server
        server.stall = None
        server.shutdown()


@pytest.fixture
def call(hub, capfd):
    """Run the command and give its exit code, output and errors; the token is in none of them."""

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(["download", *arguments])
        out, err = capfd.readouterr()
        assert TOKEN not in out + err
        return code, out, err

    return run


def found(folder: Path | str = "models") -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file())


def error(err: str) -> str:
    """The one line of an error."""
    (line,) = [line for line in err.splitlines() if line.startswith("joyimage: error: ")]
    return line


def terminal(monkeypatch, answer: str) -> None:
    stdin = io.StringIO(answer)
    stdin.isatty = lambda: True
    monkeypatch.setattr("sys.stdin", stdin)


def test_edit_puts_each_file_where_comfyui_looks_and_says_what_it_is(hub, call):
    code, out, _ = call("edit", "--yes", "--quiet")
    assert code == 0
    assert found() == [MMDIT, ENCODER, VAE]
    for path, part in zip((MMDIT, ENCODER, VAE), ("mmdit", "encoder", "vae"), strict=True):
        assert Path("models", path).read_bytes() == PARTS[part]
        assert f"\n{part}: " in out
    plan = out.splitlines()
    assert plan[0] == f"To {Path('models').resolve()}:"
    assert plan[1].split() == [MMDIT, "8.2", "MB", "from", download.EDIT]
    assert plan[4].startswith("To download: 15.1 MB. Free on the disk: ")
    assert {token for path, _, token in hub.requests if download.EDIT in path} == {f"Bearer {TOKEN}"}


def test_the_last_lines_are_a_command_that_works(call, capfd):
    shutil.copytree(TINY / "tokenizer", "models/tokenizer")
    _, out, _ = call("edit", "--yes", "--quiet")
    program, *command = shlex.split(out.splitlines()[-1])
    Image.new("RGB", (64, 64), "teal").save("photo.jpg")
    assert program == "joyimage"
    assert main([*command, "--steps", "1", "--quiet", "--device", "cpu", "-o", "out.png"]) == 0
    assert Image.open("out.png").size == (64, 64)
    assert "bundled" not in capfd.readouterr().err


def test_without_a_tokenizer_it_says_where_to_get_one(call):
    _, out, _ = call("edit", "--yes", "--quiet")
    command, note = out.rstrip().splitlines()[-3::2]
    assert command.endswith('--tokenizer "FOLDER"') and "Qwen/Qwen3-VL-8B-Instruct" in note


def test_comfyuis_tokenizer_is_taken_for_comfyuis_folder(call):
    own = Path("ComfyUI/comfy/text_encoders/qwen25_tokenizer").absolute()
    shutil.copytree(TINY / "tokenizer", own)
    _, out, _ = call("edit", "--yes", "--quiet", "--to", "ComfyUI/models")
    assert out.splitlines()[-1].endswith(f'--tokenizer "{own}"')


def test_plus_is_found_anywhere_in_its_repository_and_takes_edits_vae(hub, call):
    code, out, _ = call("plus", "--yes", "--quiet", "--json", "--to", "there")
    assert code == 0 and found("there") == [PLUS_MMDIT, PLUS_ENCODER, VAE]
    report = json.loads(out)
    assert [file["repository"] for file in report["files"]] == [download.PLUS, download.PLUS, download.EDIT]
    assert [file["bytes"] for file in report["files"]] == [len(PARTS[part]) for part in PARTS]
    assert [part["parts"][0]["part"] for part in report["reports"]] == ["mmdit", "encoder", "vae"]
    assert report["command"].startswith("joyimage edit cup.jpg table.jpg ")
    hub.repositories[download.PLUS]["vae/wan_2.1_vae.safetensors"] = PARTS["vae"]
    _, out, _ = call("plus", "--yes", "--quiet", "--json")
    assert json.loads(out)["files"][2]["repository"] == download.PLUS


def test_what_is_there_is_not_fetched_again(hub, call):
    Path("models/vae").mkdir(parents=True)
    Path("models", VAE).write_bytes(PARTS["vae"])
    _, out, _ = call("edit", "--yes", "--quiet", "--json")
    assert [file["downloaded"] for file in json.loads(out)["files"]] == [True, True, False]
    assert [name for name, _ in hub.files()] == [Path(MMDIT).name, Path(ENCODER).name]
    code, out, _ = call("edit")  # nothing to ask about
    assert code == 0 and out.count("there already") == 3 and "Nothing is left to download.\n\nUse them:" in out
    assert len(hub.files()) == 2


def test_a_file_of_another_size_is_replaced_and_the_plan_says_so(call):
    Path("models/vae").mkdir(parents=True)
    Path("models", VAE).write_bytes(b"x" * 2000)
    _, out, _ = call("edit", "--yes", "--quiet")
    assert "replaces a file of 2.0 kB" in out
    assert Path("models", VAE).read_bytes() == PARTS["vae"]


@pytest.mark.slow
def test_a_connection_that_breaks_is_taken_up_again(hub, call):
    hub.breaks = [3 * CHUNK, 2 * CHUNK]
    code, *_ = call("edit", "--yes", "--quiet")
    assert code == 0 and found() == [MMDIT, ENCODER, VAE]
    assert Path("models", MMDIT).read_bytes() == PARTS["mmdit"]
    assert [ranged for _, ranged in hub.files()[:3]] == [None, f"bytes={3 * CHUNK}-", f"bytes={5 * CHUNK}-"]


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_download_goes_on_where_it_was(hub, call, tmp_path, sent):
    """A real signal to a process of its own, in the middle of the first file."""
    hub.stall = 3 * CHUNK
    code = (
        f"import sys, huggingface_hub.constants as c; c.DOWNLOAD_CHUNK_SIZE = {CHUNK}; "
        "from joyimage.cli import main; sys.exit(main(['download', 'edit', '--yes']))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )
    deadline = time.monotonic() + 60
    while sum(path.stat().st_size for path in tmp_path.rglob("*.part")) < 3 * CHUNK:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(sent)
    out, err = process.communicate(timeout=60)
    assert TOKEN not in out + err
    assert not Path("models", MMDIT).exists()
    if sent == signal.SIGINT:
        assert process.returncode == 130
        assert err.splitlines()[-1].startswith("joyimage: interrupted; what has come is kept, and the same command")
    hub.stall = None
    hub.requests.clear()
    code, out, _ = call("edit", "--yes", "--quiet")
    assert code == 0 and "goes on after 196.6 kB" in out and "To download: 14.9 MB" in out
    assert hub.files()[0] == (Path(MMDIT).name, f"bytes={3 * CHUNK}-")
    assert found() == [MMDIT, ENCODER, VAE] and Path("models", MMDIT).read_bytes() == PARTS["mmdit"]


def test_the_part_of_an_older_version_is_not_gone_on_with(hub, call):
    part = Path("models", f"{MMDIT}.000000000000.part")
    part.parent.mkdir(parents=True)
    part.write_bytes(b"older")
    assert call("edit", "--yes", "--quiet")[0] == 0
    assert hub.files()[0][1] is None and found() == [MMDIT, ENCODER, VAE]


def test_a_damaged_file_does_not_get_its_name(hub, call):
    hub.damaged = b"damaged"
    code, _, err = call("edit", "--yes", "--quiet")
    assert code == 2 and MMDIT in error(err) and "damaged" in error(err)
    assert found() == []


def test_two_at_a_time_are_refused(call):
    from filelock import FileLock

    Path("models").mkdir()
    with FileLock("models/.joyimage-download.lock"):
        code, _, err = call("edit", "--yes")
    assert code == 2 and "another joyimage download is at work" in error(err)


def test_a_disk_that_is_too_small_is_refused_before_anything_comes(hub, call, monkeypatch):
    usage = namedtuple("usage", "total used free")(10**8, 9 * 10**7, 10**7)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    code, out, err = call("edit", "--yes")
    assert code == 2 and "10.0 MB are free" in error(err) and "5.1 MB more are needed" in error(err)
    assert "Free on the disk: 10.0 MB" in out
    assert hub.files() == [] and not Path("models").exists()


def test_without_a_terminal_it_says_what_to_type(hub, call):
    code, out, err = call("edit", "--format", "int8", "--to", "my models")
    assert code == 2 and "To download: 15.1 MB" in out
    assert error(err).endswith('type: joyimage download edit --format int8 --to "my models" --yes')
    assert hub.files() == [] and not Path("my models").exists()


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("Yes\n", 0), ("n\n", 2), ("\n", 2), ("", 2)])
def test_at_a_terminal_it_asks(hub, call, monkeypatch, answer, code):
    terminal(monkeypatch, answer)
    got, _, err = call("edit", "--quiet")
    assert got == code and "Download 15.1 MB? [y/N] " in err
    assert (found() if Path("models").exists() else []) == ([] if code else [MMDIT, ENCODER, VAE])


def test_progress_is_shown_unless_quiet(call, monkeypatch):
    monkeypatch.setenv("TQDM_POSITION", "-1")  # as at a terminal
    assert Path(MMDIT).name[-20:] in call("edit", "--yes")[2]
    shutil.rmtree("models")
    assert call("edit", "--yes", "--quiet")[2] == ""


def test_a_file_that_is_not_in_the_repository(hub, call):
    code, _, err = call("edit", "--format", "bf16", "--yes")
    assert code == 2 and f"{download.EDIT}: holds no joyai_image_edit_bf16.safetensors but {MMDIT}" in error(err)
    hub.repositories[download.EDIT] = {"README.md": b""}
    assert "but no weights; choose another --format" in error(call("edit", "--yes")[2])


@pytest.mark.parametrize(
    ("status", "message"),
    [(401, "set HF_TOKEN"), (403, "accept the terms"), (404, "HF_ENDPOINT"), (503, "try again later")],
)
@pytest.mark.parametrize("where", ["/api", "/Comfy-Org"])
def test_a_hub_that_refuses(hub, call, monkeypatch, where, status, message):
    monkeypatch.setattr("time.sleep", lambda _: None)  # before the client's tries
    hub.statuses = {where: status}
    code, _, err = call("edit", "--yes", "--quiet", "--debug")
    assert code == 2 and f"the hub answered {status}" in error(err) and message in error(err)
    assert download.EDIT in error(err)
    assert not Path("models", MMDIT).exists()


def test_a_hub_that_is_not_there(call, monkeypatch):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{closed.getsockname()[1]}")
        code, _, err = call("edit", "--yes")
    assert code == 2 and "cannot be reached, or broke off (Connection refused)" in error(err)
    assert not Path("models").exists()


@pytest.mark.parametrize("listing", [b"<html>log in</html>", b"[]", b"{}"])
def test_an_answer_that_is_not_a_hubs(hub, call, listing):
    hub.listing = listing
    code, _, err = call("edit", "--yes")
    assert code == 2 and "the answer is not a hub's" in error(err)


def test_an_endpoint_that_is_no_address(call, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "hub.example")
    assert "HF_ENDPOINT must begin with http" in error(call("edit", "--yes")[2])


def test_weights_that_are_no_weights(hub, call):
    hub.repositories[download.EDIT][VAE] = b"not safetensors"
    code, _, err = call("edit", "--yes", "--quiet")
    assert code == 2 and VAE in error(err) and "It came as the hub has it" in error(err)


def test_commands_without_weights_name_it(hub, capfd):
    Image.new("RGB", (64, 64), "teal").save("cup.png")
    assert main(["edit", "cup.png", "Remove it.", "--size", "64x64", "--steps", "1", "--device", "cpu"]) == 0
    assert "joyimage download edit" in capfd.readouterr().err
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "joyimage download plus" in " ".join(capfd.readouterr().out.split())
