"""Every setting of sampling and answering: its name, default, range and choices, checked when it is made.

The library's signatures, the command line's options, the nodes' inputs and the documentation say what stands here. It
imports no torch, so that a bad value is refused before anything slow begins.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from itertools import pairwise
from typing import Any

from .errors import JoyImageError

SOLVERS = ("euler", "heun", "dpmpp_2m", "unipc")
SCHEDULES = ("original", "diffusers")
OUTPUTS = ("pil", "pt", "np", "latent")
DTYPES = ("float32", "bfloat16", "float16")
EXACT = "exact"  # products with quantised weights that round no activations
PRODUCTS = (EXACT, "8bit")
VIEWS = ("front", "right", "left", "rear", "front right", "front left", "rear right", "rear left")
ZOOMS = ("in", "out", "unchanged")
BASE_SIZES = (64, 256, 512, 768, 1024)  # sides of squares, in pixels
NATIVE_BASE_SIZE = 1024  # of the published models
NATIVE_SHIFT = 1.5  # theirs too, where their files do not say otherwise
NATIVE_STEPS = 40  # the same
CANDIDATES = "candidates"  # the key of a chosen picture's `info` that holds what it was chosen from
MAX_CANDIDATES = 64  # pictures of which one is chosen
MAX_REFERENCES = 6  # pictures that an edit can have
AUTO = "auto"  # the base size that the model at hand was made for, or the attention that the device is best at
ATTENTIONS = (AUTO, "cudnn", "flash", "efficient", "math", "flash3", "sage")
SEEDS = 2**64
MAX_SIDE = 16384  # pixels, of a side of a picture that is made; ComfyUI's largest, too
MAX_CANVAS = 178_956_970  # pixels of a picture that is outpainted: what Pillow reads at most
MAX_STEPS = 100_000  # of a schedule: far more than float32 tells apart, far fewer than fill a machine's memory
MAX_COUNT = 10_000  # pictures of one prompt
TRAINING_STEPS = 1000  # timesteps in a sigma of 1
# What saves forwards, by preset; docs/performance.md has the table that "fast" is chosen by.
PRESETS: dict[str, dict[str, float]] = {"exact": {}, "fast": {"forecast": 4}}


@dataclass(frozen=True)
class Range:
    """The numbers that a field offers, both ends among them, and the step from one to the next.

    `least` and `most` are what a widget offers; what the library takes is said by each setting's own check, and may go
    further (a guidance of 100 is odd, not wrong).
    """

    least: float
    most: float
    step: float = 1


def number(default: float | None, least: float, most: float, step: float = 1, help: str = "") -> Any:
    """A field with a number; None stands for the one of the model at hand."""
    return field(default=default, metadata={"range": Range(least, most, step), "help": help})


def choice(default: str, choices: Sequence[str], help: str = "") -> Any:
    """A field with one of some words."""
    return field(default=default, metadata={"choices": tuple(choices), "help": help})


def given(default: Any, help: str = "") -> Any:
    """A field that no widget offers."""
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class Settings:
    """What both kinds of settings can say of themselves."""

    @classmethod
    def names(cls) -> list[str]:
        return [each.name for each in fields(cls)]

    @classmethod
    def range(cls, name: str) -> Range:
        return cls._metadata(name)["range"]

    @classmethod
    def choices(cls, name: str) -> tuple[str, ...]:
        return cls._metadata(name)["choices"]

    @classmethod
    def purpose(cls, name: str) -> str:
        """What a setting is for."""
        return cls._metadata(name)["help"]

    @classmethod
    def help(cls, name: str) -> str:
        """What a setting is for, and its default, as the command line says it."""
        default = getattr(cls, name)
        shown = f"{default:g}" if isinstance(default, float) else "the model's own" if default is None else str(default)
        if isinstance(default, tuple):
            shown = ", ".join(map(str, default)) or "none"
        return f"{cls.purpose(name)} ({shown})".strip()

    @classmethod
    def _metadata(cls, name: str) -> Mapping[str, Any]:
        return next(each.metadata for each in fields(cls) if each.name == name)

    @classmethod
    def of(cls, options: dict[str, Any]):
        """Settings from keywords. Raises `JoyImageError` for one that does not exist, and as when they are made."""
        names = cls.names()
        for name in options:
            if name not in names:
                near = get_close_matches(name, names, 1)
                meant = f"; did you mean {near[0]}?" if near else f"; there are {', '.join(names)}"
                raise JoyImageError(f"there is no option {name!r}{meant}")
        return cls(**options)


@dataclass(frozen=True, kw_only=True)
class Shortcuts(Settings):
    """What saves forwards of the network, each off by default: then results are equal to the bit.

    Evaluations are the solver's calls for a velocity: one per step, two with heun. `preset` fills what is left off,
    and what is not off goes before it: the fields say what holds. See `joyimage.shortcuts` and `joyimage.caching`.
    Raises `JoyImageError` for a value that cannot be used, naming it.
    """

    forecast: int = number(1, 1, 10, help="compute the velocity at every n-th evaluation, forecast it in between")
    guidance_every: int = number(1, 1, 10, help="run the unconditional pass at every n-th computed evaluation only")
    reference_every: int = number(1, 1, 40, help="compute keys and values of the references at every n-th forward only")
    block_cache: float = number(0.0, 0.0, 1.0, 0.01, help="change of the first block below which the others are reused")
    preset: str = choice("exact", tuple(PRESETS), help=f"{' or '.join(PRESETS)}: what saves forwards")

    def __post_init__(self):
        check_shortcuts(self.forecast, self.guidance_every, self.reference_every, self.block_cache)
        check_preset(self.preset)
        for name, value in PRESETS[self.preset].items():
            if name not in self.shortcuts:
                object.__setattr__(self, name, value)  # frozen for all others

    @property
    def shortcuts(self) -> dict[str, float]:
        """Those that are not off, by name."""
        values = {name: getattr(self, name) for name in SHORTCUTS}
        return {name: value for name, value in values.items() if value != getattr(Shortcuts, name)}


SHORTCUTS = tuple(name for name in Shortcuts.names() if name != "preset")


@dataclass(frozen=True)
class Sampling(Shortcuts):
    """How noise becomes a picture. `sigmas` or `timesteps` replace `steps`, `shift` and `schedule`; `steps` and `shift`
    of None are the model's own. `Shortcuts` are among its options.

    Raises `JoyImageError` for a value that cannot be used, naming it.
    """

    steps: int | None = number(None, 1, 1000, help="denoising steps; 40 for the published models")
    guidance_scale: float = number(4.0, 1.0, 30.0, 0.1, help="1 or less turns guidance off")
    rescale: float = number(1.0, 0.0, 1.0, 0.05, help="guidance rescaling, 0 to 1")
    guidance_interval: tuple[float, float] = given((0.0, 1.0), "sigmas between which guidance acts")
    shift: float | None = number(None, 0.01, 100.0, 0.01, help="shift of the schedule towards noise")
    schedule: str = choice("original", SCHEDULES, help="original or diffusers")
    sigmas: Sequence[float] | None = given(None, "own noise levels instead of a schedule")
    timesteps: Sequence[float] | None = given(None, "the same in thousandths")
    solver: str = choice("euler", SOLVERS, help="euler, heun, dpmpp_2m or unipc")
    strength: float = number(1.0, 0.01, 1.0, 0.01, help="below 1, start from the picture itself")

    def __post_init__(self):
        super().__post_init__()
        steps = NATIVE_STEPS if self.steps is None else self.steps
        check_schedule(steps, NATIVE_SHIFT if self.shift is None else self.shift, self.schedule)
        check_guidance(self.guidance_scale, self.rescale, self.guidance_interval)
        if self.sigmas is not None or self.timesteps is not None:
            check_levels(self.sigmas, self.timesteps)
        check_solver(self.solver)
        check_strength(self.strength)


@dataclass(frozen=True)
class Answering(Settings):
    """How an answer's words are drawn. Raises `JoyImageError` for a value that cannot be used, naming it."""

    max_new_tokens: int = number(2048, 1, 32768, help="length of the answer")
    temperature: float = number(0.7, 0.0, 2.0, 0.05, help="0 takes the likeliest word always")
    top_p: float = number(0.8, 0.01, 1.0, 0.01)
    top_k: int = number(50, 0, 1000)
    seed: int = number(0, 0, SEEDS - 1)

    def __post_init__(self):
        checks = {
            "max_new_tokens": (whole(self.max_new_tokens) and self.max_new_tokens >= 1, "at least 1"),
            "temperature": (finite(self.temperature) and self.temperature >= 0, "0 (greedy) or more"),
            "top_p": (finite(self.top_p) and 0 < self.top_p <= 1, "above 0 and at most 1 (no limit)"),
            "top_k": (whole(self.top_k) and self.top_k >= 0, "0 (no limit) or more"),
        }
        for name, (valid, wanted) in checks.items():
            if not valid:
                raise JoyImageError(f"{name} is {getattr(self, name)} and must be {wanted}")
        check_seed(self.seed)


