"""Fewer forwards: velocities that are forecast, and guidance that is reused, in place of what the network computes.

Both count evaluations of one run: a solver asks for a velocity once per step (`heun` twice), at sigmas that never
rise. Whatever they keep belongs to that run and its batch, so a run makes them anew.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import torch
from torch import Tensor

from .settings import Shortcuts


class Forecast:
    """The velocity computed at every `every`-th evaluation, and in between on the line through the last two computed.

    The line is linear in sigma. With evaluations counted from 0, those computed are 0 and 1, every multiple of
    `every`, and what lies at `last` or below, the sigma of the last step: with 40 steps on the bundled model that
    brings 1.2 dB where every 2nd is computed, and 4 dB where every 4th is. Computed are also those that the line does
    not reach: while it goes through fewer than two sigmas (two evaluations at one sigma, as in `heun`, give one point),
    and farther than `every` times as far as its two points lie apart, as where own sigmas fall slowly and then fast.

    A `regime` says what a velocity consists of, as whether guidance acts. Where it changes, and where sigma rises, what
    was computed before is forgotten and the count begins at 0 again.
    """

    def __init__(self, every: int, last: float = 0.0):
        self.every = every
        self.last = last
        self._regime: Hashable = None
        self._count = 0
        self._points: list[tuple[float, Tensor]] = []  # (sigma, velocity), the newest last

    def velocity(self, sigma: float, compute: Callable[[], Tensor], regime: Hashable = None) -> Tensor:
        """The velocity at `sigma`: computed in its own dtype, or forecast in float32."""
        if self.every == 1:
            return compute()
        if regime != self._regime or (self._points and sigma > self._points[-1][0]):
            self._regime, self._count, self._points = regime, 0, []
        count, self._count = self._count, self._count + 1
        if count > 1 and count % self.every and sigma > self.last and self._reaches(sigma):
            (before, first), (after, second) = self._points
            return second + (sigma - after) / (after - before) * (second - first)
        velocity = compute()
        self._points = [*[point for point in self._points if point[0] != sigma][-1:], (sigma, velocity.float())]
        return velocity

    def _reaches(self, sigma: float) -> bool:
        if len(self._points) < 2:
            return False
        (before, _), (after, _) = self._points
        return abs(sigma - after) <= self.every * abs(after - before)


class Trajectory:
    """Whether a run still goes where its velocities lead: not where a sampler adds noise between its evaluations.

    Fresh noise changes the velocity at once, so no line through what came before says what it is.
    """

    def __init__(self):
        self._steps: list[float] = []  # lengths of the last two steps, in sigma
        self._last: tuple[float, Tensor, Tensor] | None = None  # sigma, x, velocity

    def left(self, sigma: float, x: Tensor) -> bool:
        """Whether `x` lies farther from where the last velocity leads than that way is long.

        Between two evaluations at one sigma, as those of predictor and corrector, the way is that of the step before.
        """
        if self._last is None:
            return False
        before, start, velocity = self._last
        self._steps = [*self._steps[-1:], abs(sigma - before)]
        aside = torch.linalg.vector_norm(x.float() - start - (sigma - before) * velocity)
        return bool(aside > max(self._steps) * torch.linalg.vector_norm(velocity))

    def went(self, sigma: float, x: Tensor, velocity: Tensor) -> None:
        self._last = sigma, x.float(), velocity.float()


class GuidanceReuse:
    """Both passes of guidance at every `every`-th call, and in between the conditional one alone.

    The unconditional velocity is then the conditional one less the difference of the two in the last call that ran
    both. Calls are counted from 0, and only those that compute a guided velocity: not what is forecast, nor what lies
    outside the guidance interval. At 1 every call runs both.

    A `regime` says what the two consist of, as which prompts are active. Where it changes the count begins at 0 again.
    """

    def __init__(self, every: int):
        self.every = every
        self._regime: Hashable = None
        self._count = 0
        self._difference: Tensor | None = None  # of the velocities, float32

    def passes(
        self, run: Callable[[bool], Sequence[Tensor]], unit: float = 1.0, regime: Hashable = None
    ) -> tuple[Tensor, Tensor]:
        """The conditional and the unconditional result, as `run(True)` gives both and `run(False)` the first alone.

        Results are velocities times `unit`, which may differ from call to call: minus sigma for denoised estimates.
        """
        if self.every == 1:
            cond, uncond = run(True)
            return cond, uncond
        if regime != self._regime:
            self._regime, self._count = regime, 0
        count, self._count = self._count, self._count + 1
        if self._difference is None or count % self.every == 0:
            cond, uncond = run(True)
            self._difference = (cond.float() - uncond.float()) / unit
            return cond, uncond
        cond = run(False)[0]
        return cond, cond.float() - unit * self._difference


def passes(shortcuts: Shortcuts, sigmas: Sequence[float]) -> int:
    """How many passes through the network a guided run of one velocity per step takes, of two for each step.

    `sigmas` are its levels, the last one included. What `block_cache` leaves out is not among it: that depends on the
    picture.
    """
    *starts, _ = sigmas
    forecasts, reuse = Forecast(shortcuts.forecast, last=starts[-1]), GuidanceReuse(shortcuts.guidance_every)
    run, nothing = [0], torch.zeros(())

    def pair(both: bool) -> Sequence[Tensor]:
        run[0] += 1 + both
        return [nothing, nothing]

    for sigma in starts:
        forecasts.velocity(sigma, lambda: reuse.passes(pair)[0])
    return run[0]
