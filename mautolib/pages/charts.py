"""Charts as SVG text: rendered here, sharp at any size, coloured by the page's style sheet, no script.

Pure functions: numbers in, markup out. Called by `overview`. A chart drawn for a wide screen would have tiny letters
on a phone, so a chart has a width and the page carries two of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from xml.sax.saxutils import escape

__all__ = ["Bar", "bars", "meter", "nice_top"]

_LEFT, _TOP, _BOTTOM = 44, 12, 26
_TICKS = 4
_MONTH_WIDTH = 34


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One bar: the first day of its week and its height."""

    start: date
    value: int


def nice_top(largest: int) -> int:
    """The top of the axis: the smallest round number at or above `largest` whose quarters are whole."""
    if largest <= _TICKS:
        return _TICKS
    power = int(10 ** math.floor(math.log10(largest)))
    for tenths in (10, 12, 16, 20, 24, 28, 32, 40, 48, 60, 80, 100):
        top = tenths * power // 10
        if top >= largest and top % _TICKS == 0:
            return top
    return -(-largest // _TICKS) * _TICKS


def bars(data: Sequence[Bar], *, width: int, height: int, title: str) -> str:
    """A bar per week, with a grid, numbers at the left and months below.

    Args:
        title: read out by screen readers; each bar has its own text too.
    """
    top = nice_top(max((bar.value for bar in data), default=0))
    plot_width, plot_height = width - _LEFT - 4, height - _TOP - _BOTTOM
    step = plot_width / max(1, len(data))
    parts = [
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" class="chart">',
        f"<title>{escape(title)}</title>",
    ]
    for tick in range(_TICKS + 1):
        y = _TOP + plot_height * (1 - tick / _TICKS)
        line = "axis" if tick == 0 else "grid"
        parts.append(f'<line class="{line}" x1="{_LEFT}" x2="{width - 4}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="label end" x="{_LEFT - 8}" y="{y + 4:.1f}">{_short(top * tick // _TICKS)}</text>')
    for index, bar in enumerate(data):
        tall = plot_height * bar.value / top
        x, y = _LEFT + step * index, _TOP + plot_height - tall
        rect = f'x="{x + step * 0.14:.1f}" y="{y:.1f}" width="{step * 0.72:.1f}" height="{tall:.1f}"'
        parts.append(f'<rect class="bar" rx="2" {rect}><title>{_week(bar)}</title></rect>')
    parts += _months(data, step, height - 8)
    return "".join([*parts, "</svg>"])


def meter(percent: float, kind: str) -> str:
    """A thin horizontal bar filled to `percent` (0 to 100); `kind` is its class."""
    filled = min(100.0, max(0.0, percent))
    return (
        '<svg class="meter" viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">'
        '<rect class="track" width="100" height="8"/>'
        f'<rect class="{kind}" width="{filled:.2f}" height="8"/></svg>'
    )


def _months(data: Sequence[Bar], step: float, y: float) -> list[str]:
    """The name of each month under the first week that begins in it, as far apart as they can be read."""
    begins = [i for i, bar in enumerate(data) if i == 0 or bar.start.month != data[i - 1].start.month]
    if len(begins) > 1 and (begins[1] - begins[0]) * step < _MONTH_WIDTH:
        begins = begins[1:]  # the rest of a month at the left edge gives way to the first whole one
    parts, free_from = [], 0.0
    for index in begins:
        bar, x = data[index], _LEFT + step * index
        if x >= free_from and x + _MONTH_WIDTH <= _LEFT + step * (len(data) + 1):
            name = bar.start.strftime("%b %Y" if bar.start.month == 1 else "%b")
            parts.append(f'<text class="label" x="{x:.1f}" y="{y:.1f}">{name}</text>')
            free_from = x + _MONTH_WIDTH * (2 if bar.start.month == 1 else 1)
    return parts


def _week(bar: Bar) -> str:
    last = bar.start + timedelta(days=6)
    return f"{bar.start:%d %b} to {last:%d %b %Y}: {bar.value:,}"


def _short(number: int) -> str:
    if number >= 1_000_000:
        return f"{number / 1_000_000:g}M"
    return f"{number / 1000:g}k" if number >= 10_000 else f"{number:,}"
