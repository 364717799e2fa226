"""A large table is read in parts; what a killed run read of it is not read again."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapters.fakes import FaultPlan, InjectedCrash
from adapters.fakes.snapshot import InMemorySnapshot
from cdc_core.values.checkpoint import Checkpoint, PartialReading
from tests.support.fake_world import COLUMNS, World

if TYPE_CHECKING:
    from collections.abc import Callable

    from cdc_core.values.relation import Relation

ROWS = 20
PART_ROWS = 4


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The parts that are read, in order."""
    found: list[str] = []
    plain = InMemorySnapshot.read

    def noting(self: InMemorySnapshot, relation: Relation, part: str) -> Any:
        found.append(part)
        return plain(self, relation, part)

    monkeypatch.setattr(InMemorySnapshot, "read", noting)
    return found


def large_table(key: tuple[str, ...] = ("id",)) -> tuple[World, int]:
    world = World(range_rows=PART_ROWS)
    oid = world.postgres.create_table("large", COLUMNS, key=key, toasted=("big",))
    with world.postgres.transaction() as tx:
        for n in range(ROWS):
            tx.insert(oid, id=n, n=n, big=f"big {n}")
    return world, oid


def killed(world: World, name: str = "destination.write", times: int = 3) -> None:
    """A snapshot that is killed when this is called for so many times."""
    calls = 0

    class Nth(FaultPlan):
        def pass_by(self, call: str) -> None:
            nonlocal calls
            calls += call == name
            if calls == times:
                raise InjectedCrash

    world.faults = Nth()
    with suppress(InjectedCrash):
        world.snapshot()
    assert calls == times
    world.faults, world.postgres.writer = FaultPlan(), None


def reading(world: World) -> PartialReading:
    assert world.lake.checkpoint is not None
    found = Checkpoint.from_state(world.lake.checkpoint).reading
    assert found is not None
    return found


def test_parts_that_were_read_are_not_read_again(read: list[str]) -> None:
    world, _ = large_table()
    killed(world)
    assert read == ["0-4", "4-8"]
    assert [kept.page_range for kept in reading(world).ranges] == ["0-4", "4-8"]
    read.clear()
    world.snapshot()
    assert read == ["8-12", "12-16", "16-"]
    world.assert_equal()
    assert not world.lake.written
    assert Checkpoint.from_state(world.lake.checkpoint or {}).reading is None


@pytest.mark.parametrize("key", [("id",), ()])
@pytest.mark.parametrize(
    ("change", "again"),
    [
        (lambda tx, oid, rows: tx.update(oid, rows[1], n=99), ["0-4"]),
        (lambda tx, oid, rows: tx.update(oid, rows[5], n=99), ["4-8"]),
        (lambda tx, oid, rows: tx.update(oid, rows[9], n=99), []),
        (lambda tx, oid, rows: tx.insert(oid, id=100, n=0, big="new"), []),
        (lambda tx, oid, rows: tx.delete(oid, **rows[5]), ["4-8"]),
    ],
    ids=["first part", "second part", "part not read", "insert at the end", "delete"],
)
def test_a_part_that_changed_since_is_read_again(
    read: list[str], key: tuple[str, ...], change: Callable[..., None], again: list[str]
) -> None:
    world, oid = large_table(key)
    killed(world)
    with world.postgres.transaction() as tx:
        change(tx, oid, [dict(row) for row in world.postgres.tables[oid].rows])
    read.clear()
    world.snapshot()
    assert read[: len(again)] == again
    assert [part for part in read if part in ("0-4", "4-8")] == again
    world.assert_equal()
    with world.postgres.transaction() as tx:
        tx.update(oid, dict(world.postgres.tables[oid].rows[1]), n=77)
    world.cdc()
    world.assert_equal()


def test_a_replaced_table_is_read_again(read: list[str]) -> None:
    world, oid = large_table()
    killed(world)
    world.postgres.add_column(oid, "more", pa.string(), default="given")
    read.clear()
    world.snapshot()
    assert read == ["0-4", "4-8", "8-12", "12-16", "16-"]
    world.assert_equal()
    assert not world.lake.written


def test_parts_that_are_gone_from_the_destination_are_read_again(read: list[str]) -> None:
    world, _ = large_table()
    killed(world)
    del world.lake.written[reading(world).ranges[0].name]
    read.clear()
    world.snapshot()
    assert read == ["0-4", "8-12", "12-16", "16-"]
    world.assert_equal()


def test_the_stream_reads_a_table_that_a_full_load_left_out(read: list[str]) -> None:
    world, _ = large_table()
    killed(world)
    read.clear()
    world.cdc()
    assert read == ["8-12", "12-16", "16-"]
    world.assert_equal()
    assert not world.lake.written


def test_kept_rows_of_a_dropped_table_are_removed() -> None:
    world, oid = large_table()
    other = world.postgres.create_table("small", COLUMNS)
    killed(world)
    assert len(world.lake.written) == 2
    world.postgres.drop_table(oid)
    world.cdc()
    with world.postgres.transaction() as tx:
        tx.insert(other, id=1, n=1, big=None)
    world.cdc()
    world.assert_equal()
    assert not world.lake.written


def test_two_large_tables(read: list[str]) -> None:
    """That of which parts are kept comes first."""
    world, _ = large_table()
    killed(world)
    before = world.postgres.create_table("a table before it", COLUMNS)
    with world.postgres.transaction() as tx:
        for n in range(6):
            tx.insert(before, id=n, n=n, big=None)
    read.clear()
    world.snapshot()
    assert read == ["8-12", "12-16", "16-", "0-4", "4-"]
    world.assert_equal()


@settings(
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    kills=st.lists(st.integers(0, 45), max_size=5),
    changes=st.lists(st.tuples(st.sampled_from("iud"), st.integers(0, 30)), max_size=8),
    keyed=st.booleans(),
)
def test_any_changes_between_any_kills(
    kills: list[int], changes: list[tuple[str, int]], keyed: bool
) -> None:
    world, oid = large_table(("id",) if keyed else ())
    for number, call in enumerate(kills):
        world.crashing(call, "snapshot")
        with world.postgres.transaction() as tx:
            for kind, row in changes[number::2]:
                rows = world.postgres.tables[oid].rows
                if kind == "i" and not any(other["id"] == 100 + row for other in rows):
                    tx.insert(oid, id=100 + row, n=0, big="new")
                elif rows and kind == "u":
                    tx.update(oid, dict(rows[row % len(rows)]), n=-row)
                elif rows and kind == "d":
                    tx.delete(oid, **rows[row % len(rows)])
    world.snapshot()
    world.assert_equal()
    world.cdc()
    world.assert_equal()
    assert not world.lake.written
