"""TLS: the server's own certificate, and those of the hosts that it takes pictures from."""

from __future__ import annotations

import base64
import io
import shutil
import socket
import ssl
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from live_server import KEY, model, png, scene
from picture_host import host
from PIL import Image
from served import served

from joyimage.cli import main
from joyimage.scale.serving import server
from joyimage.scale.serving.tls import tls_context

pytest.importorskip("fastapi")
openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="certificates are made by openssl")
EDITS = "/v1/images/edits"


@dataclass(frozen=True)
class Pair:
    """A certificate for this machine that rests on itself alone, and its key."""

    certificate: Path
    key: Path

    @property
    def trusting(self) -> ssl.SSLContext:
        """For a client that knows this certificate and no other."""
        return ssl.create_default_context(cafile=str(self.certificate))


def made(folder: Path, name: str) -> Pair:
    pair = Pair(folder / f"{name}.pem", folder / f"{name}-key.pem")
    run(
        "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
        "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost",
        "-keyout", str(pair.key), "-out", str(pair.certificate),
    )  # fmt: skip
    return pair


def run(*words: str) -> None:
    subprocess.run(["openssl", *words], check=True, capture_output=True)


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> Pair:
    return made(tmp_path_factory.mktemp("tls"), "own")


@pytest.fixture(scope="module")
def another(tmp_path_factory) -> Pair:
    return made(tmp_path_factory.mktemp("tls"), "another")


@openssl
@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="signals and open files are those of Linux")
def test_a_server_and_its_hosts_of_pictures_by_https(tmp_path, pair, another):
    answers = {"/a.png": (200, {}, png(scene()))}
    known, unknown = (tls_context(each.certificate, each.key) for each in (pair, another))
    with host(answers, known) as trusted, host(answers, unknown) as strange:
        tls = ["--tls-certificate", str(pair.certificate), "--tls-key", str(pair.key)]
        hosts = ["--allow-host", f"{trusted.url},{strange.url}"]
        with served(tmp_path, *tls, *hosts, SSL_CERT_FILE=str(pair.certificate)) as command:
            assert command.url.startswith("https://127.0.0.1:")
            fields = {"prompt": "Remove the car.", "steps": 1}
            with command.http(verify=pair.trusting) as http:
                assert http.get("/health").json()["status"] == "ok"
                sent = http.post(EDITS, json={**fields, "image": f"{trusted.url}/a.png"})
                refused = http.post(EDITS, json={**fields, "image": f"{strange.url}/a.png"})
                page = http.post(EDITS, json={}, headers={"Origin": command.url})
                other = http.post(EDITS, json={}, headers={"Origin": "https://example.com"})
            with (
                command.http(verify=another.trusting) as http,
                pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"),
            ):
                http.get("/health")
            with socket.create_connection(("127.0.0.1", int(command.url.rpartition(":")[2]))) as plain:
                plain.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert b"HTTP" not in plain.recv(100)
            assert httpx.get(f"{command.url}/v1/models", verify=pair.trusting).status_code == 401
            assert "Traceback" not in command.log.read_text() and KEY not in command.log.read_text()
    (expected,) = model().edit(scene(), "Remove the car.", steps=1)
    assert Image.open(io.BytesIO(base64.b64decode(sent.json()["data"][0]["b64_json"]))).tobytes() == expected.tobytes()
    assert (refused.status_code, refused.json()["error"]["code"]) == (424, "picture_not_fetched")
    assert len(trusted.asked) == 1 and strange.asked == []
    assert (page.status_code, other.status_code) == (400, 403)


@pytest.fixture
def refusal(monkeypatch, capsys):
    """What the command says of files that it cannot serve by; it comes no further."""
    monkeypatch.setattr(server, "serve", None)

    def told(*options: object) -> str:
        assert main(["serve", "--model", "absent", "--port", "0", *map(str, options)]) == 2
        output, errors = capsys.readouterr()
        assert output == "" and errors.startswith("joyimage: error: ") and errors.count("\n") == 1
        return errors

    return told


def test_files_that_are_not_there_are_named(tmp_path, refusal):
    absent = tmp_path / "absent.pem"
    assert f"there is no file {absent}" in refusal("--tls-certificate", absent, "--tls-key", absent)
    assert f"--tls-key {absent} is of no use alone" in refusal("--tls-key", absent)
    assert f"{tmp_path} cannot be read for TLS: Is a directory" in refusal("--tls-certificate", tmp_path)
    empty = tmp_path / "empty.pem"
    empty.touch()
    assert f"there is no file {absent}" in refusal("--tls-certificate", empty, "--tls-key", absent)
    assert f"{empty} alone: no certificate with its key" in refusal("--tls-certificate", empty)


@openssl
def test_and_so_are_those_that_cannot_be_used(tmp_path, pair, another, refusal):
    wrong = refusal("--tls-certificate", pair.certificate, "--tls-key", another.key)
    assert f"{pair.certificate} and {another.key}: " in wrong and "key values mismatch" in wrong
    assert "no certificate with its key" in refusal("--tls-certificate", pair.key, "--tls-key", pair.certificate)
    assert f"{pair.certificate} alone: no certificate with its key" in refusal("--tls-certificate", pair.certificate)
    der = tmp_path / "der.crt"
    run("x509", "-in", str(pair.certificate), "-outform", "DER", "-out", str(der))
    assert f"{der} and {pair.key}: no certificate with its key" in refusal(
        "--tls-certificate", der, "--tls-key", pair.key
    )
    locked = tmp_path / "locked.pem"
    run("pkey", "-in", str(pair.key), "-aes256", "-passout", "pass:secret", "-out", str(locked))
    told = refusal("--tls-certificate", pair.certificate, "--tls-key", locked)
    assert f"the key in {locked} is encrypted" in told


@openssl
def test_the_key_may_stand_with_the_certificate(tmp_path, pair):
    both = tmp_path / "both.pem"
    both.write_bytes(pair.certificate.read_bytes() + pair.key.read_bytes())
    assert tls_context(both) is not None
    assert tls_context(None) is None
