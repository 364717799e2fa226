"""The two ways to reach Spark, and settings of a source."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from adapters.pgoutput.catalog.catalog import PgCatalog
from adapters.pgoutput.session.settings import SourceSettings
from adapters.spark import snapshot_source
from cdc_core.fold.snapshot_rows import SnapshotRows
from cdc_core.tables.schema_change import state_when_read
from cdc_core.values.merges import UNREPRESENTABLE_SCHEMA
from cdc_core.values.row_files import read_files

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pyspark.sql import SparkSession

    from cdc_core.ports.catalog import SourceTable
    from cdc_core.ports.snapshot_source import Snapshot
    from cdc_core.values.row_files import RowFiles
    from tests.support.spark import Sessions


@pytest.fixture(params=["classic", "connect"])
def session(spark: Sessions, request: pytest.FixtureRequest) -> SparkSession:
    found: SparkSession = getattr(spark, request.param)
    return found


@pytest.fixture
def settings(database: str) -> SourceSettings:
    name = database.rpartition("/")[2]
    return SourceSettings(database, slot_name=f"slot_{name}", pub_name="pgbronze_pub")


@pytest.fixture
def catalog(settings: SourceSettings) -> Iterator[PgCatalog]:
    catalog = PgCatalog(settings)
    yield catalog
    catalog.close()


@pytest.fixture
def small_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spark reads every table that has a page."""
    monkeypatch.setattr(snapshot_source, "LARGE_PAGES", 0)


def laid_out(snapshot: Snapshot, table: SourceTable) -> SnapshotRows:
    """How a full load lays out a table of that name."""
    state, _ = state_when_read(None, table, table.relation.table.name, snapshot.lsn)
    return SnapshotRows.of(state, table, snapshot)


@dataclass
class Folders:
    """A destination's folders for workers."""

    path: Path
    made: list[Path] = field(default_factory=list)

    def __call__(self) -> str:
        self.made.append(self.path / f"rows-{len(self.made)}")
        return str(self.made[-1])

    def write(
        self, snapshot: Snapshot, table: SourceTable, page_range: str = ""
    ) -> tuple[pa.Table, pa.Table] | None:
        """Rows that workers wrote, and those of `UNREPRESENTABLE_SCHEMA`."""
        rows = laid_out(snapshot, table)
        found = snapshot.write_files(table.relation, page_range, rows, self)
        if found is None:
            return None
        unfit = read(found.unrepresentable, UNREPRESENTABLE_SCHEMA)
        return read(found.rows, rows.schema), unfit


def read(files: RowFiles | None, schema: pa.Schema) -> pa.Table:
    chunks = [] if files is None else [*read_files(files, schema)]
    found = pa.concat_tables([schema.empty_table(), *chunks])
    assert files is None or len(found) == files.rows
    return found


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return Folders(tmp_path)


def cells(rows: pa.Table) -> list[str]:
    """All rows as text, floats bit by bit, in a certain order."""
    lists: list[list[Any]] = [column.to_pylist() for column in rows.columns]
    return sorted(
        repr([v.hex() if isinstance(v, float) else v for v in row])
        for row in zip(*lists, strict=True)
    )
