"""A full load that Spark's workers write into the volume, and that statements of a session load.

The session that reads is Spark itself; the one that runs statements is the local warehouse's. On
Databricks both are the job's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from adapters.dlt_destination.settings import PipelineSettings
from adapters.pgoutput.snapshot import page_ranges
from adapters.spark import snapshot_source
from adapters.spark.jobs import RangeJobs
from adapters.spark.snapshot_source import SparkSnapshotSource
from cdc_core.full_load import resume
from entrypoints.container import Container, source_settings
from entrypoints.settings import load_settings
from tests.integration.databricks.conftest import PATIENCE
from tests.support.lakes import WarehouseLake
from tests.support.oracle import assert_equal
from tests.support.spark_engine import opened_by, session_of
from tests.support.type_matrix import SETUP, available, wide_tables

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import psycopg

    from cdc_core.values.row_files import WrittenFiles
    from tests.integration.warehouse.client import Warehouse
    from tests.support.spark import Sessions

pytestmark = pytest.mark.spark


@pytest.fixture(autouse=True)
def _small_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several page ranges for each table, each durable by itself; several statements for each."""
    monkeypatch.setattr(snapshot_source, "LARGE_PAGES", 0)
    monkeypatch.setattr(resume, "LARGE_BYTES", 1)
    monkeypatch.setattr(page_ranges, "STATEMENT_PAGES", 2)


@pytest.fixture
def container(
    spark: Sessions, warehouse: Warehouse, database: str, tmp_path: Path
) -> Iterator[Callable[[], Container]]:
    """A function that gives the parts of a run."""
    given = {
        "sources.pg_replication.credentials": database,
        "pipeline.destination": "duckdb",
        "pipeline.receipts": False,
    }
    settings = load_settings(given)
    pipeline = PipelineSettings("pgbronze", "bronze", tmp_path / "work")
    with session_of(warehouse) as session:
        opened = opened_by(session, warehouse, pipeline, PATIENCE)

        def made() -> Container:
            container = Container.from_settings(settings)
            container.destination.override(opened())
            container.snapshot_source.override(
                SparkSnapshotSource(source_settings(settings), 2, lambda: spark.connect)
            )
            return container

        yield made


def in_ranges(sql: psycopg.Connection, table: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Divide a table into four page ranges."""
    sql.execute("VACUUM ANALYZE")
    row = sql.execute("SELECT relpages FROM pg_class WHERE relname = %s", [table]).fetchone()
    assert row is not None
    monkeypatch.setattr(page_ranges, "RANGE_PAGES", max(1, row[0] // 4))


def test_every_type_and_the_stream_after_it(
    container: Callable[[], Container],
    warehouse: Warehouse,
    database: str,
    sql: psycopg.Connection,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The driver ends in the middle; the next run continues. No row passes through either."""
    sql.execute(SETUP)
    major = sql.info.server_version // 10_000
    wide = wide_tables(available(sql), major)[0]
    sql.execute(wide.create().encode())
    for first in (1, 101, 201):
        wide.insert(sql, major, first)
    in_ranges(sql, wide.name, monkeypatch)
    plain, jobs = RangeJobs.write, []

    def killed(self: RangeJobs, *given: Any) -> WrittenFiles:
        if len(jobs) == 2:
            raise KeyboardInterrupt
        jobs.append(plain(self, *given))
        return jobs[-1]

    lake = WarehouseLake(warehouse, tmp_path)
    first_run = container().take_snapshot()
    with monkeypatch.context() as patch:
        patch.setattr(RangeJobs, "write", killed)
        with pytest.raises(KeyboardInterrupt):
            first_run.run()
    sql.execute(f"UPDATE {wide.name} SET n = n + 1 WHERE id = 5".encode())
    monkeypatch.setattr(snapshot_source.SparkSnapshot, "read", None)
    container().take_snapshot().run()
    assert_equal(sql, lake, [wide.name])
    sql.execute(f"UPDATE {wide.name} SET n = n + 1 WHERE id % 3 = 0".encode())
    sql.execute(f"DELETE FROM {wide.name} WHERE id % 7 = 0".encode())
    container().stream_changes().run()
    assert_equal(sql, lake, [wide.name])
    assert "cannot" not in caplog.text
    assert jobs[0].unrepresentable or jobs[1].unrepresentable
    volume = warehouse.volume_path("bronze", "_dlt_staging_load_volume")
    assert [path for path in volume.rglob("*") if path.is_file()] == []


def test_a_page_range_that_spark_cannot_write_is_read_by_the_driver(
    container: Callable[[], Container],
    warehouse: Warehouse,
    sql: psycopg.Connection,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    sql.execute("CREATE TABLE t (id int PRIMARY KEY, at timestamptz, day date, note text)")
    row = "i, '2024-01-01Z'::timestamptz + i * interval '1 s', 'infinity', repeat('n', 1000)"
    sql.execute(f"INSERT INTO t SELECT {row} FROM generate_series(1, 700) i".encode())
    in_ranges(sql, "t", monkeypatch)
    plain, calls = RangeJobs._found, []

    def failing(self: RangeJobs, *given: Any) -> Any:
        calls.append(given)
        if len(calls) in {2, 3, 4}:
            raise OSError("the files were written, the driver lost the answer")
        return plain(self, *given)

    monkeypatch.setattr(RangeJobs, "_found", failing)
    container().take_snapshot().run()
    assert_equal(sql, WarehouseLake(warehouse, tmp_path), ["t"])
    assert "Spark cannot go on, so the driver reads" in caplog.text
