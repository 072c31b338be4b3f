"""Scenes whose files contradict each other: depth, boxes, masks, poses and lenses that cannot all be right.

Such a scene would give nothing, or wrong answers, without a word. What is suspected, such as a wrong unit, is tried: if
nearly all views agree with the boxes then, it is named as the cause.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from .causes import NEAR, Change, Names, Seen, changes, names_of, step
from .evidence import LEAST, MOST, Evidence, Glimpse, ratio, weighed
from .scenes import Scene, SceneObject
from .visibility import in_picture

PAIRS = 8  # of views that follow each other, which are held against each other
MEETING = 0.3  # of an object's points, at least, that fall onto its mask in another view
DOUBTFUL = 0.5  # of views of objects in which boxes agree; below it, causes are tried
PLAIN = 0.1  # the same, below which it is refused without a known cause
SURE = 0.8  # the same, from which on what is tried is the cause
LISTED = 8  # numbers that are told
FAR, CLOSE = 1000.0, 0.01  # metres, beyond which a scene's usual depth is no number of metres


def contradiction(scene: Scene, things: Sequence[SceneObject], seen: Sequence[Seen]) -> str:
    """What in a scene contradicts itself, where it is, and what to do; "" where nothing does plainly.

    things: its objects, but for walls and the like; those without boxes can be held against masks alone.
    """
    if not things or not seen:
        return ""
    told = _unmeasured(scene, seen) or _unnumbered(scene, things, seen)
    boxed = [thing for thing in things if thing.box is not None]
    told = told or (_displaced(scene, boxed, seen) if boxed else _scattered(scene, seen))
    return told or _beyond_metres(scene, seen)


def _displaced(scene: Scene, things: Sequence[SceneObject], seen: Sequence[Seen]) -> str:
    """Where what was measured of objects does not lie in their boxes."""
    glimpses = [each for view in seen for each in _glimpses(view, things)]
    base = weighed(glimpses)
    if base.share >= DOUBTFUL and not _off_axis(seen):
        return ""
    names = names_of(scene)
    tried = [(change, weighed(map(change.of, glimpses))) for change in changes(scene, seen, ratio(glimpses))]
    best, found = max(tried, key=lambda each: each[1].agree if each[1].share >= SURE else 0)
    start = f"{where(scene)}: depth, boxes and cameras contradict each other: {_counted(base)}. "
    if min(found.share / SURE, found.shown / DOUBTFUL) >= 1 and found.agree > 2 * base.agree:
        return f"{start}{best.told} it does in {found.agree} of {found.told}"
    if base.share < DOUBTFUL and (swapped := _swapped(things, seen)):
        return f"{where(scene)}: {names.masks}: {swapped}"
    if base.told and base.share < PLAIN:
        return start + _unknown(names, glimpses)
    return "" if base.told else _unseen(scene, names, things, seen, base.hidden)


def _off_axis(seen: Sequence[Seen]) -> bool:
    """Whether lenses look at nothing that pictures show: such ones may seem to agree where only few boxes are left."""
    x, y = seen[0].camera.intrinsic[:2, 2]
    return not (0 < x < seen[0].camera.width and 0 < y < seen[0].camera.height)


def _scattered(scene: Scene, seen: Sequence[Seen]) -> str:
    """Where what views measured of one object, by their masks, does not lie together."""
    pairs = [(seen[i], seen[i + 1]) for i in range(min(PAIRS, len(seen) - 1))]
    base = _together(pairs, Change(""))
    if not base.told or base.share >= DOUBTFUL:
        return ""
    tried = [(change, _together(pairs, change)) for change in changes(scene, seen, None)]
    best, found = max(tried, key=lambda each: each[1].agree if each[1].share >= SURE else 0)
    start = (
        f"{where(scene)}: depth and cameras contradict each other: what two views measured of one object lies together "
        f"in {base.agree} of {base.told} cases. "
    )
    if found.share >= SURE and found.agree > 2 * base.agree:
        return f"{start}{best.told} it does in {found.agree} of {found.told}"
    return start + _unknown(names_of(scene)) if base.share < PLAIN else ""


def _together(pairs: Sequence[tuple[Seen, Seen]], change: Change) -> Evidence:
    """How often an object's points of one view fall onto its mask in the other, about as far away as measured there."""
    agree = differ = 0
    for first, second in ((change.of_view(a), change.of_view(b)) for a, b in pairs):
        if first.numbers is None or second.numbers is None:
            continue
        for number in np.intersect1d(first.numbers, second.numbers):
            points = first.camera.points(first.depth, first.numbers == number)
            points = points[:: max(1, len(points) // MOST)]
            if number <= 0 or len(points) < LEAST or (second.numbers == number).sum() < LEAST:
                continue
            rows, columns, distance, inside = second.camera.index(points)
            measured = second.depth[rows, columns]
            near = (distance < NEAR * measured) & (measured < NEAR * distance)
            fits = (inside & (second.numbers[rows, columns] == number) & near).mean() >= MEETING
            agree, differ = agree + bool(fits), differ + (not fits)
    return Evidence(agree, differ, 0)


def where(scene: Scene) -> str:
    """The file of a scene, or its name."""
    return scene.file or f"scene {scene.name}"


def _beyond_metres(scene: Scene, seen: Sequence[Seen]) -> str:
    """Where lengths are said to be metres, and depth cannot be."""
    measured = np.concatenate([*(each.depth[each.depth > 0] for each in seen), np.zeros(0)])
    usual = float(np.median(measured)) if len(measured) else 1.0
    if not scene.metric or CLOSE <= usual <= FAR:
        return ""
    names = names_of(scene)
    return (
        f"{where(scene)}: {names.depth}: half of all depth is {'above' if usual > FAR else 'below'} {usual:.3g} m, "
        f"and lengths are said to be metres{step(scene)}; give the unit of its numbers"
    )


def _glimpses(seen: Seen, things: Sequence[SceneObject]) -> Iterator[Glimpse]:
    for thing in things:
        if thing.box is not None:
            mask = None if seen.numbers is None else seen.numbers == thing.number
            yield Glimpse(seen.camera, seen.depth, mask, thing.box)


def _counted(base: Evidence) -> str:
    if not base.told:
        return "nothing that was measured lies where a box is"
    return f"what was measured of an object lies in its box in {base.agree} of {base.told} cases"


def _unmeasured(scene: Scene, seen: Sequence[Seen]) -> str:
    if any((each.depth > 0).any() for each in seen):
        return ""
    names = names_of(scene)
    source = seen[0].view.depth
    shown = f" (as {source})" if isinstance(source, Path) else ""
    return (
        f"{where(scene)}: {names.depth}: no pixel of its {len(seen)} views has a depth{shown}; save depth "
        "above 0 where it was measured"
    )


def _unnumbered(scene: Scene, things: Sequence[SceneObject], seen: Sequence[Seen]) -> str:
    """Where masks have no number of any object."""
    masks = [each.numbers for each in seen if each.numbers is not None]
    found = Counter(
        {int(n): int(c) for each in masks for n, c in zip(*np.unique(each, return_counts=True), strict=True)}
    )
    del found[0]
    known = {thing.number for thing in scene.objects}
    if len(masks) < len(seen) or known & found.keys():
        return ""
    names = names_of(scene)
    if not found:
        held = weighed(each for view in seen for each in _glimpses(replace(view, numbers=None), things))
        told = "have no number but 0" if held.agree else ""
    else:
        told = f"have no number of an object, but {_listed(sorted(found))}"
    swapped = _swapped(things, seen)
    return told and (
        f"{where(scene)}: {names.masks}: masks {told}; objects have {_listed(sorted(known))}"
        f"{f'; {swapped}' if swapped else ': write the number of each object where a mask shows it'}"
    )


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers[:LISTED])) + (" …" if len(numbers) > LISTED else "")


