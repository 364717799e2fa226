"""Every type of the matrix in many rows that change meanwhile, read by COPY and by Spark.

`python -m tests.integration.spark.sweep --rows 5000000 --kills 20` says what it did, step by step:

1. In one exported snapshot, all tables are read by COPY, by classic Spark and by Spark Connect. All
   three must have the same rows, cell by cell.
2. `snapshot` with `snapshot_reader = "spark"` into a DuckDB file, then `cdc`: equal to the source.
3. `snapshot` again, killed at random moments; whenever one ends, another begins. Then the last one
   is let through, and `cdc`: equal to the source.

Rows change until the `cdc` of each step. What is equal is for the tests' own oracle to say, which
reads PostgreSQL's text of each cell.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import threading
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pyarrow as pa

from adapters.pgoutput.catalog.catalog import PgCatalog
from adapters.pgoutput.session.settings import SourceSettings
from adapters.pgoutput.snapshot.snapshot_source import CopySnapshot
from adapters.spark import snapshot_source
from adapters.spark.snapshot_source import SparkSnapshotSource
from tests.integration.spark.conftest import Folders, laid_out
from tests.support import oracle
from tests.support.beside import Beside
from tests.support.forked import Process
from tests.support.lakes import LocalLake
from tests.support.pipeline import Pipeline
from tests.support.postgres import test_server
from tests.support.spark import running_spark
from tests.support.type_matrix import SETUP, WideTable, available, wide_tables

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cdc_core.ports.catalog import SourceTable
    from tests.support.spark import Sessions

#: Columns of a table. Narrower ones cost Spark more jobs, wider ones cost the oracle more room.
COLUMNS = 24
#: Rows that are not repeated have a longer text of all cells.
LONG_ROW = 1500
CHANGED_ROWS = 200
#: Connections of all workers, as the local Spark has two.
CONNECTIONS = 2

#: The command, with page ranges of which each is durable by itself.
COMMAND = """
import sys
from adapters.pgoutput.snapshot import page_ranges
from adapters.spark import snapshot_source
from cdc_core.full_load import resume
from entrypoints.cli.main import main

page_ranges.RANGE_PAGES, resume.LARGE_BYTES, snapshot_source.LARGE_PAGES = 2048, 1, 0
sys.exit(main(sys.argv[1:]))
"""


def filled(sql: psycopg.Connection[Any], rows: int) -> list[WideTable]:
    """Tables with all types, of about as many rows together."""
    sql.execute(SETUP)
    cases, major = available(sql), sql.info.server_version // 10_000
    groups = [cases[at : at + COLUMNS] for at in range(0, len(cases), COLUMNS)]
    found = [
        replace(wide, name=f"{wide.name}_{number}")
        for number, group in enumerate(groups)
        for wide in wide_tables(group, major)
        if wide.cases
    ]
    for wide in found:
        sql.execute(wide.create().encode())
        wide.insert(sql, major, 1)
        names = ", ".join(f'"{name}"' for name in wide.columns)
        plain = _plain_rows(sql, wide.name)
        sql.execute(
            f"INSERT INTO {wide.name} (id, {names}) SELECT 1000 + row_number() OVER (), {names} "
            f"FROM generate_series(1, {rows // len(found) // len(plain)}), "
            f"(SELECT * FROM {wide.name} WHERE id = ANY (ARRAY{plain})) AS plain".encode()
        )
    sql.execute("VACUUM ANALYZE")
    return found


def _plain_rows(sql: psycopg.Connection[Any], table: str) -> list[int]:
    """Rows without a long value and without one that the destination's type cannot hold."""
    source = oracle.Source(sql).read(table)
    sql.execute("RESET ALL")
    places = {column.name: place for place, column in enumerate(source.columns)}
    return [
        int(row[places["id"]] or 0)
        for row in source.rows
        if sum(len(cell or "") for cell in row) < LONG_ROW
        and not any(
            isinstance(column.type.expected(cell), oracle.Odd)
            for column, cell in zip(source.columns, row, strict=True)
        )
    ]


class Writer(Beside):
    """Changes some rows of each table until the block ends."""

    def __init__(self, dsn: str, tables: Sequence[str], seed: int) -> None:
        super().__init__()
        self._dsn, self._tables, self._chance = dsn, tables, random.Random(seed)
        self.changed = 0

    def run(self) -> None:
        with psycopg.connect(self._dsn, autocommit=True) as sql:
            most = {
                table: sql.execute(f"SELECT max(id) FROM {table}".encode()).fetchone()[0]  # type: ignore[index]
                for table in self._tables
            }
            while not self.ended.wait(0.05):
                table = self._chance.choice(self._tables)
                first = self._chance.randint(1, most[table])
                rows = f"WHERE id BETWEEN {first} AND {first + CHANGED_ROWS}"
                for statement in (
                    f"UPDATE {table} SET n = n + 1 {rows}",
                    f"UPDATE {table} SET id = -id - 1000000000 {rows} AND id % 7 = 1",
                    f"DELETE FROM {table} {rows} AND id % 11 = 2",
                ):
                    self.changed += sql.execute(statement.encode()).rowcount


def in_order(rows: pa.Table) -> pa.Table:
    """By key, with floats as their bits: a NaN is equal to itself then, and -0.0 is not 0.0."""
    columns = []
    for column in rows.sort_by("id").combine_chunks().columns:
        bits = {pa.float32(): pa.int32(), pa.float64(): pa.int64()}.get(column.type)
        array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        columns.append(array.view(bits) if bits is not None else array)
    return pa.table(columns, names=rows.column_names)


