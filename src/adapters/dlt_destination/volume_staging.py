"""Files of a batch in dlt's staging volume of a dataset, from just before their step to just after.

A volume is dlt's `_dlt_staging_load_volume`, or the one that dlt's `staging_volume_name` names. It
is swept once a run: what a killed run left in it, no one will read. Source: Databricks
documentation, "PUT INTO", "REMOVE", "LIST", "Volumes".
"""

from __future__ import annotations

import contextlib
import uuid
from typing import TYPE_CHECKING, Any

from adapters.dlt_destination.dialect import SPARK

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from adapters.dlt_destination.warehouse_sessions import Sessions

VOLUME = "_dlt_staging_load_volume"


class VolumeStaging:
    """The volume of the dataset, or of its staging dataset, for one client."""

    def __init__(self, client: Any, sessions: Sessions, *, staging: bool) -> None:
        self._sql = client.sql_client
        self._sessions = sessions
        self._keep = bool(client.config.keep_staged_files)
        dataset = self._sql.staging_dataset_name if staging else self._sql.dataset_name
        self._made_by_us = not client.config.staging_volume_name
        self._path = (
            (self._sql.catalog_name(quote=False), dataset.lower(), VOLUME)
            if self._made_by_us
            else tuple(client.config.staging_volume_name.split("."))
        )
        self.name = ".".join(self._path)
        self.folder = "/Volumes/" + "/".join(self._path)

    @contextlib.contextmanager
    def staged(self, files: Sequence[Path]) -> Iterator[str]:
        """The files' rows as a relation, to stand after FROM; readable inside of the context."""
        self._sessions.once(self.folder, self._prepare)
        place = f"{self.folder}/{uuid.uuid4().hex}"
        if len(files) == 1:
            place += ".parquet"
            places = [place]
        else:
            places = [f"{place}/{number}.parquet" for number in range(len(files))]
        try:
            for file, path in zip(files, places, strict=True):
                self._sql.put(file, path)
            yield f"parquet.{SPARK.quote(place)}"
        finally:
            if not self._keep:
                # What cannot be removed now is swept by the next run.
                with contextlib.suppress(Exception):
                    for path in dict.fromkeys((*places, place)):
                        self._remove(path)

    def files(self) -> list[str] | None:
        """Paths of the files in the volume, relative to it; None where there is no volume."""
        catalog, dataset, volume = self._path
        there = self._sql.execute_sql(
            f"SELECT 1 FROM {SPARK.quote(catalog)}.information_schema.volumes "
            "WHERE volume_schema = %s AND volume_name = %s",
            dataset,
            volume,
        )
        if not there:
            return None
        return [path.removeprefix(self.folder + "/") for path in self._walk(self.folder)]

    def _prepare(self) -> bool:
        if self._made_by_us:
            catalog, dataset, volume = (SPARK.quote(part) for part in self._path)
            self._sql.execute_sql(f"CREATE SCHEMA IF NOT EXISTS {catalog}.{dataset}")
            self._sql.execute_sql(f"CREATE VOLUME IF NOT EXISTS {catalog}.{dataset}.{volume}")
            if not self._keep:
                with contextlib.suppress(Exception):
                    for path in self._walk(self.folder):
                        self._remove(path)
        return True

    def _remove(self, path: str) -> None:
        self._sql.execute_sql(f"REMOVE '{path}'")

    def _walk(self, folder: str) -> Iterator[str]:
        for path, name, *_ in self._sql.execute_sql(f"LIST '{folder}'") or ():
            if name.endswith("/"):
                yield from self._walk(path.removeprefix("dbfs:").rstrip("/"))
            else:
                yield path.removeprefix("dbfs:")
