"""Verify finds exactly the rows that differ, and repair makes them equal, on the fakes."""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.fakes import FaultPlan, InjectedCrash, InMemoryDestination, InMemorySource
from adapters.fakes.snapshot import Chunk, InMemorySnapshot
from cdc_core.use_cases.verify_parity import VerifyParity
from cdc_core.values.changes import Unrepresentable
from cdc_core.values.checkpoint import Checkpoint, TableStatus
from cdc_core.values.errors import (
    ContinuityLost,
    DestinationFailed,
    OperatorNeeded,
    SettingsError,
    WriterBusy,
)
from cdc_core.verify import compare_table, repair_table
from cdc_core.verify.report import ParityReport, TableParity
from tests.support.fake_world import COLUMNS, World, build, work

if TYPE_CHECKING:
    from collections.abc import Iterator


def verify(world: World, *globs: str, repair: bool = False, **options: Any) -> ParityReport:
    source = world.source()
    destination = InMemoryDestination(world.lake, world.faults)
    return VerifyParity(source, source, source, destination, **options).run(globs, repair=repair)


def line(report: ParityReport, table: str) -> TableParity:
    return next(found for found in report.tables if found.table == f"public.{table}")


def ids(found: TableParity, kind: str) -> list[int]:
    return sorted(int(json.loads(key.key)["id"]) for key in found.keys if key.kind == kind)


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare_table, "GROUP_ROWS", 2)
    monkeypatch.setattr(repair_table, "LOAD_ROWS", 2)


def loaded(rows: int = 6) -> tuple[World, int, int]:
    """A table with key, ids from 0 on, and a heap, both loaded."""
    world = World()
    keyed = world.postgres.create_table("keyed", COLUMNS)
    heap = world.postgres.create_table("heap", COLUMNS, key=())
    world.postgres.published.update([keyed, heap])
    with world.postgres.transaction() as tx:
        for n in range(rows):
            tx.insert(keyed, id=n, n=n, big=f"value {n}")
            tx.insert(heap, id=n % 2, n=None, big="twin")
    world.snapshot()
    return world, keyed, heap


def test_equal_tables_are_equal() -> None:
    world, *_ = loaded()
    report = verify(world)
    assert report.equal
    assert line(report, "keyed") == TableParity("public.keyed", "keyed", 6, 6)
    assert line(report, "heap").source_rows == 6
    assert report.lag_bytes == report.source_lsn - report.checkpoint_lsn > 0


@pytest.mark.usefixtures("small_pieces")
def test_differing_keys_are_named_and_repaired() -> None:
    world, *_ = loaded()
    table = world.lake.tables["keyed"]
    table.rows = [row for row in table.rows if row["id"] not in (1, 4)]
    table.rows[0]["big"] = None
    table.rows.append({**table.rows[0], "id": 77})
    report = verify(world)
    found = line(report, "keyed")
    assert not report.equal
    assert (found.missing, found.extra, found.different) == (2, 1, 1)
    assert ids(found, "missing") == [1, 4]
    assert ids(found, "extra") == [77]
    assert ids(found, "different") == [0]
    assert line(report, "heap").equal

    before = world.lake.checkpoint
    report = verify(world, repair=True)
    assert report.equal
    assert line(report, "keyed").repaired
    assert not line(report, "heap").repaired
    world.assert_equal()
    assert world.lake.checkpoint["lsn"] == before["lsn"]
    assert verify(world).equal


def test_rows_that_are_equal_are_not_written() -> None:
    world, *_ = loaded()
    table = world.lake.tables["keyed"]
    stamps = {row["id"]: row["_cdc_lsn"] for row in table.rows}
    table.rows[2]["n"] = 99
    verify(world, repair=True)
    changed = [row["id"] for row in table.rows if row["_cdc_lsn"] != stamps[row["id"]]]
    assert changed == [2]


@pytest.mark.usefixtures("small_pieces")
def test_copies_in_a_table_without_key_are_counted_and_repaired() -> None:
    world, *_ = loaded(9)
    table = world.lake.tables["heap"]
    table.rows = table.rows[3:] + [{**table.rows[0], "big": "stray"}] * 4
    found = line(verify(world), "heap")
    assert (found.missing, found.extra, found.different, found.keys) == (3, 4, 0, ())
    assert verify(world, repair=True).equal
    world.assert_equal()


def test_a_key_that_is_doubled_in_the_destination() -> None:
    world, *_ = loaded()
    rows = world.lake.tables["keyed"].rows
    rows.append(dict(rows[3]))
    found = line(verify(world), "keyed")
    assert (found.missing, found.extra, found.different) == (0, 0, 1)
    assert ids(found, "different") == [3]
    assert verify(world, repair=True).equal
    world.assert_equal()


def test_a_table_that_vanished_from_the_destination_is_repaired() -> None:
    world, *_ = loaded()
    del world.lake.tables["keyed"]
    found = line(verify(world, key_limit=2), "keyed")
    assert found.missing == 6
    assert len(found.keys) == 2
    assert verify(world, repair=True).equal
    world.assert_equal()


