"""A DuckDB file is opened without dlt where that gives what dlt would give, and only there."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import dlt
import duckdb
import pytest
from dlt.pipeline.state_sync import generate_pipeline_state_version_hash

from adapters.dlt_destination.dlt import duckdb_client, packages, state_keeping
from adapters.dlt_destination.dlt.stored_state import decoded, encoded, with_checkpoint
from adapters.dlt_destination.duckdb.factory import duckdb_destination
from adapters.dlt_destination.duckdb.memory import MemoryLimit
from adapters.dlt_destination.duckdb.store import DuckDbStore
from adapters.dlt_destination.duckdb.without_dlt import opened
from adapters.dlt_destination.settings import PipelineSettings
from cdc_core.values.checkpoint import Checkpoint, SourceIdentity
from cdc_core.values.errors import DestinationUnavailable
from cdc_core.values.lsn import Lsn
from cdc_core.values.merges import EMPTY_BATCH

if TYPE_CHECKING:
    from pathlib import Path

    from adapters.dlt_destination.destination import DltDestination
    from adapters.dlt_destination.duckdb.without_dlt import DuckDbDataset

SOURCE = SourceIdentity("1", "shop", "slot")
SETTINGS = PipelineSettings("p", "bronze")


def _checkpoint(lsn: int) -> Checkpoint:
    return Checkpoint(SOURCE, Lsn(lsn), {})


def _destination(file: Path) -> DltDestination:
    return duckdb_destination(SETTINGS, str(file))


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    """A file with two checkpoints, both stored by dlt."""
    file = tmp_path / "lake.duckdb"
    with _destination(file) as destination:
        for lsn in (5, 7):
            destination.load(EMPTY_BATCH, _checkpoint(lsn))
    return file


@pytest.fixture
def loaded(lake: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same file; from now on, a destination that opens dlt fails."""

    def fails(*_: Any) -> None:
        raise AssertionError("dlt is opened")

    monkeypatch.setattr(packages, "Packages", fails)
    return lake


def _opened(
    credentials: object, dataset: str = "bronze", pipeline: str = "p"
) -> DuckDbDataset | None:
    return opened(credentials, PipelineSettings(pipeline, dataset), MemoryLimit())


