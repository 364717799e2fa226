"""Files of the rows that wait for a load to replace a table by them.

All rows are first in the run's own folder. Those that the load's checkpoint names are then stored
where they outlive the run. A file's name contains the name of its rows and the number of files that
belong together, so that an incomplete set is not used. Workers of a cluster write into folders,
whose names begin in the same way; a list names the files that count.
"""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4

import pyarrow as pa

from adapters.dlt_destination.columns import row_fields
from adapters.dlt_destination.files.parquet import write_chunks
from cdc_core.values.errors import DestinationFailed

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from pathlib import Path

    from adapters.dlt_destination.settings import PipelineSettings
    from cdc_core.values.merges import TargetTable

#: The folder of durable files, if the destination has folders.
FOLDER = "_cdc_written"

Place = TypeVar("Place")

_STEM = re.compile(
    r"rows-(?P<name>[\w-]+)-(?:(?P<number>\d+)of(?P<count>\d+)|(?P<list>list)|by[0-9a-f]{8})\b"
)


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


class RowsInFiles:
    """A part of stores that keep rows of a full load in files: in the run's folder, and where
    `durable_files` are. They are named by `stems`."""

    def without_dlt(self, settings: PipelineSettings) -> None:  # noqa: ARG002
        """Return nothing: dlt's client knows where the files are."""
        return

    @property
    def shared(self) -> Any:
        return None

    def durable_files(self, client: Any) -> Mapping[str, Sequence[Any]]:
        """Return the places of durable files, by the name of their rows."""
        raise NotImplementedError

    def store_files(self, client: Any, files: Sequence[Path]) -> None:
        """Store files durably, under their own names."""
        raise NotImplementedError

    def remove_files(self, client: Any, names: Collection[str]) -> None:
        """Delete the durable files of the rows with these names."""
        raise NotImplementedError

    def write(self, client: Any, name: str, target: TargetTable, rows: Iterable[pa.Table]) -> int:
        fields = (field.with_nullable(True) for field in row_fields(target))
        return _here(client).write(name, pa.schema(fields), rows)

    def make_durable(self, client: Any, names: Collection[str]) -> None:
        found = _here(client).by_name()
        for name in found.keys() & {*names}:
            self.store_files(client, found[name])
        _here(client).forget(names)

    def written(self, client: Any) -> Collection[str]:
        return _here(client).by_name().keys() | self.durable_files(client).keys()

    def forget(self, client: Any, names: Collection[str]) -> None:
        elsewhere = {*names} - _here(client).by_name().keys()
        _here(client).forget(names)
        if elsewhere:
            self.remove_files(client, elsewhere)

    def files_of(self, client: Any, names: Sequence[str]) -> tuple[list[Path], list[Any]]:
        """Return the files with the rows of a replacement: those in the run's folder, and the
        places of durable ones. Raises `DestinationFailed` if some are missing."""
        here = _here(client).by_name()
        durable = {} if here.keys() >= {*names} else self.durable_files(client)
        if not {*names} <= here.keys() | durable.keys():
            raise DestinationFailed("stored rows of a table have disappeared", "run again")
        local = [file for name in names for file in here.get(name, ())]
        return local, [place for name in names for place in durable.get(name, ())]


def _here(client: Any) -> WrittenFiles:
    written: WrittenFiles = client.current_run.written
    return written


def stems(name: str, count: int) -> list[str]:
    """Return the names of `count` files, without their suffix."""
    return [f"rows-{name}-{number}of{count}" for number in range(1, count + 1)]


def folder_stem(name: str) -> str:
    """Return a new name of a folder for workers, without its suffix."""
    return f"rows-{name}-by{uuid4().hex[:8]}"


def list_stem(name: str) -> str:
    """Return the name of the list of workers' files, without its suffix."""
    return f"rows-{name}-list"


def is_list(file_name: str) -> bool:
    found = _STEM.match(file_name)
    return found is not None and found["list"] is not None


def name_of(file_name: str) -> str | None:
    """Return the name of the rows in a file or folder; None for any other."""
    found = _STEM.match(file_name)
    return found and found["name"]


def by_name(files: Iterable[tuple[str, Place]]) -> dict[str, list[Place]]:
    """Group places by the name of their rows. `files` are pairs of file name and place. Omits
    incomplete sets."""
    found: dict[str, list[Place]] = {}
    counts: dict[str, int] = {}
    for file_name, place in sorted(files, key=lambda file: file[0]):
        match = _STEM.match(file_name)
        if match and match["count"]:
            found.setdefault(match["name"], []).append(place)
            counts[match["name"]] = int(match["count"])
    return {name: places for name, places in found.items() if len(places) == counts[name]}
