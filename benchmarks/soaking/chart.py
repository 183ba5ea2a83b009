"""The picture of a soak: an SVG file."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle

Points = Sequence[tuple[float, float]]

_WIDTH, _LEFT, _RIGHT = 760, 60, 20
_HEIGHT, _GAP = 150, 46
"""Of each diagram in the picture."""


def chart(
    diagrams: Sequence[tuple[str, Sequence[tuple[str, str, Points]]]], minutes: float, marks: Sequence[float]
) -> str:
    """Diagrams, one below the other, over the same minutes.

    Args:
        diagrams: a title, and lines: what each is, its color and its points (minute, value).
        minutes: how long it took.
        marks: minutes at which something happened that all should see.
    """
    height = len(diagrams) * (_HEIGHT + _GAP) + 30
    svg = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
        'font-family="sans-serif" font-size="12" fill="#333">',
        f'<rect width="{_WIDTH}" height="{height}" fill="#fff"/>',
    ]
    for number, (title, lines) in enumerate(diagrams):
        top = number * (_HEIGHT + _GAP) + 30
        svg += _diagram(title, lines, minutes, marks, top)
    svg.append(f'<text x="{_WIDTH - _RIGHT}" y="{height - 6}" text-anchor="end">minutes</text>')
    return "\n".join([*svg, "</svg>\n"])


def _diagram(
    title: str, lines: Sequence[tuple[str, str, Points]], minutes: float, marks: Sequence[float], top: float
) -> list[str]:
    highest = max(y for _, _, points in lines for _, y in points)
    step, digits = 1, cycle((2, 2.5, 2))
    while highest / step > 5:
        step = round(step * next(digits))
    most = int(highest // step + 1) * step

    def x_of(minute: float) -> float:
        return _LEFT + minute / minutes * (_WIDTH - _LEFT - _RIGHT)

    def y_of(value: float) -> float:
        return top + _HEIGHT * (1 - value / most)

    svg = [f'<text x="{_LEFT}" y="{top - 8}" font-weight="bold">{title}</text>']
    x: float = _WIDTH - _RIGHT
    for what, color, _ in reversed(lines):
        svg.append(f'<text x="{x:g}" y="{top - 8}" text-anchor="end" fill="{color}">{what}</text>')
        x -= 7 * len(what) + 14
    for value in range(0, most + 1, step):
        y = round(y_of(value))
        svg.append(f'<path d="M{_LEFT} {y}H{_WIDTH - _RIGHT}" stroke="#ddd"/>')
        svg.append(f'<text x="{_LEFT - 6}" y="{y + 4}" text-anchor="end">{value}</text>')
    for number in range(0, int(minutes) + 1, 5):
        svg.append(
            f'<text x="{x_of(number):.1f}" y="{top + _HEIGHT + 16}" text-anchor="middle">{number}</text>'
        )
    for minute in marks:
        svg.append(f'<path d="M{x_of(minute):.1f} {top}v{_HEIGHT}" stroke="#bbb" stroke-dasharray="2 3"/>')
    for _, color, points in lines:
        path = "L".join(f"{x_of(x):.1f} {y_of(y):.1f}" for x, y in points)
        svg.append(f'<path d="M{path}" fill="none" stroke="{color}" stroke-width="1.5"/>')
    return svg
