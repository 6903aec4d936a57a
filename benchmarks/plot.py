"""Line plots as small SVG files that need nothing to be seen."""

from __future__ import annotations

import html
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

Series = Mapping[str, Sequence[tuple[float, float]]]

_WIDTH, _HEIGHT = 480, 280
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 16, 34, 46
_COLOURS = ("#1f6feb", "#d9480f", "#2b8a3e", "#862e9c", "#495057")
_TICKS = 5


@dataclass(frozen=True, slots=True)
class Axis:
    """From the smallest to the largest value; the vertical one begins at zero."""

    label: str
    low: float
    high: float
    logarithmic: bool = False

    def share(self, value: float) -> float:
        """Where a value lies, 0 to 1."""
        low, high, at = self.low, self.high, value
        if self.logarithmic:
            low, high, at = math.log(low), math.log(high), math.log(value)
        return (at - low) / (high - low) if high > low else 0.5


def line_plot(title: str, x_label: str, y_label: str, series: Series) -> str:
    """One line for each series; x is logarithmic where its values span more than a factor of eight."""
    xs = sorted({x for points in series.values() for x, _ in points})
    top = _round_up(max(y for points in series.values() for _, y in points))
    across = Axis(x_label, xs[0], xs[-1], logarithmic=xs[0] > 0 and xs[-1] > 8 * xs[0])
    up = Axis(y_label, 0.0, top)
    parts = [*_frame(title, across, up, xs), *_lines(series, across, up)]
    return "\n".join([_open(title), *parts, "</svg>", ""])


def _round_up(value: float) -> float:
    """The next of 1, 2, 2.5, 5 and 10 times a power of ten."""
    power = 10 ** math.floor(math.log10(value)) if value > 0 else 1.0
    return next(step * power for step in (1, 2, 2.5, 5, 10) if step * power >= value)


def _open(title: str) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}"'
    font = 'font-family="sans-serif" font-size="11" role="img"'
    return f"{head} {font}><title>{html.escape(title)}</title>"


def _place(across: Axis, up: Axis, x: float, y: float) -> tuple[float, float]:
    wide, high = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
    return _LEFT + wide * across.share(x), _TOP + high * (1 - up.share(y))


def _text(x: float, y: float, words: str, anchor: str = "middle", more: str = "") -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}"{more}>{html.escape(words)}</text>'


def _frame(title: str, across: Axis, up: Axis, xs: Sequence[float]) -> Iterator[str]:
    yield f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#ffffff"/>'
    yield _text(_WIDTH / 2, 18, title, more=' font-weight="bold"')
    for tick in range(_TICKS + 1):
        value = up.high * tick / _TICKS
        _, y = _place(across, up, across.low, value)
        yield f'<path d="M{_LEFT} {y:.0f}H{_WIDTH - _RIGHT}" stroke="#dee2e6"/>'
        yield _text(_LEFT - 6, y + 4, f"{value:,.4g}" if value < 1000 else f"{value:,.0f}", "end")
    for value in xs:
        x, y = _place(across, up, value, 0.0)
        yield _text(x, y + 16, f"{value:,g}")
    yield _text(_WIDTH / 2, _HEIGHT - 10, across.label)
    middle = _HEIGHT / 2
    yield _text(12, middle, up.label, more=f' transform="rotate(-90 12 {middle:.0f})"')


def _lines(series: Series, across: Axis, up: Axis) -> Iterator[str]:
    for number, (name, points) in enumerate(series.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        places = [_place(across, up, x, y) for x, y in sorted(points)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        yield f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>'
        yield from (f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places)
        if len(series) > 1:
            yield _text(_LEFT + 8, _TOP + 12 + 14 * number, name, "start", f' fill="{colour}"')
