"""Parts of a table that need not be read again: how PostgreSQL tells that rows are the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

from adapters.pgoutput.snapshot import page_ranges
from adapters.pgoutput.snapshot.page_ranges import PageRange
from adapters.pgoutput.snapshot.snapshot_source import CopySnapshot, PgSnapshotSource

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from adapters.pgoutput.catalog.catalog import PgCatalog
    from adapters.pgoutput.session.settings import SourceSettings
    from cdc_core.values.relation import Relation


@pytest.fixture
def begin(
    settings: SourceSettings, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], AbstractContextManager[CopySnapshot]]:
    monkeypatch.setattr(page_ranges, "RANGE_PAGES", 6)
    return lambda: PgSnapshotSource(settings).begin(create_slot=False)


@pytest.fixture
def large(sql: psycopg.Connection, catalog: PgCatalog) -> Relation:
    sql.execute(
        "CREATE TABLE large (id int PRIMARY KEY, note text) WITH (autovacuum_enabled = off)"
    )
    sql.execute("INSERT INTO large SELECT i, repeat('n', 900) FROM generate_series(1, 200) i")
    (table,) = catalog.publish()
    return table.relation


def read(snapshot: CopySnapshot, relation: Relation) -> dict[str, int]:
    """Rows of each part."""
    return {
        part: sum(len(piece.rows) for piece in snapshot.read(relation, part))
        for part in snapshot.page_ranges(relation)
    }


def same(
    snapshot: CopySnapshot, relation: Relation, parts: dict[str, int], horizon: int
) -> list[str]:
    return [
        part for part, rows in parts.items() if snapshot.unchanged(relation, part, rows, horizon)
    ]


def test_a_transaction_under_way_and_its_subtransactions(
    begin: Callable[[], AbstractContextManager[CopySnapshot]],
    large: Relation,
    sql: psycopg.Connection,
    database: str,
) -> None:
    """What it wrote before the snapshot is not in it, whatever number it has."""
    with psycopg.connect(database) as open_one:
        with begin() as snapshot:
            open_one.execute("SAVEPOINT s")
            open_one.execute("UPDATE large SET note = 'by a subtransaction' WHERE id = 3")
            open_one.execute("RELEASE s")
            sql.execute("SELECT pg_current_xact_id()")
            horizon, parts = snapshot.horizon, read(snapshot, large)
        open_one.commit()
    with begin() as snapshot:
        unchanged = same(snapshot, large, parts, horizon)
    first = next(iter(parts))
    assert first not in unchanged
    assert unchanged


def test_vacuum_changes_no_rows(
    begin: Callable[[], AbstractContextManager[CopySnapshot]],
    large: Relation,
    sql: psycopg.Connection,
) -> None:
    sql.execute("DELETE FROM large WHERE id % 5 = 0")
    with begin() as snapshot:
        horizon, parts = snapshot.horizon, read(snapshot, large)
    sql.execute("VACUUM (FREEZE) large")
    with begin() as snapshot:
        assert same(snapshot, large, parts, horizon) == [*parts]
    # A new row in the room of a deleted one, a deleted row elsewhere: as many as before.
    sql.execute("INSERT INTO large VALUES (1000, repeat('n', 900))")
    sql.execute("DELETE FROM large WHERE id = 1")
    with begin() as snapshot:
        assert same(snapshot, large, parts, horizon) == [*parts][1:]


def test_an_old_horizon_proves_nothing(
    begin: Callable[[], AbstractContextManager[CopySnapshot]], large: Relation
) -> None:
    """Numbers of transactions come round: what is old would look new, and what is new old."""
    with begin() as snapshot:
        horizon, parts = snapshot.horizon, read(snapshot, large)
        assert same(snapshot, large, parts, horizon) == [*parts]
        assert same(snapshot, large, parts, horizon - (1 << 31) - 1000) == []
        assert same(snapshot, large, parts, horizon - (1 << 32)) == []


def test_partitions(
    begin: Callable[[], AbstractContextManager[CopySnapshot]],
    sql: psycopg.Connection,
    catalog: PgCatalog,
) -> None:
    sql.execute("CREATE TABLE root (id int, note text, PRIMARY KEY (id)) PARTITION BY RANGE (id)")
    for n, (low, high) in enumerate([(0, 150), (150, 180), (180, 400)]):
        sql.execute(
            f"CREATE TABLE root_{n} PARTITION OF root FOR VALUES FROM ({low}) TO ({high})".encode()
        )
    sql.execute("INSERT INTO root SELECT i, repeat('n', 900) FROM generate_series(0, 399) i")
    (table,) = catalog.publish()
    with begin() as snapshot:
        horizon, parts = snapshot.horizon, read(snapshot, table.relation)
        assert sum(parts.values()) == 400
        assert len(parts) > 3
    sql.execute("DELETE FROM root WHERE id = 179")
    with begin() as snapshot:
        changed = {*parts} - {*same(snapshot, table.relation, parts, horizon)}
    assert len(changed) == 1


def test_a_row_filter_counts(
    begin: Callable[[], AbstractContextManager[CopySnapshot]],
    large: Relation,
    sql: psycopg.Connection,
    settings: SourceSettings,
) -> None:
    """Rows that the publication leaves out are neither read nor looked at."""
    if sql.info.server_version < 150000:
        pytest.skip("publications have filters from PostgreSQL 15 on")
    sql.execute(
        f"ALTER PUBLICATION {settings.pub_name} SET TABLE large WHERE (id % 2 = 0)".encode()
    )
    with begin() as snapshot:
        horizon, parts = snapshot.horizon, read(snapshot, large)
        assert sum(parts.values()) == 100
    sql.execute("UPDATE large SET note = 'x' WHERE id = 1")
    with begin() as snapshot:
        assert same(snapshot, large, parts, horizon) == [*parts]


@pytest.mark.parametrize(
    ("pages", "read_ones", "parts"),
    [
        ([], [], ["0-"]),
        ([6], [], ["0-"]),
        ([7], [], ["0-6", "6-"]),
        ([20], [], ["0-6", "6-12", "12-18", "18-"]),
        ([20], ["6-12"], ["0-6", "12-18", "18-"]),
        ([20], ["0-6", "6-12", "12-18", "18-"], []),
        ([40], ["0-10"], ["10-12", "12-18", "18-24", "24-30", "30-36", "36-"]),
        ([4, 4], [], ["0-3", "3-"]),
    ],
)
def test_parts(
    monkeypatch: pytest.MonkeyPatch, pages: list[int], read_ones: list[str], parts: list[str]
) -> None:
    monkeypatch.setattr(page_ranges, "RANGE_PAGES", 6)
    found = page_ranges.page_ranges(pages, map(PageRange.parse, read_ones))
    assert [str(part) for part in found] == parts


def test_a_large_table_has_a_bounded_number_of_parts() -> None:
    pages = 1 << 31
    assert len(page_ranges.page_ranges([pages])) == page_ranges.MOST_RANGES


@pytest.mark.parametrize("part", ["", "0-40000", "40000-90000", "90000-"])
def test_shares_are_the_part(part: str) -> None:
    whole = PageRange.parse(part)
    shares = page_ranges.statement_ranges([100_000, 30_000], whole)
    assert (shares[0].start, shares[-1].end) == (whole.start, whole.end)
    assert [share.end for share in shares[:-1]] == [share.start for share in shares[1:]]
    assert len(shares) <= 1 + 2 * 130_000 // page_ranges.STATEMENT_PAGES
