"""A table by ranges of its pages: parts that count when they are read, shares of these for readers.

One range holds the pages of these numbers in the table's file, or in each of its partitions'.
Manual: "System Columns", ctid; "Database Page Layout".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

#: A share: what a session reads by one statement, so that the table's lock ends with it. A change
#: of definition waits no longer than for one share of each reader.
SHARE_PAGES = 8192

#: A part: what is read again, at most, when a run is killed; or so many parts of a larger table.
PART_PAGES = 32_768
PARTS = 64


@dataclass(frozen=True)
class PageRange:
    """Pages from `start` up to, not with, `end`; None: all that follow."""

    start: int = 0
    end: int | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Inverse of `str`; of an empty text, all pages."""
        start, _, end = text.partition("-")
        return cls(int(start or 0), int(end) if end else None)

    def __str__(self) -> str:
        return f"{self.start}-{'' if self.end is None else self.end}"

    def __contains__(self, page: int) -> bool:
        return self.start <= page and (self.end is None or page < self.end)

    @property
    def condition(self) -> str:
        """As SQL; empty for all pages."""
        conditions = [f"ctid >= '({self.start},0)'::tid"] if self.start else []
        if self.end is not None:
            conditions.append(f"ctid < '({self.end},0)'::tid")
        return " AND ".join(conditions)


def parts(pages: Sequence[int], read: Iterable[PageRange] = ()) -> list[PageRange]:
    """Parts of a table whose files have so many pages, beside those that are `read`."""
    read = list(read)
    size = max(PART_PAGES, -(-sum(pages) // PARTS))
    cuts = {0, *_bounds(pages, size)}
    for taken in read:
        cuts |= {taken.start} if taken.end is None else {taken.start, taken.end}
    ranges = _between(sorted(cuts), None)
    return [one for one in ranges if not any(one.start in taken for taken in read)]


def shares(pages: Sequence[int], part: PageRange) -> list[PageRange]:
    """A part in shares of about the same size; the last is open if the part is."""
    pages = [max(0, min(count, part.end or count) - part.start) for count in pages]
    bounds = [part.start + bound for bound in _bounds(pages, SHARE_PAGES)]
    return _between([part.start, *bounds], part.end)


def _between(cuts: Sequence[int], end: int | None) -> list[PageRange]:
    return [PageRange(*bounds) for bounds in zip(cuts, [*cuts[1:], end], strict=True)]


def _bounds(pages: Sequence[int], share: int) -> list[int]:
    """Between two bounds all files together have about `share` pages; nothing is at the last."""
    bounds, at = [], 0
    while longer := [count for count in pages if count > at]:
        at += max(1, share // len(longer))
        bounds.append(at)
    return bounds[:-1]
