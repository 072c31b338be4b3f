"""Settings, keys and addresses of the server, which are refused before any weights are opened."""

from __future__ import annotations

import pytest

from joyimage import JoyImageError
from joyimage.cli import build_parser, main
from joyimage.scale.serving.settings import KEY_VARIABLE, Serving, check_binding, is_loopback, key_from


@pytest.mark.parametrize(
    ("host", "here"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("127.9.9.9", True), ("0.0.0.0", False), ("::", False)],
)
def test_other_addresses_want_a_key_or_a_word(host, here):
    assert is_loopback(host) is here
    check_binding(host, "key", False)
    check_binding(host, None, True)
    if here:
        check_binding(host, None, False)
    else:
        with pytest.raises(JoyImageError, match=f"set {KEY_VARIABLE}.*--without-key"):
            check_binding(host, None, False)


@pytest.mark.parametrize("key", ["", " ", "a b", "schlüssel", "a\n"])
def test_a_key_that_no_client_could_send_is_refused_and_not_quoted(key):
    with pytest.raises(JoyImageError, match=f"{KEY_VARIABLE} is empty or holds") as refused:
        key_from({KEY_VARIABLE: key})
    assert not key.strip() or key not in str(refused.value)
    assert key_from({}) is None and key_from({KEY_VARIABLE: "abc"}) == "abc"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--host", "0.0.0.0"], "--without-key"),
        (["--queue", "-1"], "queue is -1"),
        (["--devices", "cuda:0", "--workers", "2"], "leave out --device and --workers"),
        (["--workers", "0"], "--workers is 0"),
        (["--devices", ""], "--devices names none"),
        (["--port", "99999999"], "port 99999999"),
        (["--host", "203.0.113.7", "--without-key"], "203.0.113.7, port 8000"),
        (["--allow-host", "images.example.com", "--allow-host", "*.evil.example"], "allow_host is '*.evil.example'"),
        (["--lora", "missing.safetensors"], "missing.safetensors"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_command_refuses_before_weights_are_opened(monkeypatch, capsys, options, message):
    from joyimage import JoyImage

    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    monkeypatch.setattr(JoyImage, "load", None)
    assert main(["serve", "--model", "tiny", *options]) == 2
    assert message in capsys.readouterr().err


def test_a_key_and_a_word_against_it_contradict():
    with pytest.raises(JoyImageError, match=f"{KEY_VARIABLE} is set: leave out one") as refused:
        check_binding("127.0.0.1", "secret", True)
    assert "secret" not in str(refused.value)


def test_the_command_offers_every_setting(capsys):
    options = vars(build_parser().parse_args(["serve"]))
    assert {name: options[name] for name in Serving.names()} == {
        name: getattr(Serving, name) for name in Serving.names()
    }
    with pytest.raises(SystemExit):
        main(["serve", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert all(Serving.help(name) in text for name in Serving.names())
