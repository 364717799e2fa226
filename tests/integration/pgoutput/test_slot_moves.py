"""Moving the slot while a backlog is read: after each batch, at a cost that does not grow."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from adapters.pgoutput.changes import slot_moves
from adapters.pgoutput.changes.change_source import PgChangeSource
from adapters.pgoutput.changes.slot_moves import SlotMoves
from adapters.pgoutput.changes.walsender_reader import WalsenderReader
from cdc_core.values.errors import WriterBusy
from cdc_core.values.lsn import Lsn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from adapters.pgoutput.catalog.catalog import PgCatalog
    from adapters.pgoutput.session.settings import SourceSettings
    from cdc_core.values.changes import ChangeBatch

BATCHES = 8


@pytest.fixture
def moved_by(sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What moved the slot, in order; to read WAL costs more than to open a stream."""
    del sql
    monkeypatch.setattr(slot_moves, "_SOON_READ_BYTES", 0)
    moves: list[str] = []

    def noted(kind: type, name: str) -> None:
        original = getattr(kind, name)

        def call(self: Any, *args: Any) -> Any:
            done = original(self, *args)
            moves.append(name)
            return done

        monkeypatch.setattr(kind, name, call)

    noted(WalsenderReader, "confirm")
    noted(SlotMoves, "_advance")
    return moves


@pytest.fixture
def source(
    settings: SourceSettings, catalog: PgCatalog, sql: psycopg.Connection
) -> Iterator[PgChangeSource]:
    """With a backlog of eight batches, which is read in steps."""
    sql.execute("CREATE TABLE a (id int PRIMARY KEY)")
    catalog.publish()
    with PgChangeSource(replace(settings, batch_max_bytes=30_000)) as source:
        source.create_slot()
        for batch in range(BATCHES):
            sql.execute(
                "INSERT INTO a SELECT %s * 10000 + j FROM generate_series(1, 2000) j", [batch]
            )
            sql.execute("CHECKPOINT")  # from which a slot can decode later
        yield source


def standing(sql: psycopg.Connection, settings: SourceSettings) -> tuple[Lsn, Lsn]:
    row: Any = sql.execute(
        "SELECT confirmed_flush_lsn::text, restart_lsn::text FROM pg_replication_slots "
        "WHERE slot_name = %s",
        [settings.slot_name],
    ).fetchone()
    return Lsn.parse(row[0]), Lsn.parse(row[1])


def backlog(source: PgChangeSource, sql: psycopg.Connection, after: Lsn) -> Iterator[ChangeBatch]:
    tables = [row[0] for row in sql.execute("SELECT 'a'::regclass::oid::int").fetchall()]
    return source.read(after, source.current_lsn(), tables)


def read(
    source: PgChangeSource, sql: psycopg.Connection, settings: SourceSettings
) -> list[tuple[Lsn, Lsn]]:
    """Where the slot stood before and after each batch, and at the end."""
    found = [standing(sql, settings)]
    for batch in backlog(source, sql, found[0][0]):
        if batch.complete and batch.changes:
            source.confirm(batch.end_lsn)
            found.append(standing(sql, settings))
            assert found[-1][0] == batch.end_lsn
    return [*found, standing(sql, settings)]


def test_a_position_moves_after_each_batch_and_the_restart_point_at_the_end(
    source: PgChangeSource,
    sql: psycopg.Connection,
    settings: SourceSettings,
    moved_by: list[str],
) -> None:
    begin, *between, end = read(source, sql, settings)
    assert len(between) == BATCHES
    positions = [position for position, _ in (begin, *between)]
    assert positions == sorted(set(positions))
    assert end[1] > begin[1]
    assert moved_by[: BATCHES - 1] == ["confirm"] * (BATCHES - 1)


@pytest.mark.parametrize(
    ("kept", "copy", "moves"),
    [
        (1 << 30, "at the restart point", ["confirm"]),
        (1 << 30, "at the end", ["confirm", "_advance"]),
        (1, "at the end", ["_advance"]),
        (1, "beyond the end", ["confirm", "_advance"]),
        (1, "a little further", ["confirm", "_advance"]),
        (1, "none", ["_advance"]),
    ],
)
def test_the_restart_point_moves_where_that_lets_go_of_much(
    source: PgChangeSource,
    sql: psycopg.Connection,
    settings: SourceSettings,
    moved_by: list[str],
    monkeypatch: pytest.MonkeyPatch,
    kept: int,
    copy: str,
    moves: list[str],
) -> None:
    monkeypatch.setattr(slot_moves, "_KEPT_BYTES", kept)
    # As if no stream lived long enough to read anything.
    monkeypatch.setattr(SlotMoves, "_by_stream", lambda *_: not moved_by.append("confirm"))
    end, (_, restart) = source.current_lsn(), standing(sql, settings)
    copies = {
        "at the restart point": restart,
        "a little further": Lsn(restart + (end - restart) // 3),
        "at the end": end,
        "beyond the end": Lsn(end + 1),
        "none": None,
    }
    reading = SlotMoves(settings, sql, lambda: copies[copy])
    reading.move(end)
    reading.settle()
    assert moved_by == moves
    if "_advance" in moves:
        position, after = standing(sql, settings)
        assert position == end
        assert after > restart


def test_a_slot_moves_without_a_walsender(
    source: PgChangeSource,
    sql: psycopg.Connection,
    settings: SourceSettings,
    moved_by: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(self: WalsenderReader) -> None:
        del self
        raise psycopg.OperationalError("number of requested standby connections exceeds it")

    monkeypatch.setattr(WalsenderReader, "open", refuse)
    read(source, sql, settings)
    assert set(moved_by) == {"_advance"}
    assert len(moved_by) == BATCHES


@pytest.mark.usefixtures("moved_by")
def test_a_slot_that_another_process_has_is_not_moved(
    source: PgChangeSource,
    sql: psycopg.Connection,
    settings: SourceSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("adapters.pgoutput.slot.slot._IN_USE_SECONDS", 0.2)
    before, _ = standing(sql, settings)
    batches = backlog(source, sql, before)
    first = next(batch for batch in batches if batch.complete)
    other = WalsenderReader(settings, sql, before)
    try:
        other.open()
        with pytest.raises(WriterBusy):
            source.confirm(first.end_lsn)
    finally:
        other.close()
        batches.close()  # type: ignore[attr-defined]
    assert standing(sql, settings)[0] == before
