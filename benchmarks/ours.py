"""Run pgbronze's commands, or one of its two halves alone, as measured processes."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow.parquet as pq
from deltalake import DeltaTable

from benchmarks.server import COPY, OUR_SLOT

if TYPE_CHECKING:
    from collections.abc import Iterable

    from benchmarks.bench import Bench
    from benchmarks.figures import Run

ROOT = Path(__file__).parents[1]


class Pgbronze:
    """The pipeline into one DuckDB file of the bench's folder."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self.lake = bench.folder / "lake.duckdb"

    @property
    def environment(self) -> dict[str, str]:
        return {
            "SOURCES__PG_REPLICATION__CREDENTIALS": self._bench.server.dsn,
            "PIPELINE__DESTINATION": "duckdb",
            "PIPELINE__DATASET_NAME": "bronze",
            "DESTINATION__DUCKDB__CREDENTIALS": str(self.lake),
            "DLT_PROJECT_DIR": str(self._bench.folder),
            "LOG_LEVEL": "WARNING",
        }

    def command(self, *arguments: str) -> list[str]:
        return [str(Path(sys.executable).with_name("pgbronze")), *arguments]

    def run(self, *arguments: str) -> Run:
        return self._bench.weigh(self.command(*arguments), self.environment)[0]

    def forget(self) -> None:
        """No lake, no slot, no publication: as before the first snapshot."""
        self._remove(self.lake)
        self._bench.server.drop_slot(OUR_SLOT)

    def save(self) -> None:
        """Keep the lake as it is, for `restore`."""
        shutil.copyfile(self.lake, self._saved)

    def restore(self) -> None:
        self._remove(self.lake)
        shutil.copyfile(self._saved, self.lake)

    def totals(self, query: str, tables: Iterable[str]) -> list[tuple[Any, ...]]:
        """What `query` gives for each table."""
        with duckdb.connect(str(self.lake), read_only=True) as connection:
            found = [
                connection.execute(query.format(table=f"bronze.{name}")).fetchone()
                for name in tables
            ]
        return [tuple(row) for row in found if row is not None]

    def require_equal(self, query: str, tables: Iterable[str]) -> None:
        """Speed counts for nothing if the rows are not the source's."""
        tables = list(tables)
        source = [self._bench.server.row(query.format(table=name)) for name in tables]
        lake = self.totals(query, tables)
        if source != lake:
            raise AssertionError(f"{tables}: {source} at the source, {lake} in the lake")

    def to_parquet(self, what: str) -> Run:
        """`what` is `snapshot` or `wal`: that half alone, its rows written as Parquet files."""
        target = self._bench.empty("parquet")
        environment = self.environment | {
            "SOURCES__PG_REPLICATION__SLOT_NAME": COPY,
            "PYTHONPATH": str(ROOT),
        }
        command = [sys.executable, "-m", "benchmarks.to_parquet", what, str(target)]
        return self._bench.weigh(command, environment)[0]

    def parquet_rows(self) -> int:
        return parquet_rows(self._bench.folder / "parquet")

    def duckdb_alone(self) -> Run:
        """What DuckDB alone needs to store the rows that `to_parquet` wrote."""
        file = self._bench.empty("alone") / "alone.duckdb"
        folder = str(self._bench.folder / "parquet")
        command = [sys.executable, "-m", "benchmarks.duckdb_alone", folder, str(file)]
        run, output = self._bench.weigh(command, {"PYTHONPATH": str(ROOT)})
        seconds, cpu_seconds = map(float, output.split())
        return replace(run, seconds=seconds, cpu_seconds=cpu_seconds)

    @property
    def _saved(self) -> Path:
        return self.lake.with_suffix(".saved")

    @staticmethod
    def _remove(lake: Path) -> None:
        for path in (lake, Path(f"{lake}.wal")):
            path.unlink(missing_ok=True)


class IntoDelta(Pgbronze):
    """The pipeline into Delta tables in a folder."""

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench)
        self.lake = bench.folder / "lakehouse"

    @property
    def environment(self) -> dict[str, str]:
        return super().environment | {
            "PIPELINE__DESTINATION": "delta",
            "DESTINATION__FILESYSTEM__BUCKET_URL": str(self.lake),
        }

    def save(self) -> None:
        shutil.rmtree(self._saved, ignore_errors=True)
        shutil.copytree(self.lake, self._saved)

    def restore(self) -> None:
        self._remove(self.lake)
        shutil.copytree(self._saved, self.lake)

    def totals(self, query: str, tables: Iterable[str]) -> list[tuple[Any, ...]]:
        found = []
        for name in tables:
            rows = DeltaTable(str(self.lake / "bronze" / name)).to_pyarrow_dataset()
            with duckdb.connect() as connection:
                connection.register("rows", rows)
                found.append(connection.execute(query.format(table="rows")).fetchone())
        return [tuple(row) for row in found if row is not None]

    @staticmethod
    def _remove(lake: Path) -> None:
        shutil.rmtree(lake, ignore_errors=True)


class WithLog(Pgbronze):
    """The pipeline into DuckDB, with the log of every table."""

    @property
    def environment(self) -> dict[str, str]:
        rules = '[{"match": "*", "history": ["log"]}]'
        return super().environment | {"SOURCES__PG_REPLICATION__TABLES": rules}


class Imported(Pgbronze):
    """The same, in processes that have imported what they need; seconds count from there on."""

    def run(self, *arguments: str) -> Run:
        command = [sys.executable, "-m", "benchmarks.imported", *arguments]
        environment = self.environment | {"PYTHONPATH": str(ROOT)}
        run, output = self._bench.weigh(command, environment)
        return replace(run, seconds=float(output.split()[-1]))


def parquet_rows(folder: Path) -> int:
    """Rows of all Parquet files below a folder."""
    return sum(pq.read_metadata(path).num_rows for path in folder.rglob("*.parquet"))
