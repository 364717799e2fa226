"""Names of files that outlive a run: parts of a table that is being read.

A name includes the number of files that belong together, so that an incomplete set is not used.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

#: The folder, if the destination has folders.
FOLDER = "_cdc_kept"

_STEM = re.compile(r"kept-(?P<name>[\w-]+)-(?P<number>\d+)of(?P<count>\d+)")


def stems(name: str, count: int) -> list[str]:
    """Return the names of `count` files, without their suffix."""
    return [f"kept-{name}-{number}of{count}" for number in range(1, count + 1)]


def is_kept(file_name: str) -> bool:
    return _STEM.match(file_name) is not None


def by_name(files: Iterable[tuple[str, str]]) -> Mapping[str, Sequence[str]]:
    """Group places by the name that the files were kept under. `files` are pairs of file name and
    place. Omits incomplete sets."""
    found: dict[str, list[str]] = {}
    counts: dict[str, int] = {}
    for file_name, place in sorted(files):
        if match := _STEM.match(file_name):
            found.setdefault(match["name"], []).append(place)
            counts[match["name"]] = int(match["count"])
    return {name: places for name, places in found.items() if len(places) == counts[name]}
