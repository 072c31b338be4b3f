"""At what sizes an example is learned: as its edit would be made, by `edit(controls, size=the target's bucket)`.

So a single control is scaled and cropped to the target's size, and each of several to its own bucket. Where target and
control have one shape, which is the rule, these are the sizes that `edit` takes by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from ..images import Size, best_bucket, nearest_size

Sizes: TypeAlias = tuple[Size, ...]  # of the target, then of each control


def fitting_sizes(target: Size, controls: Sequence[Size], base_size: int | None) -> Sizes:
    """The sizes at which pictures of these are learned; with no base size they keep theirs, in steps of 16."""
    own, *others = (
        nearest_size(*size) if base_size is None else best_bucket(*size, base_size) for size in (target, *controls)
    )
    return (own, own) if len(others) == 1 else (own, *others)