def test_what_the_stream_has_not_brought_yet_differs() -> None:
    world, keyed, _ = loaded()
    with world.postgres.transaction() as tx:
        tx.delete(keyed, id=0)
    report = verify(world)
    assert ids(line(report, "keyed"), "extra") == [0]
    world.cdc()
    assert verify(world).equal


def corrupt(world: World, chance: random.Random) -> None:
    for name in ("keyed", "other", "heap"):
        rows = world.lake.tables[name].rows
        for _ in range(chance.randint(0, 4)):
            if not rows:
                break
            row = chance.choice(rows)
            match chance.randrange(4):
                case 0:
                    rows.remove(row)
                case 1:
                    row["n"] = chance.choice([None, 5, 6])
                case 2:
                    rows.append({**row, "id": chance.randrange(20, 25)})
                case 3:
                    rows.append(dict(row))


def differing_ids(world: World, oid: int) -> set[int]:
    def by_id(rows: list[dict[str, Any]]) -> dict[int, Counter[tuple[Any, ...]]]:
        groups: dict[int, Counter[tuple[Any, ...]]] = {}
        for row in rows:
            groups.setdefault(row["id"], Counter())[row["n"], row["big"]] += 1
        return groups

    table = world.postgres.tables[oid]
    source, target = by_id(table.rows), by_id(world.lake.rows(table.relation.table.name))
    return {key for key in source | target if source.get(key) != target.get(key)}


