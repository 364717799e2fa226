"""Files of the rows that wait for a load to replace a table by them.

All rows are first in the run's own folder. Those that the load's checkpoint names are then stored
where they outlive the run. A file's name contains the name of its rows and the number of files that
belong together, so that an incomplete set is not used.
"""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING, TypeVar

from adapters.dlt_destination.files.parquet import write_chunks
from cdc_core.values.errors import DestinationFailed

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from pathlib import Path

    import pyarrow as pa

#: The folder of durable files, if the destination has folders.
FOLDER = "_cdc_written"

Place = TypeVar("Place")

_STEM = re.compile(r"rows-(?P<name>[\w-]+)-(?P<number>\d+)of(?P<count>\d+)")


class WrittenFiles:
    """The files in the run's folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, name: str, schema: pa.Schema, rows: Iterable[pa.Table]) -> int:
        """Write rows under a name, in place of any before; return their number."""
        self.forget([name])
        self._folder.mkdir(exist_ok=True)
        partial = self._folder / "partial"
        shutil.rmtree(partial, ignore_errors=True)  # left by a write that failed
        partial.mkdir()
        paths, count = write_chunks(rows, schema, partial, "rows")
        for path, stem in zip(paths, stems(name, len(paths)), strict=True):
            path.rename(self._folder / f"{stem}.parquet")
        return count

    def by_name(self) -> Mapping[str, Sequence[Path]]:
        return by_name((path.name, path) for path in self._folder.glob("*.parquet"))

    def forget(self, names: Iterable[str]) -> None:
        held = self.by_name()
        for name in held.keys() & {*names}:
            for path in held[name]:
                path.unlink()


def require_all(names: Iterable[str], found: Collection[str]) -> None:
    """Raise `DestinationFailed` if rows of a replacement are not found."""
    if not {*names} <= {*found}:
        raise DestinationFailed("stored rows of a table have disappeared", "run again")


def stems(name: str, count: int) -> list[str]:
    """Return the names of `count` files, without their suffix."""
    return [f"rows-{name}-{number}of{count}" for number in range(1, count + 1)]


def name_of(file_name: str) -> str | None:
    """Return the name of the rows in a file; None for any other file."""
    found = _STEM.match(file_name)
    return found and found["name"]


def by_name(files: Iterable[tuple[str, Place]]) -> dict[str, list[Place]]:
    """Group places by the name of their rows. `files` are pairs of file name and place. Omits
    incomplete sets."""
    found: dict[str, list[Place]] = {}
    counts: dict[str, int] = {}
    for file_name, place in sorted(files, key=lambda file: file[0]):
        if match := _STEM.match(file_name):
            found.setdefault(match["name"], []).append(place)
            counts[match["name"]] = int(match["count"])
    return {name: places for name, places in found.items() if len(places) == counts[name]}
