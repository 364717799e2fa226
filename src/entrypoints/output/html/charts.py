"""Charts as inline SVG. The drawing stretches with the page; its labels are text beside it."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING

from entrypoints.output.html.markup import Html, join, tag
from entrypoints.output.html.wording import day_and_time, plural

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from entrypoints.output.html.history import History, Point

#: The drawing's own units.
WIDTH, HEIGHT = 1000, 100
#: Labels below a chart, at most, and the steps between them.
TICKS = 9
STEPS = (
    *(timedelta(minutes=minutes) for minutes in (1, 2, 5, 10, 15, 30)),
    *(timedelta(hours=hours) for hours in (1, 2, 3, 6, 12, 24, 48, 168)),
)


def chart(
    title: str,
    what: str,
    points: Sequence[Point],
    shown: Callable[[float], str],
    *,
    bars: bool = False,
    limit: float | None = None,
    limit_name: str = "",
) -> Html:
    """Return a figure with the highest and the last value in words.

    `what` explains the values. The `limit` is drawn if it is not far above the values.
    """
    known = [point for point in points if point.value is not None]
    if not known:
        nothing = tag("p", "No receipt of this time has the value.", class_="quiet")
        return tag("figure", _caption(title, what, ""), nothing, class_="chart")
    highest = max(known, key=lambda point: point.value or 0.0)
    top = highest.value or 0.0
    # A limit far above the values would flatten them; it is then named in words only.
    drawn = limit is not None and limit <= 3 * top
    scale = (max(top, limit or 0.0) if drawn else top) * 1.05 or 1.0
    summary = f"highest {shown(top)} ({day_and_time(highest.start)})"
    if not bars:
        summary = f"last {shown(known[-1].value or 0.0)}, {summary}"
    shapes = [_bars(points, scale) if bars else _line(points, scale)]
    if limit is not None:
        summary += f"; {limit_name} {shown(limit)}"
    if limit is not None and drawn:
        y = round(HEIGHT - HEIGHT * limit / scale, 2)
        shapes.append(tag("line", x1=0, x2=WIDTH, y1=y, y2=y, class_="limit"))
    values = [
        [day_and_time(point.start), "no value" if point.value is None else shown(point.value)]
        for point in points
    ]
    marks = _marks([point.start for point in points])
    drawing = _drawing([*_grid(marks), *shapes], f"{title}: {summary}", values)
    axis = tag("div", tag("span", shown(scale / 1.05)), tag("span", "0"), class_="axis")
    return tag(
        "figure",
        _caption(title, what, summary),
        tag("div", axis, drawing, class_="plot"),
        _ticks(marks),
        class_="chart",
    )


def run_strip(outcomes: Sequence[tuple[datetime, Counter[str]]], history: History) -> Html:
    """Return a strip of the time with a mark for each bucket in which runs ended."""
    width = WIDTH / len(outcomes)
    marks, values = [], []
    failed = 0
    for number, (start, counts) in enumerate(outcomes):
        failed += counts["failed"]
        words = [f"{counts[key]} {key}" for key in ("ok", "failed") if counts[key]]
        values.append([day_and_time(start), ", ".join(words) or "no run"])
        if not words:
            continue
        bad = counts["failed"] > 0
        # Failures are taller too: the color alone does not carry the meaning.
        top = 0 if bad else HEIGHT * 0.55
        marks.append(
            tag(
                "rect",
                x=round(number * width, 2),
                y=round(top, 2),
                width=round(width * 0.8, 2),
                height=round(HEIGHT - top, 2),
                class_="bad" if bad else "good",
            )
        )
    summary = f"{plural(len(history.runs), 'run')}, {failed} failed"
    drawing = _drawing(marks, f"Runs: {summary}", values)
    caption = _caption(
        "Runs", "low green marks: runs that ended well; tall red marks: failures", summary
    )
    plot = tag("div", tag("div", class_="axis"), drawing, class_="plot")
    ticks = _ticks(_marks([start for start, _ in outcomes]))
    return tag("figure", caption, plot, ticks, class_="chart strip")


def _drawing(shapes: Sequence[Html], label: str, values: Sequence[Sequence[str]]) -> Html:
    """Return the shapes as one image; `values` are the texts that the script shows by place."""
    return tag(
        "svg",
        *shapes,
        tag("line", x1=0, x2=0, y1=0, y2=HEIGHT, class_="cursor"),
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        preserveAspectRatio="none",
        role="img",
        aria_label=label,
        tabindex=0,
        data_values=json.dumps(values, ensure_ascii=False),
    )


def _caption(title: str, what: str, summary: str) -> Html:
    return tag(
        "figcaption",
        tag("strong", title),
        tag("span", what, class_="quiet"),
        tag("output", summary, class_="readout", data_summary=summary) if summary else None,
    )


def _line(points: Sequence[Point], scale: float) -> Html:
    width = WIDTH / len(points)
    places = [
        (round((number + 0.5) * width, 2), round(HEIGHT - HEIGHT * point.value / scale, 2))
        for number, point in enumerate(points)
        if point.value is not None
    ]
    if len(places) == 1:
        ((x, y),) = places
        places = [(max(0, x - width / 2), y), (x + width / 2, y)]
    path = " L".join(f"{x:g} {y:g}" for x, y in places)
    area = f"M{places[0][0]:g} {HEIGHT} L{path} L{places[-1][0]:g} {HEIGHT} Z"
    return join(tag("path", d=area, class_="area"), tag("path", d=f"M{path}", class_="line"))


def _bars(points: Sequence[Point], scale: float) -> Html:
    width = WIDTH / len(points)
    return join(
        *(
            tag(
                "rect",
                x=round(number * width, 2),
                y=round(HEIGHT - HEIGHT * point.value / scale, 2),
                width=round(width * 0.8, 2),
                height=round(HEIGHT * point.value / scale, 2),
                class_="bar",
            )
            for number, point in enumerate(points)
            if point.value
        )
    )


def _marks(starts: Sequence[datetime]) -> list[tuple[float, str]]:
    """Round moments within the time that a chart covers: their share of it, and a label."""
    first, width = starts[0], (starts[-1] - starts[0]) / max(1, len(starts) - 1)
    covered = width * len(starts)
    step = next((step for step in STEPS if covered / step <= TICKS), STEPS[-1])
    midnight = first.replace(hour=0, minute=0, second=0, microsecond=0)
    found = []
    before = int((first - midnight) / step)
    for number in range(int(covered / step) + 2):
        moment = midnight + step * (before + number)
        share = (moment - first) / covered
        if 0.02 <= share <= 0.98:
            label = "%H:%M" if not step.days else "%a %-d" if step.days == 1 else "%-d %b"
            found.append((share, moment.strftime(label)))
    return found


def _grid(marks: Sequence[tuple[float, str]]) -> list[Html]:
    places = [round(WIDTH * share, 1) for share, _ in marks]
    return [tag("line", x1=x, x2=x, y1=0, y2=HEIGHT, class_="grid") for x in places]


def _ticks(marks: Sequence[tuple[float, str]]) -> Html:
    labels = [
        tag("text", label, x=f"{100 * share:.2f}%", y="1em", class_="odd" if number % 2 else None)
        for number, (share, label) in enumerate(marks)
    ]
    return tag("div", tag("svg", *labels, aria_hidden="true"), class_="ticks")