@settings(max_examples=60)
@given(seed=st.integers(0, 10**6), behind=st.booleans(), small=st.booleans())
def test_verify_names_exactly_the_differences_and_repair_removes_them(
    seed: int, behind: bool, small: bool
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        if small:
            patch.setattr(compare_table, "GROUP_ROWS", 2)
            patch.setattr(repair_table, "LOAD_ROWS", 1)
        world, oids = build(seed, batch_transactions=1 + seed % 3)
        world.snapshot()
        work(world, oids, 6)
        world.cdc()
        if behind:
            work(world, oids, 4)
        corrupt(world, random.Random(seed))
        wanted = {oid: differing_ids(world, oid) for oid in oids}
        report = verify(world)
        for oid in oids[:2]:
            found = line(report, world.postgres.tables[oid].relation.table.name)
            assert {int(json.loads(key.key)["id"]) for key in found.keys} == wanted[oid]
            assert found.differing == len(wanted[oid])
        assert report.equal == (not any(wanted.values()))
        assert verify(world, repair=True).equal
        world.assert_equal()
        assert not any(state["status"] != "streaming" for state in world.lake.checkpoint["tables"])
        # The stream repeats what the repair has brought already, then goes on.
        work(world, oids, 4)
        world.batch_transactions = 1 + seed % 4
        world.cdc()
        world.assert_equal()


@pytest.mark.parametrize("seed", range(4))
def test_a_crash_within_a_repair_is_cured_by_cdc(seed: int) -> None:
    call, reached = 0, True
    while reached:
        world, oids = build(seed)
        world.snapshot()
        work(world, oids, 4)
        corrupt(world, random.Random(seed))
        world.faults = FaultPlan(at={call: InjectedCrash()})
        reached = False
        try:
            verify(world, repair=True)
        except InjectedCrash:
            world.postgres.writer, reached = None, True
        world.faults = FaultPlan()
        if reached:
            # What the repair did not reach differs still; it mends that too.
            world.cdc()
            verify(world, repair=True)
        world.assert_equal()
        work(world, oids, 3)
        world.cdc()
        world.assert_equal()
        call += 1
    assert call > 5


@pytest.mark.parametrize("cure", ["cdc", "repair"])
def test_a_repair_that_was_cut_short_is_finished(cure: str) -> None:
    world, *_ = loaded()
    world.lake.tables["keyed"].rows.clear()
    world.faults = FaultPlan(named={"destination.merge": InjectedCrash()})
    with pytest.raises(InjectedCrash):
        verify(world, repair=True)
    world.postgres.writer, world.faults = None, FaultPlan()
    states = Checkpoint.from_state(world.lake.checkpoint).tables.values()
    assert [s.status for s in states if s.target == "keyed"] == [TableStatus.NEEDS_SNAPSHOT]
    if cure == "cdc":
        world.cdc()
    else:
        assert "set aside" in line(verify(world), "keyed").note
        assert verify(world, repair=True).equal
    world.assert_equal()
    states = Checkpoint.from_state(world.lake.checkpoint).tables.values()
    assert {state.status for state in states} == {TableStatus.STREAMING}


def test_columns_that_only_one_side_has() -> None:
    world, keyed, heap = loaded()
    world.postgres.drop_column(keyed, "n")
    world.postgres.add_column(heap, "late", pa.string())
    report = verify(world)
    assert line(report, "keyed").equal
    assert "late" in line(report, "heap").problem
    assert not report.equal
    world.cdc()
    assert verify(world).equal


def test_renamed_columns_are_compared_by_number() -> None:
    world, keyed, _ = loaded()
    world.postgres.rename_column(keyed, "big", "large")
    assert verify(world).equal


def test_rows_are_not_repaired_under_another_definition() -> None:
    world, keyed, _ = loaded()
    world.postgres.add_column(keyed, "late", pa.string())
    world.lake.tables["keyed"].rows.pop()
    found = line(verify(world, repair=True), "keyed")
    assert not found.repaired
    assert "run: pgbronze cdc" in found.note


def test_rows_are_not_repaired_under_a_former_name() -> None:
    """The name may be another table's by now, after a run that did not end."""
    world, keyed, _ = loaded()
    world.postgres.rename_table(keyed, "renamed")
    world.lake.tables["keyed"].rows.pop()
    found = line(verify(world, repair=True), "renamed")
    assert not found.repaired
    assert "run: pgbronze cdc" in found.note


def test_a_table_that_is_not_loaded_is_not_equal() -> None:
    world, *_ = loaded()
    world.postgres.create_table("late", COLUMNS)
    found = line(verify(world, repair=True), "late")
    assert not found.equal
    assert "not loaded" in found.problem


def test_another_type_at_the_destination_is_reported() -> None:
    world, *_ = loaded()
    table = world.lake.tables["keyed"]
    table.columns["n"] = pa.string()
    for row in table.rows:
        row["n"] = str(row["n"])
    found = line(verify(world, repair=True), "keyed")
    assert found.problem == "n is string in the destination, not int64"
    assert "snapshot --tables" in found.note
    assert not found.equal


def test_a_table_that_cannot_be_read_there_does_not_stop_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world, *_ = loaded()
    scan = InMemoryDestination.scan

    def failing(self: InMemoryDestination, table: str, columns: Any) -> Any:
        if table == "heap":
            raise DestinationFailed("reading table 'heap': no column n")
        return scan(self, table, columns)

    monkeypatch.setattr(InMemoryDestination, "scan", failing)
    report = verify(world, repair=True)
    assert "snapshot --tables public.heap" in line(report, "heap").problem
    assert not line(report, "heap").equal
    assert line(report, "keyed").equal


@dataclass
class SourceWithInfinity(InMemorySource):
    """Its `big` cells that say "infinity" cannot be held by their type."""

    def begin(self, *, create_slot: bool) -> Any:
        return _Marking(super().begin(create_slot=create_slot))


@dataclass
class _Marking:
    inner: Any

    def __enter__(self) -> _MarkingSnapshot:
        return _MarkingSnapshot(self.inner.__enter__())

    def __exit__(self, *exc: object) -> None:
        self.inner.__exit__(*exc)


@dataclass
class _MarkingSnapshot:
    inner: InMemorySnapshot

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def read(self, relation: Any, part: str = "") -> Iterator[Chunk]:
        for piece in self.inner.read(relation, part):
            texts = piece.rows.column("big").to_pylist()
            marked = [n for n, text in enumerate(texts) if text and "infinity" in text]
            cells = pa.array([None if n in marked else text for n, text in enumerate(texts)])
            position = piece.rows.column_names.index("big")
            rows = piece.rows.set_column(position, "big", cells)
            yield Chunk(rows, tuple(Unrepresentable("big", n, texts[n]) for n in marked))


@pytest.mark.parametrize("table", ["keyed", "heap"])
def test_a_value_that_cannot_be_held_is_equal_once_it_is_recorded(table: str) -> None:
    world = World()
    key = ("id",) if table == "keyed" else ()
    oid = world.postgres.create_table(table, COLUMNS, key=key)
    world.source = lambda: SourceWithInfinity(world.postgres, chunk_rows=2)  # type: ignore[method-assign]
    with world.postgres.transaction() as tx:
        for n in range(5):
            tx.insert(oid, id=n, n=n, big="infinity" if n == 3 else "x")
    world.snapshot()
    assert verify(world).equal
    world.lake.tables["_cdc_unrepresentable"].rows.clear()
    found = line(verify(world), table)
    assert not found.equal
    if key:
        assert ids(found, "different") == [3]
    assert verify(world, repair=True).equal
    assert verify(world).equal


def test_what_must_be_there_before() -> None:
    world, _ = build(1)
    with pytest.raises(OperatorNeeded, match="no snapshot was taken"):
        verify(world)
    world.snapshot()
    with pytest.raises(SettingsError, match="matches none"):
        verify(world, "nothing*")
    assert [found.table for found in verify(world, "k*").tables] == ["public.keyed"]
    world.postgres.writer = "somebody"
    with pytest.raises(WriterBusy):
        verify(world)


def test_after_the_slot_was_lost_it_compares_but_does_not_repair() -> None:
    world, *_ = loaded()
    world.postgres.slot = None
    report = verify(world)
    assert report.equal
    assert "does not exist" in report.problem
    with pytest.raises(ContinuityLost):
        verify(world, repair=True)
