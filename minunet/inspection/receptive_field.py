"""Receptive fields, exactly: which input pixels an output pixel depends on.

Along one axis every pixel p of a layer depends on an interval [low(p), high(p)] of the network's input. A window with stride s,
dilation d, kernel k and padding b in front takes the layer before from s·p − b to s·p − b + d·(k−1); a concatenation takes the
hull of its parts; and so on from the input to the output.

After upsampling the interval's length depends on where p lies in the coarse grid, so the textbook sum of (k−1)·jump over the layers is
wrong there: UNet's output pixels see 188 or 204 pixels, by their phase, where that sum says 200. What does hold is a period: P
pixels further on, everything is the same, A input pixels further on. So low and high of one period tell all of an endless axis,
free of borders: padding counts as pixels here, and near an image's edge a part of the field lies outside.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

Interval = tuple[int, int]


@dataclass(frozen=True)
class Reach:
    """The input interval that pixel p depends on: intervals[p mod period], moved by advance for each whole period."""

    advance: int
    intervals: tuple[Interval, ...]

    @property
    def period(self) -> int:
        return len(self.intervals)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The field's sizes over the phases, each once, ascending: (188, 204) for UNet's output."""
        return tuple(sorted({high - low + 1 for low, high in self.intervals}))

    @property
    def jump(self) -> float:
        """The distance of neighbouring pixels, in input pixels: 16 in the bottleneck of a UNet of depth 4."""
        return self.advance / self.period

    def __call__(self, p: int) -> Interval:
        periods, phase = divmod(p, self.period)
        low, high = self.intervals[phase]
        return low + periods * self.advance, high + periods * self.advance

    def through(self, needs: Callable[[int], Interval], *, up: int = 1, down: int = 1) -> Reach:
        """The reach behind a layer whose pixel p needs the pixels needs(p) of this one, where `up` pixels on in the layer's output
        are `down` pixels on in its input: (1, stride) for a window, (stride, 1) for a transposed convolution."""
        moves = self.period // math.gcd(self.period, down)  # after so many moves of `down` pixels our phases begin anew
        taken = [needs(p) for p in range(up * moves)]
        return Reach(self.advance * down * moves // self.period, tuple(self._hull(low, high) for low, high in taken))

    def _hull(self, low: int, high: int) -> Interval:
        """What the pixels from low to high depend on: more than the two ends, because phases differ."""
        intervals = [self(p) for p in range(low, high + 1)]
        return min(low for low, _ in intervals), max(high for _, high in intervals)

    def window(self, kernel: int, stride: int, dilation: int, before: int) -> Reach:
        """Behind a convolution or a pooling."""

        def needs(p: int) -> Interval:
            first = stride * p - before
            return first, first + dilation * (kernel - 1)

        return self.through(needs, down=stride)

    def transposed_window(self, kernel: int, stride: int, dilation: int, front: int) -> Reach | None:
        """Behind a transposed convolution that crops `front` pixels: pixel p takes i where p + front = stride·i + dilation·tap.
        None where some pixels take nothing (a kernel shorter than the stride)."""
        taps = [dilation * t for t in range(kernel)]
        sources = [[(p + front - t) // stride for t in taps if (p + front - t) % stride == 0] for p in range(stride)]
        if not all(sources):
            return None
        return self.through(lambda p: (min(sources[p % stride]) + p // stride, max(sources[p % stride]) + p // stride), up=stride)

    def upsampled(self, factor: int, linear: bool) -> Reach:
        """Behind interpolation by a whole factor: nearest takes ⌊p/factor⌋, linear the two around (p + ½)/factor − ½."""

        def needs(p: int) -> Interval:
            if not linear:
                return p // factor, p // factor
            low, rest = divmod(2 * p + 1 - factor, 2 * factor)
            return low, low + (rest > 0)

        return self.through(needs, up=factor)

    def shifted(self, by: int) -> Reach:
        """Behind a crop (by > 0: its first pixel) or a padding (by < 0)."""
        return self.through(lambda p: (p + by, p + by))


PIXEL = Reach(1, ((0, 0),))  # the input sees itself


def union(reaches: list[Reach]) -> Reach | None:
    """Behind a concatenation or a sum: the hull of all parts. None where they do not run at the same pace."""
    first, period = reaches[0], math.lcm(*(r.period for r in reaches))
    if any(r.advance * first.period != first.advance * r.period for r in reaches):
        return None
    hulls = [[r(p) for r in reaches] for p in range(period)]
    intervals = tuple((min(low for low, _ in hull), max(high for _, high in hull)) for hull in hulls)
    return Reach(first.advance * period // first.period, intervals)
