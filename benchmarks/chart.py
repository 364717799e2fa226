"""Draw a bar chart as SVG; equal results give equal bytes. Source: SVG 1.1, "Basic Shapes"."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.figures import CaseResult, Figure

OURS = "#2b6cb0"
OTHERS = "#a0aec0"
_WIDTH = 860
_LEFT = 300
_RIGHT = 150
_BAR = 16
_STEP = 22
_GAP = 40
_TOP = 34


@dataclass(frozen=True)
class Bar:
    label: str
    value: float
    caption: str
    ours: bool


def throughput_chart(cases: Sequence[CaseResult]) -> str:
    """A group of bars for each case that has a baseline; lengths are ratios to it.

    All groups have one scale, so that bars may be compared across cases.
    """
    groups = [
        (case.name, [bar for bar in map(_bar, case.figures) if bar is not None])
        for case in cases
        if any(figure.ratio is not None for figure in case.figures)
    ]
    longest = max((bar.value for _, bars in groups for bar in bars), default=1.0)
    parts: list[str] = []
    y = _TOP
    for name, bars in groups:
        parts.append(_text(8, y, name, "bold"))
        for bar in bars:
            y += _STEP
            width = max(1.0, (_WIDTH - _LEFT - _RIGHT) * bar.value / longest)
            colour = OURS if bar.ours else OTHERS
            parts.append(_text(_LEFT - 8, y, bar.label, anchor="end"))
            parts.append(
                f'<rect x="{_LEFT}" y="{y - _BAR + 4}" width="{width:.1f}" height="{_BAR}" '
                f'fill="{colour}"/>'
            )
            parts.append(_text(_LEFT + width + 6, y, bar.caption))
        y += _GAP
    height = y - _GAP + 16
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
        f'font-family="sans-serif" font-size="12" role="img" '
        f'aria-label="Throughput against PostgreSQL\'s own programs">\n'
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>\n{body}\n</svg>\n'
    )


def _bar(figure: Figure) -> Bar | None:
    if figure.ratio is None:
        return None
    caption = f"{figure.ratio:.2f} ({figure.rows_per_second / 1000:,.0f}k rows/s)"
    return Bar(figure.contender, figure.ratio, caption, figure.contender.startswith("pgbronze"))


def _text(x: float, y: float, text: str, weight: str = "normal", anchor: str = "start") -> str:
    return (
        f'<text x="{x:.1f}" y="{y}" font-weight="{weight}" text-anchor="{anchor}" '
        f'fill="#1a202c">{escape(text)}</text>'
    )