def _query(lake: Path, sql: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(lake) as connection:
        return connection.execute(sql).fetchall()


@pytest.fixture
def read_by_dlt(monkeypatch: pytest.MonkeyPatch, lake: Path) -> Any:
    """Return the checkpoint as this library reads it from dlt's pipeline."""

    def read() -> Checkpoint | None:
        with monkeypatch.context() as patched:
            patched.setattr(DuckDbStore, "without_dlt", lambda *_: None)
            with _destination(lake) as destination:
                return destination.read_checkpoint()

    return read


def test_the_checkpoint_is_the_one_that_dlt_finds(lake: Path, read_by_dlt: Any) -> None:
    found = _opened(str(lake))
    assert found is not None
    assert Checkpoint.from_state(found.checkpoint()) == _checkpoint(7)
    assert read_by_dlt() == _checkpoint(7)


def test_loads_go_on_without_dlt(loaded: Path) -> None:
    with _destination(loaded) as destination:
        assert destination.read_checkpoint() == _checkpoint(7)
        for lsn in (9, 11):
            destination.load(EMPTY_BATCH, _checkpoint(lsn))
            assert destination.read_checkpoint() == _checkpoint(lsn)
    with _destination(loaded) as destination:
        assert destination.read_checkpoint() == _checkpoint(11)


def test_dlt_goes_on_where_a_load_without_it_ended(
    lake: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Both write the same form. A pipeline of dlt alone finds the state too."""
    with _destination(lake) as destination:
        destination.load(EMPTY_BATCH, _checkpoint(9))
    pipeline = dlt.pipeline(
        "p",
        destination=dlt.destinations.duckdb(str(lake)),
        dataset_name="bronze",
        pipelines_dir=str(tmp_path / "dlt"),
    )
    pipeline.sync_destination()
    checkpoint = pipeline.state["sources"]["pgbronze"]["checkpoint"]
    assert checkpoint["lsn"] == _checkpoint(9).to_state()["lsn"]

    with monkeypatch.context() as patched:
        patched.setattr(DuckDbStore, "without_dlt", lambda *_: None)
        with _destination(lake) as destination:
            destination.load(EMPTY_BATCH, _checkpoint(11))
    assert [v for (v,) in _query(lake, "SELECT version FROM bronze._dlt_pipeline_state")] == [
        *(1, 2, 3, 4)
    ]
    # Without a row for its schema, dlt would store the schema again.
    loads = "SELECT DISTINCT schema_name, status, schema_version_hash FROM bronze._dlt_loads"
    assert len(_query(lake, loads)) == 1
    with _destination(lake) as destination:
        assert destination.read_checkpoint() == _checkpoint(11)


def test_the_encoding_is_dlts() -> None:
    text = 'a "quoted" \\ \x00 \x1f \x7f \u2028 \U0001f40d ü'
    state = {"_state_version": 1, "_state_engine_version": 4, "_version_hash": "-", "name": text}
    state |= {"sources": {"pgbronze": {"checkpoint": {"tables": [], "lsn": text}, "packages": 1}}}
    following = with_checkpoint(state, {"tables": {text: [text]}, "lsn": text})
    assert following["_version_hash"] == generate_pipeline_state_version_hash(dict(following))  # type: ignore[arg-type]
    assert following["_state_version"] == 2
    assert decoded(encoded(following)) == following
    assert dlt.common.versioned_state.decompress_state(encoded(following)) == following


def test_a_load_counts_as_the_newest_although_the_clock_was_set_back(
    lake: Path, read_by_dlt: Any
) -> None:
    for table, column in (("_dlt_loads", "load_id"), ("_dlt_pipeline_state", "_dlt_load_id")):
        _query(lake, f"UPDATE bronze.{table} SET {column} = '9' || substr({column}, 2)")
    with _destination(lake) as destination:
        for lsn in (9, 11):
            destination.load(EMPTY_BATCH, _checkpoint(lsn))
    assert read_by_dlt() == _checkpoint(11)


def test_old_states_are_deleted(lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_keeping, "KEPT", 4)
    with _destination(lake) as destination:
        for lsn in range(8, 21):
            destination.load(EMPTY_BATCH, _checkpoint(lsn))
    versions = "SELECT version FROM bronze._dlt_pipeline_state ORDER BY version"
    assert [version for (version,) in _query(lake, versions)] == [8, 9, 10, 11, 12, 13, 14, 15]


def test_what_is_unusual_is_left_to_dlt(lake: Path, tmp_path: Path) -> None:
    """Another pipeline or dataset, a file that is missing, other credentials, other columns."""
    with duckdb.connect(tmp_path / "empty.duckdb"):
        pass
    assert _opened(str(lake), pipeline="other") is None
    assert _opened(str(lake), dataset="silver") is None
    for name in ("missing.duckdb", "empty.duckdb"):
        assert _opened(str(tmp_path / name)) is None
    for credentials in (None, ":memory:", f"duckdb:///{lake}", "md:lake"):
        assert _opened(credentials) is None
    _query(lake, "ALTER TABLE bronze._dlt_loads ADD COLUMN new_in_dlt VARCHAR")
    assert _opened(str(lake)) is None
    _query(lake, "ALTER TABLE bronze._dlt_loads DROP COLUMN new_in_dlt")
    assert _opened(str(lake)) is not None
    _query(lake, "UPDATE bronze._dlt_pipeline_state SET state = 'eJw='")
    assert _opened(str(lake)) is None


def test_a_file_that_is_open_elsewhere_is_waited_for(
    lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, refused = duckdb.connect, threading.Event()

    def connect(*args: Any, **kwargs: Any) -> Any:
        if not refused.is_set():
            refused.set()
            raise duckdb.IOException("Could not set lock on file")
        return real(*args, **kwargs)

    monkeypatch.setattr(duckdb, "connect", connect)
    with _destination(lake) as destination:
        assert destination.read_checkpoint() == _checkpoint(7)
    refused.clear()
    monkeypatch.setattr(duckdb_client, "LOCK_WAIT_SECONDS", -1)
    with (
        pytest.raises(DestinationUnavailable, match="Could not set lock on file"),
        _destination(lake),
    ):
        pass


def test_a_file_that_was_deleted_is_not_made_again(lake: Path) -> None:
    with _destination(lake) as destination:
        assert destination.read_checkpoint() == _checkpoint(7)
        lake.unlink()
        with pytest.raises(DestinationUnavailable, match="was deleted during the run"):
            destination.load(EMPTY_BATCH, _checkpoint(9))
    assert not lake.exists()


def test_a_transaction_that_fails_leaves_nothing(lake: Path) -> None:
    found = _opened(str(lake))
    assert found is not None
    with found.client() as client:
        with pytest.raises(duckdb.CatalogException), client.begin_transaction():
            client.execute_sql("CREATE TABLE bronze.t AS SELECT 1 AS i; SELECT * FROM missing")
        assert client.execute_sql(
            "SELECT count(*) FROM duckdb_tables() WHERE table_name = %s", "t"
        ) == [(0,)]
