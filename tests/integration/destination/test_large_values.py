"""Rows of megabytes get in and out, and in pieces, however little memory there is at first."""

from __future__ import annotations

import hashlib
import random
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa
import pytest
from dlt.destinations.impl.duckdb.configuration import DuckDbCredentials

from adapters.dlt_destination.delta import merges as delta_merges
from adapters.dlt_destination.delta.factory import delta_destination
from adapters.dlt_destination.destination import DltDestination
from adapters.dlt_destination.duckdb import memory as duckdb_memory
from adapters.dlt_destination.duckdb import store as duckdb_store
from adapters.dlt_destination.duckdb.factory import duckdb_destination
from adapters.dlt_destination.duckdb.store import DuckDbStore
from adapters.dlt_destination.files.bounded_chunks import SCAN_BYTES
from cdc_core.values.errors import DestinationUnavailable, SettingsError
from cdc_core.values.merges import METADATA_FIELDS, LoadBatch, TargetTable
from tests.contracts.destination_contract import (
    THEN,
    Content,
    checkpoint,
    keyed,
    multiset,
    table_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from adapters.dlt_destination.settings import PipelineSettings
    from adapters.dlt_destination.table_steps import StagedMerge, Step
    from cdc_core.ports.destination import Destination
    from tests.integration.destination.stores import Store

TARGET = TargetTable("big", pa.schema([("id", pa.int64()), ("n", pa.int32()), ("v", pa.string())]))
LARGE = 2_000_000


@pytest.fixture(autouse=True)
def half_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that half as large values are too large for it."""
    monkeypatch.setattr(duckdb_memory, "MEMORY_MB", duckdb_memory.MEMORY_MB // 2)


def text(seed: int, size: int = LARGE) -> str:
    """It does not compress to nothing."""
    return random.Random(seed).randbytes(size // 2).hex()


def rows(ids: Iterable[int], lsn: int, size: int = LARGE) -> list[dict[str, Any]]:
    return [{"id": n, "n": lsn, "v": text(n + lsn, size), "_cdc_lsn": lsn} for n in ids]


def whole(ids: Iterable[int], lsn: int, size: int = LARGE) -> Content:
    schema = pa.schema([*TARGET.schema, *METADATA_FIELDS])
    pieces: Iterator[pa.Table] = (
        pa.Table.from_pylist([{"_cdc_committed_at": THEN, **row}], schema=schema)
        for n in ids
        for row in rows([n], lsn, size)
    )
    return Content(TARGET, pieces)


def whole_at_once(ids: range) -> Content:
    """Small rows."""
    return table_of(TARGET, [{"id": n, "n": 1, "v": str(n), "_cdc_lsn": 1} for n in ids])


def changed(ids: Iterable[int], lsn: int) -> LoadBatch:
    return LoadBatch(merges=(keyed(TARGET, rows(ids, lsn)),))


def held(destination: Destination) -> dict[int, tuple[int, str]]:
    found: dict[int, tuple[int, str]] = {}
    for piece in destination.scan("big", ["id", "n", "v"]):
        assert piece.nbytes < 2 * SCAN_BYTES
        for row in piece.to_pylist():
            assert row["id"] not in found
            found[row["id"]] = (row["n"], digest(row["v"]))
    return found


def digest(value: str) -> str:
    return hashlib.md5(value.encode()).hexdigest()


def expected(ids: Iterable[int], lsn: int, size: int = LARGE) -> dict[int, tuple[int, str]]:
    return {n: (lsn, digest(text(n + lsn, size))) for n in ids}


def test_large_values_are_loaded_merged_and_read_in_chunks(
    store: Store, settings: PipelineSettings
) -> None:
    with DltDestination(store(), settings) as destination:
        whole(range(40), 1).load(destination, 1)
        destination.load(changed(range(30, 45), 2), checkpoint(2))
    with destination:
        assert held(destination) == expected(range(30), 1) | expected(range(30, 45), 2)


def test_duckdb_finds_large_values_that_were_not_sent(
    settings: PipelineSettings, tmp_path: Path
) -> None:
    """They are read from the table; a column added and one widened write it again."""
    wider = TargetTable("big", TARGET.schema.set(1, pa.field("n", pa.int64())))
    place = str(tmp_path / "lake.duckdb")
    unchanged = [{"id": n, "n": 2, "_cdc_lsn": 2, "_cdc_unchanged": ".2."} for n in range(40)]
    with duckdb_destination(settings, place) as destination:
        whole(range(40), 1).load(destination, 1)
    with duckdb_destination(settings, place) as destination:
        merge = keyed(wider, unchanged, unchanged_columns=("v",))
        destination.load(LoadBatch(merges=(merge,)), checkpoint(2))
        assert held(destination) == {n: (2, v) for n, (_, v) in expected(range(40), 1).items()}
    more = TargetTable("big", wider.schema.append(pa.field("o", pa.int64())))
    with duckdb_destination(settings, place) as destination:
        destination.load(LoadBatch(merges=(keyed(more, []),)), checkpoint(3))
        assert len(held(destination)) == 40


def test_duckdb_takes_large_values_that_come_one_by_one(
    settings: PipelineSettings, tmp_path: Path
) -> None:
    """Together they are more than its memory at first; so is a checkpoint of its log."""
    with duckdb_destination(settings, str(tmp_path / "lake.duckdb")) as destination:
        for n in range(5):
            merge = keyed(TARGET, rows([n], 1, 10 * LARGE))
            destination.load(LoadBatch(merges=(merge,)), checkpoint(1 + n))
        assert held(destination) == expected(range(5), 1, 10 * LARGE)


def test_duckdb_merges_large_rows_without_a_key(settings: PipelineSettings, tmp_path: Path) -> None:
    with duckdb_destination(settings, str(tmp_path / "lake.duckdb")) as destination:
        for lsn, operation in ((1, "U"), (2, "D")):
            contents = [
                {**row, "_cdc_lsn": lsn, "_cdc_op": operation} for row in rows(range(40), 1)
            ]
            destination.load(LoadBatch(merges=(multiset(TARGET, contents),)), checkpoint(lsn))
            assert len(held(destination)) == (40 if lsn == 1 else 0)


def test_a_limit_of_the_users_that_is_too_small_is_named(
    settings: PipelineSettings, tmp_path: Path
) -> None:
    place = DuckDbCredentials(str(tmp_path / "lake.duckdb"))
    place.global_config = {"memory_limit": "50MB"}
    with duckdb_destination(settings, place) as destination:
        with pytest.raises(SettingsError, match=r"memory_limit in destination\.duckdb\.cred"):
            whole(range(40), 1).load(destination, 1)
        with pytest.raises(SettingsError, match=r"memory_limit in destination\.duckdb\.cred"):
            destination.load(changed(range(40), 1), checkpoint(1))
        assert destination.read_checkpoint() is None


def test_a_machine_with_too_little_memory_is_named(
    settings: PipelineSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(duckdb_memory, "_most", lambda: 70)
    with duckdb_destination(settings, str(tmp_path / "lake.duckdb")) as destination:
        with pytest.raises(DestinationUnavailable, match="more memory than DuckDB has here"):
            whole(range(40), 1).load(destination, 1)
        with pytest.raises(DestinationUnavailable, match="more memory than DuckDB has here"):
            destination.load(changed(range(40), 1), checkpoint(1))
        assert destination.read_checkpoint() is None


def test_a_scan_of_duckdb_continues_when_it_meets_large_rows(
    settings: PipelineSettings, tmp_path: Path
) -> None:
    small, large, place = range(30_000), range(30_000, 30_060), str(tmp_path / "lake.duckdb")
    with duckdb_destination(settings, place) as destination:
        whole_at_once(small).load(destination, 1)
        for first in range(large.start, large.stop, 20):
            destination.load(changed(range(first, first + 20), 2), checkpoint(first))
    with duckdb_destination(settings, place) as destination:
        found = held(destination)
    assert found.keys() == {*small, *large}
    assert {n: found[n] for n in large} == expected(large, 2)


def test_a_checkpoint_of_duckdb_has_all_memory_that_there_may_be(
    settings: PipelineSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(duckdb_memory, "_most", lambda: 125)
    with duckdb_destination(settings, str(tmp_path / "lake.duckdb")) as destination:
        for n in range(8):
            merge = keyed(TARGET, rows([2 * n, 2 * n + 1], 1, 5_000_000))
            destination.load(LoadBatch(merges=(merge,)), checkpoint(1 + n))


def test_a_database_that_a_service_has_open_keeps_its_settings(
    settings: PipelineSettings, tmp_path: Path
) -> None:
    query = (
        "SELECT current_setting('memory_limit'), current_setting('preserve_insertion_order'),"
        " current_setting('arrow_large_buffer_size')"
    )
    with duckdb.connect(tmp_path / "lake.duckdb", config={"memory_limit": "300MB"}) as services:
        before = services.execute(query).fetchall()
        with duckdb_destination(settings, services) as destination:
            whole(range(3), 1).load(destination, 1)
            destination.load(changed(range(60), 2), checkpoint(2))
            assert held(destination) == expected(range(60), 2)
        assert services.execute(query).fetchall() == before


def test_duckdb_makes_no_checkpoint_by_itself(settings: PipelineSettings, tmp_path: Path) -> None:
    """Not at dlt's threshold either, which dlt sets over that of its credentials."""
    thresholds: list[str] = []

    class Watched(DuckDbStore):
        def apply(self, client: Any, table: str, steps: Sequence[Step]) -> None:
            query = "SELECT current_setting('checkpoint_threshold')"
            thresholds.extend(client.sql_client.native_connection.execute(query).fetchone())
            super().apply(client, table, steps)

    with DltDestination(Watched(str(tmp_path / "lake.duckdb")), settings) as destination:
        destination.load(changed(range(3), 1), checkpoint(1))
    assert thresholds
    assert all(text.endswith(" TiB") for text in thresholds)


def test_texts_beyond_a_usual_array_are_read(
    settings: PipelineSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A vector of them may have more than 2 GB: offsets are large, and no piece keeps others'."""
    batches, types = duckdb_store._batches, set()

    def watched(connection: Any, query: str) -> Iterator[pa.Table]:
        for piece in batches(connection, query):
            types.add(piece.schema.field("v").type)
            yield piece

    monkeypatch.setattr(duckdb_store, "_USUAL_ARRAY_BYTES", 1 << 20)
    monkeypatch.setattr(duckdb_store, "_batches", watched)
    with duckdb_destination(settings, str(tmp_path / "lake.duckdb")) as destination:
        whole(range(40), 1).load(destination, 1)
        assert held(destination) == expected(range(40), 1)
    assert types == {pa.large_string()}


def test_delta_merges_many_bytes_as_a_stream(
    settings: PipelineSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However little room they take in files."""
    streamed, staged = [], delta_merges._staged

    def watched(step: StagedMerge) -> Iterator[pa.Table]:
        streamed.append(True)
        return staged(step)

    monkeypatch.setattr(delta_merges, "STREAMED_BYTES", 1 << 20)
    monkeypatch.setattr(delta_merges, "_staged", watched)
    value = "x" * 50_000
    large = [{"id": n, "n": 2, "v": value, "_cdc_lsn": 2} for n in range(5, 45)]
    with delta_destination(settings, str(tmp_path / "lake")) as destination:
        whole_at_once(range(10)).load(destination, 1)
        destination.load(LoadBatch(merges=(keyed(TARGET, large[:5]),)), checkpoint(2))
        assert not streamed
        destination.load(LoadBatch(merges=(keyed(TARGET, large),)), checkpoint(3))
        assert streamed
        assert held(destination) == {n: (1, digest(str(n))) for n in range(5)} | {
            n: (2, digest(value)) for n in range(5, 45)
        }
