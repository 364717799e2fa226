"""Page ranges of a table: what a resumed run need not read again, and what one statement reads.

A range covers the pages with these numbers in the table's file, or in the file of each partition.
Manual: "System Columns", ctid; "Database Page Layout".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

#: Pages that one statement reads, so that the table's lock ends with it. A change of the table's
#: definition waits for at most one statement of each reader.
STATEMENT_PAGES = 8192

#: Pages of a page range: what is read again, at most, after a run was killed. A larger table has
#: up to `MOST_RANGES` larger ones.
RANGE_PAGES = 32_768
MOST_RANGES = 64


@dataclass(frozen=True)
class PageRange:
    """Pages from `start` up to but not including `end`; None: all that follow."""

    start: int = 0
    end: int | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Inverse of `str`. An empty text means all pages."""
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


def page_ranges(pages: Sequence[int], read: Iterable[PageRange] = ()) -> list[PageRange]:
    """Page ranges of a table without those in `read`. `pages`: the pages of each of its files."""
    read = list(read)
    size = max(RANGE_PAGES, -(-sum(pages) // MOST_RANGES))
    cuts = {0, *_bounds(pages, size)}
    for taken in read:
        cuts |= {taken.start} if taken.end is None else {taken.start, taken.end}
    ranges = _between(sorted(cuts), None)
    return [one for one in ranges if not any(one.start in taken for taken in read)]


def statement_ranges(
    pages: Sequence[int], page_range: PageRange, size: int | None = None
) -> list[PageRange]:
    """A page range in ranges for one statement each, of similar size: about `size` pages, at most
    `STATEMENT_PAGES`. The last is open if `page_range` is."""
    start, end = page_range.start, page_range.end
    pages = [max(0, min(count, end or count) - start) for count in pages]
    size = min(size or STATEMENT_PAGES, STATEMENT_PAGES)
    bounds = [start + bound for bound in _bounds(pages, size)]
    return _between([start, *bounds], end)


def _between(cuts: Sequence[int], end: int | None) -> list[PageRange]:
    return [PageRange(*bounds) for bounds in zip(cuts, [*cuts[1:], end], strict=True)]


def _bounds(pages: Sequence[int], size: int) -> list[int]:
    """Between two bounds, all files together have about `size` pages."""
    bounds, at = [], 0
    while longer := [count for count in pages if count > at]:
        at += max(1, size // len(longer))
        bounds.append(at)
    return bounds[:-1]