def same_in_each_reader(
    dsn: str, tables: Sequence[str], spark: Sessions, folder: Path, seed: int
) -> None:
    settings = SourceSettings(dsn, slot_name="sweep", pub_name="sweep_pub")
    snapshot_source.LARGE_PAGES = 0
    count = unfit_count = 0
    with closing(PgCatalog(settings)) as catalog:
        found: Sequence[SourceTable] = catalog.publish()
    by_classic = SparkSnapshotSource(settings, CONNECTIONS, lambda: spark.classic)
    with (
        by_classic.begin(create_slot=False) as classic,
        closing(
            snapshot_source.SparkSnapshot(
                settings, classic.guards, classic.exported, CONNECTIONS, lambda: spark.connect
            )
        ) as connect,
        closing(CopySnapshot(settings, classic.guards, classic.exported)) as by_copy,
        Writer(dsn, tables, seed) as writer,
    ):
        assert classic.lsn == connect.lsn == by_copy.lsn
        for table in found:
            rows = laid_out(by_copy, table)
            read = [rows.laid_out(chunk) for chunk in by_copy.read(table.relation)]
            wanted, wanted_unfit = (pa.concat_tables(part) for part in zip(*read, strict=True))
            for kind, snapshot in (("classic", classic), ("connect", connect)):
                name = f"{table.relation.table.name}-{kind}"
                with tempfile.TemporaryDirectory(dir=folder) as place:
                    written = Folders(Path(place)).write(snapshot, table)
                assert written is not None, name
                assert in_order(written[0]).equals(in_order(wanted)), name
                order = [(column, "ascending") for column in written[1].column_names]
                assert written[1].sort_by(order).equals(wanted_unfit.sort_by(order)), name
            count, unfit_count = count + len(wanted), unfit_count + len(wanted_unfit)
    note(
        f"read by COPY, classic Spark and Spark Connect at LSN {classic.lsn}: {count:,} rows and "
        f"{unfit_count:,} values beside them are equal; {writer.changed:,} rows changed meanwhile"
    )


class Loads:
    """Full loads by Spark into a DuckDB file."""

    def __init__(self, dsn: str, tables: Sequence[str], spark: Sessions, folder: Path) -> None:
        self._dsn, self._tables = dsn, tables
        self._lake = LocalLake("duckdb", folder)
        self._pipeline = Pipeline(
            dsn,
            self._lake,
            SOURCES__PG_REPLICATION__SNAPSHOT_READER="spark",
            SOURCES__PG_REPLICATION__SPARK_MAX_CONNECTIONS=str(CONNECTIONS),
            SOURCES__PG_REPLICATION__BATCH_MAX_ROWS="100000",
            SPARK_REMOTE=spark.remote,
        )

    def run(self, *arguments: str, kill_after: float | None = None) -> bool:
        """Run a command; return whether it ended by itself."""
        environment, folder = self._pipeline.environment, self._lake.path
        process = Process(arguments, environment, folder, script=COMMAND)
        killer = threading.Timer(kill_after or 0, process.kill)
        if kill_after is not None:
            killer.start()
        output, _ = process.communicate()
        killer.cancel()
        assert process.returncode in {0, -9}, output
        for warning in ("cannot read", "cannot go on"):
            assert warning not in output, output
        return process.returncode == 0

    def assert_equal(self) -> int:
        """Rows that were compared."""
        count = 0
        with psycopg.connect(self._dsn, autocommit=True) as sql:
            for table in self._tables:
                oracle.assert_equal(sql, self._lake, [table])
                count += len(self._lake.read(table))
        return count


def note(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {text}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    chance = random.Random(chosen.seed)
    with (
        tempfile.TemporaryDirectory() as name,
        test_server() as server,
        server.database() as dsn,
        running_spark() as spark,
    ):
        folder = Path(name)
        with psycopg.connect(dsn, autocommit=True) as sql:
            tables = [wide.name for wide in filled(sql, chosen.rows)]
            size = sql.execute("SELECT pg_size_pretty(pg_database_size(current_database()))")
            note(f"filled {len(tables)} tables of every type, {size.fetchone()}")
        same_in_each_reader(dsn, tables, spark, folder, chosen.seed)
        loads = Loads(dsn, tables, spark, folder)
        begun = time.monotonic()
        with Writer(dsn, tables, chosen.seed):
            assert loads.run("snapshot")
        longest = time.monotonic() - begun
        assert loads.run("cdc")
        note(f"snapshot by Spark in {longest:.0f} s, then cdc: {loads.assert_equal():,} rows equal")
        killed = ended = 0
        with Writer(dsn, tables, chosen.seed + 1):
            while killed < chosen.kills:
                if loads.run("snapshot", kill_after=chance.uniform(0, longest)):
                    ended += 1
                else:
                    killed += 1
                    note(f"killed {killed} times, {ended} ended before")
            assert loads.run("snapshot")
        assert loads.run("cdc")
        note(
            f"killed {killed} times at random moments of {longest:.0f} s ({ended} ended before), "
            f"then snapshot and cdc: {loads.assert_equal():,} rows equal"
        )


if __name__ == "__main__":
    main()