def check_text(name: str, text: Any) -> None:
    """Raise `JoyImageError` unless `text` is a string that can be written as UTF-8; no tokenizer takes another."""
    if not isinstance(text, str):
        raise JoyImageError(f"{name} must be text, not {type(text).__name__}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise JoyImageError(
            f"{name} holds {text[error.start]!a} at place {error.start + 1}, which is no character: "
            "half of a pair, or a byte of another encoding than UTF-8"
        ) from None


def whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def finite(value: Any) -> bool:
    try:
        return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # a whole number that no float holds
        return False


def check_schedule(steps: int, shift: float, kind: str = SCHEDULES[0]) -> None:
    """Raise `JoyImageError` for steps, a shift or a schedule that cannot be used."""
    check_steps(steps)
    check_shift(shift)
    if kind not in SCHEDULES:
        raise JoyImageError(f"unknown schedule {kind!r}; choose one of {', '.join(SCHEDULES)}")


def check_steps(steps: int) -> None:
    """Raise `JoyImageError` for a number of steps that is not whole, below 1 or above `MAX_STEPS`."""
    if not whole(steps) or steps < 1:
        raise JoyImageError(f"steps is {steps!r:.40}; give a whole number of at least 1")
    if steps > MAX_STEPS:
        raise JoyImageError(f"steps is {steps!r:.40}; give at most {MAX_STEPS:,}")


