"""Times, durations and numbers as the page writes them. Times are UTC."""

from __future__ import annotations

from datetime import datetime, timedelta

_UNITS = ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s"))


def duration(seconds: float) -> str:
    """The two largest units, such as `3 h 20 min`."""
    whole = round(seconds)
    for large, large_unit, small, small_unit in _UNITS:
        if whole >= large:
            rest = whole % large // small
            return f"{whole // large} {large_unit}" + (f" {rest} {small_unit}" if rest else "")
    return f"{whole} s"


def ago(moment: datetime, now: datetime) -> str:
    return f"{duration(max(timedelta(), now - moment).total_seconds())} ago"


def day_and_time(moment: datetime) -> str:
    return moment.strftime("%a %d %b, %H:%M")


def number(count: float) -> str:
    return f"{count:,.0f}"


def plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def compact(count: float) -> str:
    """A number in few characters, such as `12.8 M`."""
    for unit in ("", " k", " M", " G"):
        if count < 1000 or unit == " G":
            return f"{count:.0f}" if not unit else f"{count:.1f}{unit}"
        count /= 1000
    raise AssertionError(count)
