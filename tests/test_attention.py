"""Attention by name: the same numbers, or a word about what is missing."""

from __future__ import annotations

import sys
import threading
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F

from joyimage import JoyImage, JoyImageError, attention
from joyimage.settings import ATTENTIONS


def draw(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


Q, K, V = draw(2, 3, 5, 16), draw(2, 3, 9, 16), draw(2, 3, 9, 16)


@pytest.mark.parametrize("name", ["auto", "flash", "math"])
def test_those_of_a_cpu_agree(name):
    weights = torch.softmax(Q @ K.transpose(-1, -2) / 4, dim=-1)
    expected = (weights @ V).transpose(1, 2).flatten(2)
    got = attention.attention_by_name(name, "cpu")(Q, K, V)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)


def test_threads_that_choose_at_once_leave_torch_as_it_was(monkeypatch):
    """The first goes while the second is in; each would put back what it found."""
    flags = ("flash", "math", "mem_efficient", "cudnn")
    plain, within, gone = (
        attention.attention,
        {name: threading.Event() for name in ("math", "flash")},
        threading.Event(),
    )

    def overlapping(q, k, v):
        name = threading.current_thread().name
        within[name].set()
        (within["flash"] if name == "math" else gone).wait(0.5)
        return plain(q, k, v)

    def run():
        attention.attention_by_name(threading.current_thread().name, "cpu")(Q, K, V)
        gone.set()

    def enabled() -> list[bool]:
        return [getattr(torch.backends.cuda, f"{flag}_sdp_enabled")() for flag in flags]

    monkeypatch.setattr(attention, "attention", overlapping)
    before = enabled()
    first, second = (threading.Thread(target=run, name=name) for name in within)
    first.start()
    within["math"].wait()
    second.start()
    first.join()
    second.join()
    assert enabled() == before


def test_what_a_kernel_does_not_take_is_named():
    with pytest.raises(JoyImageError, match="attention 'cudnn' does not take float32 with 16 numbers a head on cpu"):
        attention.by_torch(Q, K, V, "cudnn")
    with pytest.raises(RuntimeError, match="size of tensor"):
        attention.by_torch(Q, K[:1, :2], V, "math")


def test_every_name_has_an_implementation():
    assert set(attention.TORCH) | set(attention.PACKAGES) | {"auto"} == set(ATTENTIONS)
    assert set(attention.DEVICES) <= set(attention.TORCH)


@pytest.mark.parametrize("name", ["cudnn", "efficient"])
def test_a_device_without_the_kernel_is_refused(name):
    with pytest.raises(JoyImageError, match=f"'{name}' does not run on cpu; choose auto, flash, math"):
        attention.attention_by_name(name, "cpu")


def test_a_name_that_does_not_exist_is_refused_before_anything_loads(tmp_path):
    with pytest.raises(JoyImageError, match="unknown attention 'fast'; choose one of auto, cudnn"):
        JoyImage.load(tmp_path, attention="fast")


@pytest.mark.parametrize(
    "name, capability, message",
    [
        ("flash3", (8, 9), "for cards of compute capability 9.x"),
        ("flash3", (12, 0), "for cards of compute capability 9.x"),
        ("sage", (7, 5), "compute capability 8.0 and newer"),
    ],
)
def test_a_card_that_a_package_is_not_for_is_refused(monkeypatch, name, capability, message):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: capability)
    with pytest.raises(JoyImageError, match=message):
        attention.attention_by_name(name, "cuda")


def sageattn(q, k, v, tensor_layout, is_causal):
    assert tensor_layout == "NHD" and not is_causal
    return F.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v))).transpose(1, 2)


def flash_attn_func(q, k, v):
    return sageattn(q, k, v, "NHD", False), torch.zeros(())


@pytest.mark.parametrize("name, function", [("sage", sageattn), ("flash3", flash_attn_func)])
@pytest.mark.parametrize("source", ["package", "kernels"])
def test_packages_are_called_as_they_want_it(monkeypatch, name, function, source):
    """Their real kernels need a card; these have the signatures of their documentation."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: (9, 0))
    package = attention.PACKAGES[name]
    module, asked = ModuleType("module"), []
    setattr(module, package.function, function)
    if source == "package":
        monkeypatch.setitem(sys.modules, package.module, module)
    else:
        monkeypatch.setitem(sys.modules, package.module, None)
        kernels = ModuleType("kernels")
        kernels.get_kernel = lambda repository, version: asked.append((repository, version)) or module
        monkeypatch.setitem(sys.modules, "kernels", kernels)
    got = attention.attention_by_name(name, "cuda")(Q, K, V)
    torch.testing.assert_close(got, attention.attention(Q, K, V), atol=1e-6, rtol=0)
    assert asked == ([] if source == "package" else [(package.repository, package.version)])


@pytest.mark.parametrize("name", list(attention.PACKAGES))
def test_packages_that_are_missing_are_named(monkeypatch, name):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: (9, 0))
    for module in (attention.PACKAGES[name].module, "kernels"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(JoyImageError, match=r"needs the package .* or kernels.*pip install kernels"):
        attention.attention_by_name(name, "cuda")


def test_a_model_uses_the_one_it_was_loaded_with():
    model = JoyImage.load("tiny", attention="math")
    options = {"size": (64, 64), "steps": 1, "output": "latent"}
    expected = JoyImage.load("tiny").generate("a cup", **options)
    torch.testing.assert_close(model.generate("a cup", **options), expected, atol=1e-4, rtol=0)
    assert model.mmdit.attention.keywords == {"name": "math"}