def check_shift(shift: float) -> None:
    """Raise `JoyImageError` for a shift that is not a positive number."""
    if not finite(shift) or shift <= 0:
        raise JoyImageError(f"shift is {shift!r:.40}; give a positive number (the published model's is {NATIVE_SHIFT})")


def check_guidance(scale: float, rescale: float, interval: tuple[float, float]) -> None:
    """Raise `JoyImageError` for guidance that cannot be used: not finite, or outside [0, 1]."""
    if not finite(scale):
        raise JoyImageError(f"guidance scale is {scale}; give a finite number (1 or less turns guidance off)")
    if not finite(rescale) or not 0 <= rescale <= 1:
        raise JoyImageError(f"guidance rescale is {rescale}; it must lie in [0, 1]")
    try:
        low, high = interval
        good = 0 <= low <= high <= 1
    except (TypeError, ValueError):
        good = False
    if not good:
        raise JoyImageError(f"guidance interval is {interval}; it needs 0 <= low <= high <= 1, in sigmas")


def check_shortcuts(forecast: int, guidance_every: int, reference_every: int = 1, block_cache: float = 0.0) -> None:
    """Raise `JoyImageError` for a shortcut that cannot be used: a number n that is not whole or below 1, or a threshold
    below 0.
    """
    counts = {"forecast": forecast, "guidance_every": guidance_every, "reference_every": reference_every}
    for name, count in counts.items():
        if not whole(count) or count < 1:
            raise JoyImageError(f"{name} is {count!r}; give a whole number of at least 1 (1 turns it off)")
    if not finite(block_cache) or block_cache < 0:
        raise JoyImageError(f"block_cache is {block_cache!r}; give a number of at least 0 (0 turns it off)")


def check_preset(preset: str) -> None:
    """Raise `JoyImageError` for a preset that does not exist."""
    if preset not in tuple(PRESETS):  # which need not be hashable
        raise JoyImageError(f"unknown preset {preset!r}; choose one of {', '.join(PRESETS)}")


def check_levels(sigmas: Sequence[float] | None, timesteps: Sequence[float] | None) -> list[float]:
    """Given noise levels as sigmas that end at 0, exact as they were given.

    Raises `JoyImageError` unless exactly one of the two is given, or if there is no step in it, or a value is not
    finite, out of range or not below the one before.
    """
    if sigmas is not None and timesteps is None:
        name, values, top = "sigmas", sigmas, 1
    elif timesteps is not None and sigmas is None:
        name, values, top = "timesteps", timesteps, TRAINING_STEPS
    else:
        raise JoyImageError("a custom schedule takes either sigmas or timesteps, exactly one of them")
    try:
        levels = [float(value) for value in values]
    except (TypeError, ValueError, OverflowError, RuntimeError):  # the last from a tensor of more than one dimension
        raise JoyImageError(f"{name}: {values!r} is not a list of falling levels; give at least one above 0") from None
    if levels and levels[-1] > 0:
        levels.append(0.0)
    check_falling(levels, name, top)
    return [level / top for level in levels]


