"""Files of a batch in the staging volume of a dataset, from just before their step until just
after.

A volume is dlt's `_dlt_staging_load_volume`, or the one that dlt's `staging_volume_name` names.
File names include the pipeline's name. Before the first statement of a run, a pipeline deletes its
own files: those of a killed run are useless, and a statement of that run that still waits in the
warehouse then finds no rows. Source: Databricks documentation, "PUT INTO", "REMOVE", "LIST",
"Volumes".
"""

from __future__ import annotations

import contextlib
import uuid
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from adapters.dlt_destination.files.parquet import write_table
from adapters.dlt_destination.files.written_files import (
    by_name,
    folder_stem,
    is_list,
    list_stem,
    name_of,
)
from adapters.dlt_destination.sql.dialect import SPARK

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence
    from pathlib import Path

    from adapters.dlt_destination.databricks.sessions import Sessions

VOLUME = "_dlt_staging_load_volume"

#: The limit for repeated LIST statements; each returns up to 1001 files.
_LISTS = 1000


class VolumeStaging:
    """The volume of the dataset, or of its staging dataset, for one client."""

    def __init__(self, client: Any, sessions: Sessions, pipeline: str, *, staging: bool) -> None:
        self._sql = client.sql_client
        self._sessions = sessions
        self._keep = bool(client.config.keep_staged_files)
        dataset = self._sql.staging_dataset_name if staging else self._sql.dataset_name
        self._made_by_us = not client.config.staging_volume_name
        catalog = self._sql.catalog_name(quote=False)
        self._path = (
            (catalog, dataset.lower(), VOLUME)
            if self._made_by_us
            else tuple(client.config.staging_volume_name.split("."))
        )
        self.name = ".".join(self._path)
        #: The schema of the volume.
        self.dataset = self._path[1]
        self._folder = "/Volumes/" + "/".join(self._path)
        # Another pipeline, or another dataset of this one, can use the same volume.
        self._ending = f".{catalog}.{self._sql.dataset_name.lower()}.{pipeline}.parquet"

    @contextlib.contextmanager
    def staged(
        self,
        files: Sequence[Path],
        option: str = "",
        stored: Sequence[str] = (),
        by_workers: Sequence[str] = (),
        typed: Callable[[str], str] = str,
    ) -> Iterator[str]:
        """Upload the files; return their rows, those of `stored` files and of workers' files, as a
        relation that can follow FROM inside the context. `option` is appended to each file.
        `typed` gives the rows of workers' files the columns of the others.

        Every file is named, so that the statement fails if one is missing. A folder or a pattern
        would be read without it.
        """
        self._sessions.once(self._folder, self._make)
        places = [f"{self._folder}/{uuid.uuid4().hex}{self._ending}" for _ in files]
        try:
            for file, place in zip(files, places, strict=True):
                self._sql.put(file, place)
            rows = _parquet((*places, *stored), option)
            if by_workers:
                rows.append(typed(_union(_parquet(by_workers, option))))
            yield _union(rows)
        finally:
            if not self._keep:
                # The next run deletes files that cannot be deleted now.
                with contextlib.suppress(Exception):
                    for place in places:
                        self._remove(place)

    def store(self, files: Sequence[Path]) -> None:
        """Upload files of rows that outlive the run, under their own names."""
        self._sessions.once(self._folder, self._make)
        for file in files:
            self._sql.put(file, f"{self._folder}/{file.stem}{self._ending}")

    def stored(self) -> dict[str, list[str]]:
        """Return the paths of the pipeline's stored files by the name of their rows."""
        self._sessions.once(self._folder, self._make)
        return by_name((name, path) for path, name in self._own())

    def new_folder(self, name: str) -> str:
        """Return the path of a folder for workers, which is removed with the rows `name`."""
        self._sessions.once(self._folder, self._make)
        return f"{self._folder}/{folder_stem(name)}{self._ending}"

    def place(self, folder: str, file: str) -> str:
        """Return the path of a file in such a folder, which this process sees at `folder`."""
        return f"{self._folder}/{PurePath(folder).name}/{file}"

    def store_list(self, name: str, places: Sequence[str], folder: Path) -> None:
        """Store the list of workers' files. `folder` is one of this process."""
        files = pa.table({"file": pa.array(places, pa.string())})
        self.store([write_table(files, folder / f"{list_stem(name)}.parquet")])

    def listed(self) -> dict[str, tuple[str, ...]]:
        """Return the paths of the workers' files in each list, if all of them are there."""
        self._sessions.once(self._folder, self._make)
        found = {}
        for path, file_name in self._own():
            if is_list(file_name):
                rows = self._sql.execute_sql(f"SELECT file FROM parquet.{SPARK.quote(path)}")
                places = tuple(place for (place,) in rows or ())
                there = {*self._walk(str(PurePath(places[0]).parent))} if places else set()
                if there >= {*places}:
                    found[name_of(file_name) or ""] = places
        return found

    def forget(self, names: Collection[str]) -> None:
        self._remove_all(lambda name: name_of(name) in names)

    def _remove_all(self, wanted: Callable[[str], bool]) -> None:
        """Delete the pipeline's files with such names. A list can be truncated, so list again."""
        for _ in range(_LISTS):
            found = [path for path, name in self._own() if wanted(name)]
            files = [file for path in found for file in self._files_at(path)]
            for file in files:
                self._remove(file)
            for path in found:
                if path.endswith("/"):
                    # An object store has no empty folders; where there are some, one may stay.
                    with contextlib.suppress(Exception):
                        self._remove(path)
            if not files:
                return

    def _own(self) -> Iterator[tuple[str, str]]:
        """Yield path and name of the pipeline's files and folders; a folder's path ends in a
        slash."""
        for path, name in self._list(self._folder):
            if name[name.find(".") :].rstrip("/") == self._ending:
                yield path, name

    def _files_at(self, path: str) -> Iterator[str]:
        return self._walk(path.rstrip("/")) if path.endswith("/") else iter((path,))

    def sweep(self, needed: Collection[str]) -> None:
        """Delete the pipeline's files, except those of rows with the names `needed`. The volume
        need not exist yet."""

        def left_over(file_name: str) -> bool:
            name = name_of(file_name)
            return not self._keep if name is None else name not in needed

        with contextlib.suppress(Exception):
            self._remove_all(left_over)
            self._sessions.once(self._folder, lambda: True)  # the volume exists

    def files(self) -> list[str] | None:
        """Return the paths of the files, relative to the volume; None if it does not exist."""
        catalog, dataset, volume = self._path
        there = self._sql.execute_sql(
            f"SELECT 1 FROM {SPARK.quote(catalog)}.information_schema.volumes "
            "WHERE volume_schema = %s AND volume_name = %s",
            dataset,
            volume,
        )
        if not there:
            return None
        return [path.removeprefix(self._folder + "/") for path in self._walk(self._folder)]

    def drop(self) -> None:
        """Drop the volume, unless a setting names it."""
        if self._made_by_us:
            name = ".".join(SPARK.quote(part) for part in self._path)
            self._sql.execute_sql(f"DROP VOLUME IF EXISTS {name}")

    def _make(self) -> bool:
        if self._made_by_us:
            catalog, dataset, volume = (SPARK.quote(part) for part in self._path)
            self._sql.execute_sql(f"CREATE SCHEMA IF NOT EXISTS {catalog}.{dataset}")
            self._sql.execute_sql(f"CREATE VOLUME IF NOT EXISTS {catalog}.{dataset}.{volume}")
        return True

    def _remove(self, path: str) -> None:
        self._sql.execute_sql(f"REMOVE '{path}'")

    def _walk(self, folder: str) -> Iterator[str]:
        for path, name in self._list(folder):
            if name.endswith("/"):
                yield from self._walk(path.rstrip("/"))
            else:
                yield path

    def _list(self, folder: str) -> Iterator[tuple[str, str]]:
        """Path and name of what is in a folder; a folder's name ends in a slash."""
        for path, name, *_ in self._sql.execute_sql(f"LIST '{folder}'") or ():
            yield path.removeprefix("dbfs:"), name


def _parquet(places: Sequence[str], option: str) -> list[str]:
    return [f"parquet.{SPARK.quote(place)}{option}" for place in places]


def _union(relations: Sequence[str]) -> str:
    """The rows of all, nested by halves: a chain of a thousand would be too deep to be parsed."""
    if len(relations) == 1:
        return relations[0]
    middle = len(relations) // 2
    halves = (_union(relations[:middle]), _union(relations[middle:]))
    return "(" + " UNION ALL ".join(f"SELECT * FROM {half}" for half in halves) + ")"
