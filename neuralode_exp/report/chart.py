"""Line charts and scatter plots as SVG text, written by hand so that a report needs no library and no network."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from html import escape

# Okabe and Ito, Color Universal Design (2008), without yellow, which is faint on white. Further lines repeat the
# colours with dashes.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
DASHES = ("", "6 3", "2 2", "8 2 2 2")
WIDTH, HEIGHT = 440, 270
LEFT, RIGHT, TOP, BOTTOM = 58, 10, 26, 40
LOG_RATIO = 30.0  # an axis is logarithmic if largest / smallest value exceeds this

Point = tuple[float, float]


@dataclass(frozen=True)
class Series:
    """One line, or one point with its deviation.

    Args:
        index: number of its group, which decides colour, dashes and the place in the legend.
        label: text that appears when the pointer is over it.
        points: (x, y), in the order of x.
        low, high: lower and upper end of each point's spread; empty for none.
        ends_badly: whether the run was not completed; its line is thin and dotted with a cross at the end.
    """

    index: int
    label: str
    points: Sequence[Point]
    low: Sequence[float] = field(default=())
    high: Sequence[float] = field(default=())
    ends_badly: bool = False


@dataclass(frozen=True)
class Axis:
    """Maps [low, high] to pixels, on a logarithmic scale if the values are positive and span a large ratio."""

    low: float
    high: float
    log: bool
    pixels: tuple[float, float]

    @staticmethod
    def of(values: Iterable[float], pixels: tuple[float, float], *, may_be_log: bool) -> Axis:
        found = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
        low, high = min(found), max(found)
        log = may_be_log and low > 0 and high / low > LOG_RATIO
        if low == high:
            low, high = low - (abs(low) or 1) * 0.1, high + (abs(high) or 1) * 0.1
        return Axis(low, high, log, pixels)

    def __call__(self, value: float) -> float:
        scale: Callable[[float], float] = math.log10 if self.log else float
        if self.log and value <= 0:
            value = self.low
        fraction = (scale(value) - scale(self.low)) / (scale(self.high) - scale(self.low))
        return self.pixels[0] + fraction * (self.pixels[1] - self.pixels[0])

    def ticks(self) -> list[float]:
        """Return powers of ten, with 2 and 5 times them if they are few, or multiples of 1, 2 or 5 times a power."""
        if self.log:
            decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            ticks = [m * 10.0**k for k in decades for m in ((1,) if len(decades) > 3 else (1, 2, 5))]
            return [tick for tick in ticks if self.low <= tick <= self.high]
        rough = (self.high - self.low) / 5
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
        return [i * step for i in range(math.ceil(self.low / step), math.floor(self.high / step) + 1)]


def lines(title: str, x_label: str, series: Sequence[Series]) -> str:
    """Draw curves with their spread."""
    x, y = _axes(series, x_may_be_log=False)
    return _figure(title, x_label, x, y, [_line(one, x, y) for one in series])


def scatter(title: str, x_label: str, series: Sequence[Series]) -> str:
    """Draw points with their spread in y."""
    x, y = _axes(series, x_may_be_log=True)
    return _figure(title, x_label, x, y, [_dot(one, x, y) for one in series])


def history(title: str, x_label: str, dots: Sequence[Series], line: Series) -> str:
    """Draw points and a line through some of them."""
    x, y = _axes([*dots, line], x_may_be_log=False)
    return _figure(title, x_label, x, y, [*(_dot(one, x, y) for one in dots), _line(line, x, y)])


def swatch(index: int) -> str:
    """Draw the line that stands for a group in the legend."""
    return f'<svg width="28" height="10" aria-hidden="true"><path d="M0 5H28" {_stroke(index, 2.5)}/></svg>'


def _axes(series: Sequence[Series], *, x_may_be_log: bool) -> tuple[Axis, Axis]:
    xs = [x for one in series for x, _ in one.points]
    ys = [y for one in series for y in (*(y for _, y in one.points), *one.low, *one.high)]
    x = Axis.of(xs, (LEFT + 6, WIDTH - RIGHT - 6), may_be_log=x_may_be_log)
    return x, Axis.of(ys, (HEIGHT - BOTTOM - 6, TOP + 6), may_be_log=True)


def _line(one: Series, x: Axis, y: Axis) -> str:
    places = [(x(a), y(b)) for a, b in one.points if math.isfinite(b)]
    if not places:
        return ""
    parts = [f"<title>{escape(one.label)}</title>"]
    if one.low:
        upper = [(x(a), y(b)) for (a, _), b in zip(one.points, one.high, strict=True) if math.isfinite(b)]
        lower = [(x(a), y(b)) for (a, _), b in zip(one.points, one.low, strict=True) if math.isfinite(b)]
        band = _path([*upper, *reversed(lower)])
        parts.append(f'<path d="{band}Z" fill="{_colour(one.index)}" fill-opacity="0.15"/>')
    if one.ends_badly:
        parts.append(f'<path d="{_path(places)}" fill="none" stroke="{_colour(one.index)}" stroke-dasharray="1 3"/>')
        parts.append(_cross(places[-1], one.index))
    else:
        parts.append(f'<path d="{_path(places)}" fill="none" {_stroke(one.index, 1.8)}/>')
    return _group(one, parts)


def _dot(one: Series, x: Axis, y: Axis) -> str:
    (value,) = one.points
    if not math.isfinite(value[1]):
        return ""
    a, b = x(value[0]), y(value[1])
    parts = [f"<title>{escape(one.label)}</title>"]
    if one.low:
        parts.append(f'<path d="M{a:.1f} {y(one.low[0]):.1f}V{y(one.high[0]):.1f}" {_stroke(one.index, 1.5)}/>')
    shape = (one.index // len(COLOURS)) % 3
    outline = (
        f'<circle cx="{a:.1f}" cy="{b:.1f}" r="5"',
        f'<rect x="{a - 5:.1f}" y="{b - 5:.1f}" width="10" height="10"',
        f'<path d="M{a:.1f} {b - 6:.1f}l6 11h-12Z"',
    )[shape]
    parts.append(f'{outline} fill="{_colour(one.index)}"/>')
    return _group(one, parts)


def _group(one: Series, parts: list[str]) -> str:
    return f'<g class="g{one.index}">{"".join(parts)}</g>'


def _cross(place: Point, index: int) -> str:
    a, b = place
    return f'<path d="M{a - 4:.1f} {b - 4:.1f}l8 8m0-8l-8 8" stroke="{_colour(index)}" stroke-width="2"/>'


def _path(places: Sequence[Point]) -> str:
    return "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in places)


def _colour(index: int) -> str:
    return COLOURS[index % len(COLOURS)]


def _stroke(index: int, width: float) -> str:
    dashes = DASHES[(index // len(COLOURS)) % len(DASHES)]
    return f'stroke="{_colour(index)}" stroke-width="{width}"' + (f' stroke-dasharray="{dashes}"' if dashes else "")


def _figure(title: str, x_label: str, x: Axis, y: Axis, drawn: list[str]) -> str:
    grid = []
    for tick in x.ticks():
        a = x(tick)
        grid.append(f'<path d="M{a:.1f} {TOP}V{HEIGHT - BOTTOM}"/>')
        grid.append(f'<text x="{a:.1f}" y="{HEIGHT - BOTTOM + 14}" text-anchor="middle">{_tick(tick)}</text>')
    for tick in y.ticks():
        b = y(tick)
        grid.append(f'<path d="M{LEFT} {b:.1f}H{WIDTH - RIGHT}"/>')
        grid.append(f'<text x="{LEFT - 5}" y="{b + 3.5:.1f}" text-anchor="end">{_tick(tick)}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">'
        f'<text class="title" x="{LEFT}" y="15">{escape(title)}</text>'
        f'<g class="grid">{"".join(grid)}</g>'
        f'<text x="{middle}" y="{HEIGHT - 8}" text-anchor="middle">{escape(x_label)}</text>'
        f"{''.join(drawn)}</svg>"
    )


def _tick(value: float) -> str:
    if value and not 1e-3 <= abs(value) < 1e5:
        mantissa, exponent = f"{value:.0e}".split("e")
        return f"{mantissa}e{int(exponent)}"
    return f"{value:.6g}"