def _swapped(things: Sequence[SceneObject], seen: Sequence[Seen]) -> str:
    """Where most masks lie in the boxes of other objects than their numbers say."""
    lies: list[tuple[int, int | None]] = []
    for view in seen:
        numbers = np.zeros(0, int) if view.numbers is None else np.unique(view.numbers[view.numbers > 0])
        for number in map(int, numbers):
            held = list(_held(view, number, things))
            lies.append((number, min(held, key=lambda each: each != number) if held else None))
    others = [(number, held) for number, held in lies if held not in (None, number)]
    if not others or len(others) < DOUBTFUL * len(lies):
        return ""
    (number, held), _ = Counter(others).most_common(1)[0]
    return (
        f"masks of number {number} lie in the box of object {held}, and {len(others)} of {len(lies)} masks in that of "
        "another object than their number says; give masks and objects the same numbers"
    )


def _held(view: Seen, number: int, things: Sequence[SceneObject]) -> Iterator[int]:
    """The numbers of objects in whose boxes a mask lies."""
    mask = view.numbers == number
    for thing in things:
        if thing.box is not None and weighed([Glimpse(view.camera, view.depth, mask, thing.box)]).agree:
            yield thing.number


def _unknown(names: Names, glimpses: Sequence[Glimpse] = ()) -> str:
    """What to look at where no cause is known."""
    far = ratio(glimpses)
    told = f"What is measured there is typically {far:.3g} times as far as the box. " if far else ""
    return (
        f"{told}See that {names.depth}, {names.pose} (from the camera to the world), {names.lens}, {names.box} and "
        f"{names.masks} are of one scene and in one unit"
    )


def _unseen(scene: Scene, names: Names, things: Sequence[SceneObject], seen: Sequence[Seen], hidden: int) -> str:
    """Of views without masks, in none of which a box can be seen."""
    boxes = [thing.box for thing in things if thing.box is not None]
    if any(each.numbers is not None for each in seen):
        return ""
    if hidden:
        told = f"what is measured hides all boxes: in {hidden} of {hidden} cases it lies before them"
        return f"{where(scene)}: {told}. See that {names.depth}, {names.pose} and {names.box} are in one unit"
    if any(in_picture(box, each.camera) > 0 for each in seen for box in boxes):
        return ""
    told = f"no box of {len(boxes)} lies in any picture of {len(seen)}"
    return f"{where(scene)}: {told}. See that {names.pose} leads from the camera to the world of {names.box}"
