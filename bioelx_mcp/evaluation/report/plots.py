"""Small plots as SVG text: bars by language, recall curves, reliability. Colours are the page's CSS variables.

They are 360 units wide, what a phone shows; numbers are in percent unless said otherwise.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

_WIDTH, _LEFT, _RIGHT = 360, 62, 14
_ROW = 9


@dataclass(frozen=True)
class Bar:
    """A value of one series, its interval, and the text that is shown on touch."""

    value: float | None
    low: float | None
    high: float | None
    title: str


@dataclass(frozen=True)
class Point:
    x: float
    y: float
    title: str


def bar_chart(
    label: str,
    groups: Sequence[tuple[str, Sequence[Bar]]],
    marks: Sequence[tuple[str, Bar]] = (),
    *,
    most: float = 100.0,
) -> Markup:
    """Horizontal bars up to `most`: a group a language, a bar a series; `marks` are diamonds beside a group."""

    def x(value: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * min(max(value, 0), most) / most

    top, height = 4.0, 4.0
    parts: list[Markup] = []
    for name, bars in groups:
        middle = height + len(bars) * _ROW / 2 + 3
        parts.append(_text(_LEFT - 6, middle, name, anchor="end"))
        for series, bar in enumerate(bars):
            y = height + series * _ROW
            if bar.value is not None:
                width = max(x(bar.value) - _LEFT, 0)
                parts.append(
                    _tag(
                        "rect",
                        bar.title,
                        x=_LEFT,
                        y=y,
                        width=width,
                        height=_ROW - 1.5,
                        class_=f"s{series % 6}",
                    )
                )
                if bar.low is not None and bar.high is not None:
                    path = f"M{x(bar.low):.1f} {y + 3.75}H{x(bar.high):.1f}"
                    parts.append(_tag("path", d=path, class_="whisker"))
        for place, mark in marks:
            if place == name and mark.value is not None:
                y = height + len(bars) * _ROW / 2
                path = f"M{x(mark.value):.1f} {y - 5}l5 5-5 5-5-5z"
                parts.append(_tag("path", mark.title, d=path, class_="published"))
        height += len(bars) * _ROW + 7
    grid = [
        _tag("path", d=f"M{x(tick):.1f} {top}V{height}", class_="grid")
        + _text(
            x(tick), height + 12, f"{tick:,.0f}" if most >= 10 else f"{tick:.3g}", anchor="middle"
        )
        for tick in (0.0, most / 4, most / 2, most * 3 / 4, most)
    ]
    return _svg(label, height + 18, [*grid, *parts])


def line_chart(
    label: str, series: Sequence[tuple[str, Sequence[Point]]], ticks: Sequence[float]
) -> Markup:
    """Lines over a logarithmic axis that begins at 1; each series has the CSS classes that it names."""
    from math import log

    height = 220
    last = max([*ticks, 2])

    def x(value: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * log(value) / log(last)

    def y(value: float) -> float:
        return 8 + (height - 16) * (1 - value / 100)

    parts = [
        _tag("path", d=f"M{_LEFT} {y(tick):.1f}H{_WIDTH - _RIGHT}", class_="grid")
        + _text(_LEFT - 6, y(tick) + 4, f"{tick}", anchor="end")
        for tick in (0, 25, 50, 75, 100)
    ]
    parts += [_text(x(tick), height + 8, f"{tick:g}", anchor="middle") for tick in ticks]
    for classes, points in series:
        path = "M" + "L".join(f"{x(point.x):.1f} {y(point.y):.1f}" for point in points)
        parts.append(_tag("path", d=path, class_=f"line {classes}"))
        parts += [
            _tag("circle", point.title, cx=x(point.x), cy=y(point.y), r=3, class_=classes)
            for point in points
        ]
    return _svg(label, height + 14, parts)


def reliability_chart(label: str, series: Sequence[tuple[str, Sequence[Point]]]) -> Markup:
    """Accuracy over confidence, both in [0, 1]; on the diagonal the scores are probabilities. Classes as above."""
    size = 240

    def x(value: float) -> float:
        return _LEFT + size * value

    def y(value: float) -> float:
        return 8 + size * (1 - value)

    parts = [_tag("path", d=f"M{x(0)} {y(0)}L{x(1)} {y(1)}", class_="grid diagonal")]
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        parts.append(_tag("path", d=f"M{x(0)} {y(tick)}H{x(1)}", class_="grid"))
        parts.append(_text(_LEFT - 6, y(tick) + 4, f"{tick:g}", anchor="end"))
        parts.append(_text(x(tick), size + 22, f"{tick:g}", anchor="middle"))
    for classes, points in series:
        path = "M" + "L".join(f"{x(point.x):.1f} {y(point.y):.1f}" for point in points)
        parts.append(_tag("path", d=path, class_=f"line {classes}"))
        parts += [
            _tag("circle", p.title, cx=x(p.x), cy=y(p.y), r=4, class_=classes) for p in points
        ]
    return _svg(label, size + 28, parts)


def _text(x: float, y: float, text: str, *, anchor: str) -> Markup:
    return Markup('<text x="{}" y="{}" text-anchor="{}">{}</text>').format(
        f"{x:.1f}", f"{y:.1f}", anchor, text
    )


def _tag(name: str, title: str = "", **attributes: object) -> Markup:
    told = Markup("").join(
        Markup(' {}="{}"').format(
            key.rstrip("_"), f"{value:.1f}" if isinstance(value, float) else value
        )
        for key, value in attributes.items()
    )
    inside = Markup("<title>{}</title>").format(title) if title else Markup("")
    return Markup("<") + escape(name) + told + Markup(">") + inside + Markup(f"</{name}>")  # noqa: S704


def _svg(label: str, height: float, parts: Sequence[Markup]) -> Markup:
    return Markup(
        '<svg viewBox="0 0 {} {}" role="img" aria-label="{}" xmlns="http://www.w3.org/2000/svg">{}</svg>'
    ).format(_WIDTH, f"{height:.0f}", label, Markup("").join(parts))
