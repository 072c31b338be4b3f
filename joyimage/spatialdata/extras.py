"""What the optional extra `data` brings, imported when it is first needed."""

from __future__ import annotations

from functools import partial
from importlib.util import find_spec

from ..errors import JoyImageError
from ..extras import extra as extra_of

extra = partial(extra_of, group="data")


def check_extras(*packages: str) -> None:
    """Raise `JoyImageError` for packages that are not installed, without importing any: some take seconds."""
    if missing := [package for package in packages if find_spec(package) is None]:
        raise JoyImageError(f'{" and ".join(missing)} is not installed; run pip install "joyimage[data]"')
