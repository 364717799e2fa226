"""A DuckDB file is read without dlt where that gives what dlt would give, and only there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import duckdb
import pytest

from adapters.dlt_destination.duckdb.factory import duckdb_destination
from adapters.dlt_destination.duckdb.memory import MemoryLimit
from adapters.dlt_destination.duckdb.store import DuckDbStore
from adapters.dlt_destination.duckdb.without_dlt import opened
from adapters.dlt_destination.settings import PipelineSettings
from cdc_core.values.checkpoint import Checkpoint, SourceIdentity
from cdc_core.values.lsn import Lsn
from cdc_core.values.merges import EMPTY_BATCH

if TYPE_CHECKING:
    from pathlib import Path

    from adapters.dlt_destination.duckdb.without_dlt import DuckDbDataset

SOURCE = SourceIdentity("1", "shop", "slot")


def _checkpoint(lsn: int) -> Checkpoint:
    return Checkpoint(SOURCE, Lsn(lsn), {})


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    file = tmp_path / "lake.duckdb"
    with duckdb_destination(PipelineSettings("p", "bronze"), str(file)) as destination:
        for lsn in (5, 7):
            destination.load(EMPTY_BATCH, _checkpoint(lsn))
    return file


def _opened(
    credentials: object, dataset: str = "bronze", pipeline: str = "p"
) -> DuckDbDataset | None:
    return opened(credentials, dataset, pipeline, MemoryLimit().settings(None))


def test_the_checkpoint_is_the_one_that_dlt_finds(
    lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = _opened(str(lake))
    assert found is not None
    assert Checkpoint.from_state(found.checkpoint()) == _checkpoint(7)
    monkeypatch.setattr(DuckDbStore, "without_dlt", lambda *_: None)
    with duckdb_destination(PipelineSettings("p", "bronze"), str(lake)) as destination:
        assert destination.read_checkpoint() == _checkpoint(7)


def test_a_load_goes_on_after_it(lake: Path) -> None:
    with duckdb_destination(PipelineSettings("p", "bronze"), str(lake)) as destination:
        assert destination.read_checkpoint() == _checkpoint(7)
        destination.load(EMPTY_BATCH, _checkpoint(9))
        assert destination.read_checkpoint() == _checkpoint(9)
    found = _opened(str(lake))
    assert found is not None
    assert Checkpoint.from_state(found.checkpoint()) == _checkpoint(9)


def test_what_is_unusual_is_left_to_dlt(lake: Path, tmp_path: Path) -> None:
    """Another pipeline or dataset, a file that is missing or not DuckDB's, other credentials."""
    (tmp_path / "text").write_text("no database")
    with duckdb.connect(tmp_path / "empty.duckdb"):
        pass
    assert _opened(str(lake), pipeline="other") is None
    assert _opened(str(lake), dataset="silver") is None
    for name in ("missing.duckdb", "text", "empty.duckdb"):
        assert _opened(str(tmp_path / name)) is None
    for credentials in (None, ":memory:", f"duckdb:///{lake}", "md:lake"):
        assert _opened(credentials) is None
    with duckdb.connect(lake) as connection:
        connection.execute("UPDATE bronze._dlt_pipeline_state SET state = 'eJw='")
    assert _opened(str(lake)) is None


def test_a_transaction_that_fails_leaves_nothing(lake: Path) -> None:
    found = _opened(str(lake))
    assert found is not None
    with found.client() as client:
        with pytest.raises(duckdb.CatalogException), client.begin_transaction():
            client.execute_sql("CREATE TABLE bronze.t AS SELECT 1 AS i; SELECT * FROM missing")
        assert client.execute_sql(
            "SELECT count(*) FROM duckdb_tables() WHERE table_name = %s", "t"
        ) == [(0,)]
