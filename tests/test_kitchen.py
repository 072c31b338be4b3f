"""comfy-kitchen is optional: what is not there, or is of another version, is not taken for there."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch

from joyimage import kitchen

HAS = "has_this"


@pytest.fixture(autouse=True)
def forget():
    kitchen.has_operators.cache_clear()
    yield
    kitchen.has_operators.cache_clear()


@pytest.fixture
def installed(monkeypatch):
    """A package with one operator, whose kernels for CUDA are there or not."""

    def install(cuda: bool = True) -> None:
        registry = ModuleType("comfy_kitchen.registry")
        registry.registry = SimpleNamespace(is_available=lambda backend: cuda and backend == "cuda")
        monkeypatch.setitem(sys.modules, "comfy_kitchen", ModuleType("comfy_kitchen"))
        monkeypatch.setitem(sys.modules, "comfy_kitchen.registry", registry)
        monkeypatch.setattr(torch.ops, "comfy_kitchen", SimpleNamespace(**{HAS: print}), raising=False)

    return install


def test_without_the_package_it_has_nothing(monkeypatch):
    monkeypatch.setitem(sys.modules, "comfy_kitchen", None)
    assert not kitchen.has_operators(HAS)
    assert not kitchen.has_cuda_kernels(HAS)


@pytest.mark.parametrize(("names", "has"), [((HAS,), True), (("another",), False), ((HAS, "another"), False)])
def test_another_version_may_lack_an_operator(installed, names, has):
    installed()
    assert kitchen.has_operators(*names) is has
    assert kitchen.has_cuda_kernels(*names) is has


def test_kernels_for_cuda_may_be_missing(installed):
    installed(cuda=False)
    assert kitchen.has_operators(HAS)
    assert not kitchen.has_cuda_kernels(HAS)
