"""Names of files that outlive a run: parts of a table that is being read.

A name says how many files belong together, so that what was left incomplete is not used.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

#: Folder of a destination that has folders.
FOLDER = "_cdc_kept"

_STEM = re.compile(r"kept-(?P<name>[\w-]+)-(?P<number>\d+)of(?P<count>\d+)")


def stems(name: str, count: int) -> list[str]:
    """Names without ending of so many files."""
    return [f"kept-{name}-{number}of{count}" for number in range(1, count + 1)]


def is_kept(file_name: str) -> bool:
    return _STEM.match(file_name) is not None


def by_name(files: Iterable[tuple[str, str]]) -> Mapping[str, Sequence[str]]:
    """Places of files, given with their file names, by what they were kept as; whole ones only."""
    found: dict[str, list[str]] = {}
    counts: dict[str, int] = {}
    for file_name, place in sorted(files):
        if match := _STEM.match(file_name):
            found.setdefault(match["name"], []).append(place)
            counts[match["name"]] = int(match["count"])
    return {name: places for name, places in found.items() if len(places) == counts[name]}