def check_falling(levels: Sequence[float], name: str = "sigmas", top: float = 1) -> None:
    """Raise `JoyImageError` for levels that do not fall, from at most `top` to at least 0."""
    if len(levels) < 2:
        raise JoyImageError(f"{name}: {list(levels)} is not a list of falling levels; give at least one above 0")
    bad = [level for level in levels if not 0 <= level <= top]  # NaN compares false too
    if bad:
        raise JoyImageError(f"{name}: {bad[0]:g} is out of range; all must lie in [0, {top:g}]")
    for place, (before, after) in enumerate(pairwise(levels), 1):
        if not after < before:
            raise JoyImageError(f"{name} must fall: {before:g} is followed by {after:g} at place {place}")


def check_solver(solver: str) -> None:
    """Raise `JoyImageError` for a solver that does not exist."""
    if solver not in SOLVERS:
        raise JoyImageError(f"unknown solver {solver!r}; choose one of {', '.join(SOLVERS)}")


def check_strength(strength: float) -> None:
    """Raise `JoyImageError` for a strength outside (0, 1]."""
    if not finite(strength) or not 0 < strength <= 1:
        raise JoyImageError(f"strength is {strength}; it must be above 0 and at most 1")


def check_seed(seed: int) -> None:
    """Raise `JoyImageError` for a seed that is not a whole number in [0, 2^64)."""
    if not whole(seed) or not 0 <= seed < SEEDS:
        raise JoyImageError(f"seed is {seed!r}; give a whole number from 0 to 2^64 - 1")


def check_outpaint(sides: Sequence[int]) -> tuple[int, int, int, int]:
    """The pixels to add on the left, at the top, on the right and at the bottom.

    Raises `JoyImageError` unless they are four whole numbers from 0 to `MAX_SIDE`, one of them above 0.
    """
    try:
        left, top, right, bottom = sides
    except (TypeError, ValueError):
        raise JoyImageError(f"outpaint is {sides!r:.60}; give the pixels to add: left, top, right, bottom") from None
    given = left, top, right, bottom
    if not all(isinstance(side, numbers.Integral) and not isinstance(side, bool) for side in given):
        raise JoyImageError(f"outpaint is {sides!r:.60}; give whole numbers of pixels")
    if min(given) < 0 or max(given) > MAX_SIDE:
        raise JoyImageError(f"outpaint is {sides!r:.60}; each side gets from 0 to {MAX_SIDE} pixels")
    if not any(given):
        raise JoyImageError("outpaint adds nothing: give at least one side more than 0 pixels")
    return int(left), int(top), int(right), int(bottom)


def check_attention(name: str) -> None:
    """Raise `JoyImageError` for an attention that does not exist."""
    if name not in ATTENTIONS:
        raise JoyImageError(f"unknown attention {name!r}; choose one of {', '.join(ATTENTIONS)}")


def check_products(kind: str) -> None:
    """Raise `JoyImageError` for a kind of products that does not exist."""
    if kind not in PRODUCTS:
        raise JoyImageError(f"unknown products {kind!r}; choose one of {', '.join(PRODUCTS)}")


def check_theta(theta: float) -> None:
    """Raise `JoyImageError` for a base of the rotary embedding that is not a finite number above 1."""
    if not finite(theta) or theta <= 1:
        raise JoyImageError(f"theta is {theta!r}; give a number above 1: 10000 for JoyAI-Image, 256 for SpatialEdit")


def check_output(output: str, count: int) -> None:
    """Raise `JoyImageError` for a form of output that does not exist, and for a count below 1 or above `MAX_COUNT`."""
    if output not in OUTPUTS:
        raise JoyImageError(f"unknown output {output!r}; choose one of {', '.join(OUTPUTS)}")
    if not whole(count) or count < 1:
        raise JoyImageError(f"count is {count!r}; give a whole number of pictures, at least 1")
    if count > MAX_COUNT:
        raise JoyImageError(f"count is {count!r:.40}; give at most {MAX_COUNT:,}")


def check_batch_size(size: int) -> None:
    """Raise `JoyImageError` for a batch size that is not a whole number of at least 1."""
    if not whole(size) or size < 1:
        raise JoyImageError(f"batch_size is {size!r}; give a whole number of samples that share a forward, at least 1")


def check_base_size(base_size: int | str | None) -> None:
    """Raise `JoyImageError` for a base size that is neither "auto", None nor one that the models know."""
    if isinstance(base_size, str) and base_size != AUTO:
        sizes = ", ".join(map(str, BASE_SIZES))
        raise JoyImageError(f'base size {base_size!r} is neither "auto" nor one of the numbers {sizes}, nor None')
    if base_size not in (None, AUTO, *BASE_SIZES):
        raise JoyImageError(f"base size {base_size} is not one of {', '.join(map(str, BASE_SIZES))}")
