"""Moving the slot while a backlog is read: after each batch, at a cost that does not grow."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from adapters.pgoutput import slot, slot_moves
from adapters.pgoutput.change_source import PgChangeSource
from adapters.pgoutput.slot_moves import SlotMoves
from adapters.pgoutput.streaming_reader import StreamingReader
from cdc_core.errors import WriterBusy
from cdc_core.lsn import Lsn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from adapters.pgoutput.catalog import PgCatalog
    from adapters.pgoutput.settings import SourceSettings
    from cdc_core.changes import ChangeBatch

BATCHES = 8


@pytest.fixture
def moved_by(sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What moved the slot, in order; to read WAL costs more than to open a stream."""
    del sql
    monkeypatch.setattr(slot_moves, "_SOON_READ_BYTES", 0)
    moves: list[str] = []

    def noted(kind: Any, name: str) -> None:
        original = getattr(kind, name)

        def call(*args: Any) -> Any:
            done = original(*args)
            moves.append(name)
            return done

        monkeypatch.setattr(kind, name, call)

    noted(StreamingReader, "confirm")
    noted(slot, "advance")
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
    """Where the slot stood at first and after each batch, which is confirmed when the next one has
    come or none will."""
    found = [standing(sql, settings)]
    read: list[Lsn] = []

    def confirm() -> None:
        source.confirm(read.pop())
        found.append(standing(sql, settings))

    for batch in backlog(source, sql, found[0][0]):
        if batch.complete and batch.changes:
            if read:
                confirm()
            read.append(batch.end_lsn)
    confirm()
    return found


def test_a_position_moves_after_each_batch_and_the_restart_point_at_the_end(
    source: PgChangeSource,
    sql: psycopg.Connection,
    settings: SourceSettings,
    moved_by: list[str],
) -> None:
    found = read(source, sql, settings)
    positions, restarts = zip(*found, strict=True)
    assert len(positions) == BATCHES + 1
    assert list(positions) == sorted(set(positions))
    assert restarts[-1] > restarts[0]
    # The last stream may have lived long enough to move it.
    assert moved_by[:-1] == ["confirm"] * (BATCHES - 1)


@pytest.mark.parametrize(
    ("kept", "copy", "ended", "moved"),
    [
        (1 << 30, "at the restart point", False, "confirm"),
        (1 << 30, "at the restart point", True, "confirm"),
        (1 << 30, "at the end", False, "confirm"),
        (1 << 30, "at the end", True, "advance"),
        (1, "at the end", False, "advance"),
        (1, "beyond the end", False, "confirm"),
        (1, "beyond the end", True, "advance"),
        (1, "a little further", False, "confirm"),
        (1, "a little further", True, "advance"),
        (1, "none", False, "advance"),
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
    ended: bool,
    moved: str,
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
    moves = SlotMoves(settings, sql, lambda: copies[copy])
    moves.ended = ended
    moves.move(end)
    assert moved_by == [moved]
    if moved == "advance":
        position, after = standing(sql, settings)
        assert position == end
        assert after > restart


def test_a_slot_moves_where_no_stream_is_to_be_had(
    source: PgChangeSource,
    sql: psycopg.Connection,
    settings: SourceSettings,
    moved_by: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(self: StreamingReader) -> None:
        del self
        raise psycopg.OperationalError("number of requested standby connections exceeds it")

    monkeypatch.setattr(StreamingReader, "open", refuse)
    read(source, sql, settings)
    assert moved_by == ["advance"] * BATCHES


@pytest.mark.usefixtures("moved_by")
def test_a_slot_that_another_process_has_is_not_moved(
    source: PgChangeSource,
    sql: psycopg.Connection,
    settings: SourceSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("adapters.pgoutput.slot._IN_USE_SECONDS", 0.2)
    before, _ = standing(sql, settings)
    batches = backlog(source, sql, before)
    first = next(batch for batch in batches if batch.complete)
    other = StreamingReader(settings, sql, before)
    try:
        other.open()
        with pytest.raises(WriterBusy):
            source.confirm(first.end_lsn)
    finally:
        other.close()
        batches.close()  # type: ignore[attr-defined]
    assert standing(sql, settings)[0] == before
