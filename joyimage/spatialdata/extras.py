"""What the optional extra `data` brings, imported when it is first needed."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

from ..errors import JoyImageError


def extra(name: str) -> ModuleType:
    """An optional module, such as `scipy.spatial`. Raises `JoyImageError` where it is not installed."""
    try:
        return import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise JoyImageError(f'{package} is not installed ({error}); run pip install "joyimage[data]"') from error


def check_extras(*packages: str) -> None:
    """Raise `JoyImageError` for packages that are not installed, without importing any: some take seconds."""
    if missing := [package for package in packages if find_spec(package) is None]:
        raise JoyImageError(f'{" and ".join(missing)} is not installed; run pip install "joyimage[data]"')
