"""What optional extras bring, imported when it is first needed."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from .errors import JoyImageError


def extra(name: str, group: str) -> ModuleType:
    """An optional module, such as `scipy.spatial` of the extra `data`. Raises `JoyImageError` where there is none."""
    try:
        return import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise JoyImageError(f'{package} is not installed ({error}); run pip install "joyimage[{group}]"') from error
