"""Names that the history of a table needs and something else has: one table waits, all others go
on, and nothing of either is lost."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from adapters.fakes import InMemoryDestination, InMemoryMonitor
from cdc_core.check.findings import Level
from cdc_core.plan.plan import Action
from cdc_core.use_cases import stream_changes
from cdc_core.use_cases.check_source import CheckSource
from cdc_core.use_cases.plan_run import PlanRun
from cdc_core.use_cases.show_status import ShowStatus
from cdc_core.use_cases.stream_changes import StreamChanges
from cdc_core.values.errors import TablesNeedSnapshot, TablesRefused
from cdc_core.values.table_rules import Rule
from tests.support.fake_world import COLUMNS, RuledWorld

if TYPE_CHECKING:
    from collections.abc import Callable

    from cdc_core.values.table_rules import History

KINDS: tuple[History, ...] = ("log", "scd2")
SUFFIX = {"log": "history", "scd2": "scd2"}
COLUMN = {"log": "_PG_LSN", "scd2": "__end_at"}


class Shop:
    """A table `t` with a history, and one beside it that nothing stops."""

    def __init__(self, *kinds: History) -> None:
        rules = (Rule(("public.t",), history=kinds),) if kinds else ()
        self.world = RuledWorld(rules=rules)
        self.t = self.create("t")
        self.beside = self.create("beside")

    def create(self, name: str, **columns: pa.DataType) -> int:
        oid = self.world.postgres.create_table(name, {**COLUMNS, **columns})
        self.insert(oid)
        return oid

    def insert(self, oid: int) -> None:
        table = self.world.postgres.tables[oid]
        key = 1 + len(table.rows)
        values = {"id": key, "n": key, "big": "x"}
        with self.world.postgres.transaction() as tx:
            tx.insert(oid, **{name: values.get(name) for name in table.relation.column_names})

    def waits(self, run: Callable[[], None], name: str, *words: str) -> str:
        """A run that sets aside a table and brings all others up to date."""
        with pytest.raises((TablesRefused, TablesNeedSnapshot)) as refused:
            run()
        assert refused.value.exit_code == 3
        said = str(refused.value)
        assert f"public.{name} (" in said
        for word in words:
            assert word in said
        self.is_equal("beside")
        return said

    def cdc_waits(self, name: str, *words: str) -> str:
        """Two runs, since the first one leaves another checkpoint than the second finds."""
        said = ""
        for _ in range(2):
            self.insert(self.beside)
            said = self.waits(self.world.cdc, name, *words)
        return said

    def cdc(self) -> None:
        self.insert(self.beside)
        self.world.cdc()
        self.is_equal("beside")

    def is_equal(self, name: str) -> None:
        tables = self.world.postgres.tables.values()
        rows = next(t.rows for t in tables if t.relation.table.name == name)
        found = self.world.lake.rows(name, *rows[0])
        assert sorted(found, key=_id) == sorted(rows, key=_id)

    def images(self, name: str = "t_history") -> list[tuple[str, int]]:
        rows = self.world.lake.tables[name].rows
        ordered = sorted(rows, key=lambda image: image["_sort_by"])
        return [(image["_pg_change_type"], image["id"]) for image in ordered]


def _id(row: dict[str, Any]) -> int:
    return int(row["id"])


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_table_with_the_name_of_a_history_waits(kind: History) -> None:
    shop = Shop(kind)
    shop.world.snapshot()
    name = f"T_{SUFFIX[kind]}"
    other = shop.create(name)
    shop.insert(shop.t)
    said = shop.cdc_waits(name, f"the history of public.t has the name t_{SUFFIX[kind]}")
    assert f"rename or exclude public.{name}" in said
    assert name not in shop.world.lake.tables
    shop.is_equal("t")
    assert len(shop.world.lake.tables[f"t_{SUFFIX[kind]}"].rows) == 2
    shop.world.postgres.rename_table(other, "other")
    shop.cdc()
    shop.is_equal("other")


@pytest.mark.parametrize("kind", KINDS)
def test_a_table_that_is_renamed_to_the_name_of_a_history_waits_where_it_was(
    kind: History,
) -> None:
    shop = Shop(kind)
    other = shop.create("other")
    shop.world.snapshot()
    name = f"t_{SUFFIX[kind]}"
    shop.world.postgres.rename_table(other, name)
    shop.insert(other)
    shop.insert(shop.t)
    shop.cdc_waits(name, f"has the name {name}")
    assert len(shop.world.lake.rows("other")) == 1
    assert len(shop.world.lake.tables[name].rows) == 2
    shop.is_equal("t")
    shop.world.postgres.rename_table(other, "another")
    shop.cdc()
    shop.is_equal("another")
    assert "other" not in shop.world.lake.tables


@pytest.mark.parametrize("kind", KINDS)
def test_a_history_that_a_rule_asks_for_later_waits_for_its_name(kind: History) -> None:
    shop = Shop()
    name = f"t_{SUFFIX[kind]}"
    other = shop.create(name)
    shop.world.snapshot()
    shop.world.rules = (Rule(("public.t",), history=(kind,)),)
    shop.insert(shop.t)
    shop.insert(other)
    said = shop.cdc_waits("t", f"its history needs the name {name}", f"public.{name} has")
    assert f"rename public.{name}, or exclude it and drop {name} in the destination" in said
    shop.is_equal(name)
    assert len(shop.world.lake.rows("t")) == 1
    shop.world.postgres.rename_table(other, "other")
    shop.cdc()
    shop.is_equal("t")
    shop.is_equal("other")
    assert len(shop.world.lake.tables[name].rows) == 2


def test_a_table_whose_name_a_history_needs_can_be_excluded_and_dropped_there() -> None:
    shop = Shop()
    shop.create("t_history")
    shop.world.snapshot()
    shop.world.rules = (Rule(("public.t",), history=("log",)),)
    shop.cdc_waits("t")
    shop.world.exclude = ("*_history",)
    kept = list(shop.world.lake.tables["t_history"].rows)
    shop.cdc_waits("t", "its history needs the name t_history", "rename or drop t_history there")
    assert shop.world.lake.tables["t_history"].rows == kept
    del shop.world.lake.tables["t_history"]
    shop.cdc()
    shop.is_equal("t")
    assert shop.images() == [("insert", 1)]


def test_a_table_that_is_created_beside_the_name_of_its_history_waits() -> None:
    shop = Shop()
    shop.world.rules = (Rule(("*",), history=("log",)),)
    shop.create("u_history")
    shop.world.snapshot()
    shop.create("u")
    shop.cdc_waits("u", "its history needs the name u_history")
    assert "u" not in shop.world.lake.tables
    shop.is_equal("u_history")


def test_a_renamed_table_whose_history_would_replace_a_table_waits_where_it_was() -> None:
    shop = Shop("log")
    shop.world.rules = (Rule(("public.t", "public.u"), history=("log",)),)
    other = shop.create("u_history")
    shop.world.snapshot()
    shop.world.postgres.rename_table(shop.t, "u")
    shop.insert(shop.t)
    shop.insert(other)
    shop.cdc_waits("u", "its history needs the name u_history")
    shop.is_equal("u_history")
    assert shop.images() == [("insert", 1)]
    shop.world.postgres.rename_table(other, "other")
    shop.cdc()
    shop.is_equal("u")
    shop.is_equal("other")
    assert shop.images("u_history") == [("insert", 1), ("insert", 2)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", ["add", "rename"])
def test_a_column_that_gets_the_name_of_one_of_the_history(kind: History, way: str) -> None:
    shop = Shop(kind)
    shop.world.snapshot()
    column = COLUMN[kind]
    if way == "add":
        shop.world.postgres.add_column(shop.t, column, pa.int64())
    else:
        shop.world.postgres.rename_column(shop.t, "big", column)
    shop.insert(shop.t)
    said = shop.cdc_waits("t", f"a column with the name of its column {column}")
    assert "rename the column, exclude it, or set history = [] for public.t" in said
    assert len(shop.world.lake.rows("t")) == 1
    assert len(shop.world.lake.tables[f"t_{SUFFIX[kind]}"].rows) == 1
    shop.world.postgres.rename_column(shop.t, column, "free")
    shop.cdc()
    shop.is_equal("t")
    assert len(shop.world.lake.tables[f"t_{SUFFIX[kind]}"].rows) >= 2


@pytest.mark.parametrize("cure", ["exclude", "no history"])
def test_the_cures_of_a_column(cure: str) -> None:
    shop = Shop("log")
    shop.world.snapshot()
    shop.world.postgres.add_column(shop.t, "_sort_by", pa.int64())
    shop.cdc_waits("t")
    shop.world.rules = (
        (Rule(("public.t",), history=("log",), exclude_columns=("_sort_by",)),)
        if cure == "exclude"
        else ()
    )
    shop.cdc()
    assert shop.world.lake.rows("t", "id", "n", "big") == [{"id": 1, "n": 1, "big": "x"}]
    assert ("_sort_by" in shop.world.lake.tables["t"].columns) is (cure == "no history")


@pytest.mark.parametrize("kind", KINDS)
def test_a_column_that_had_such_a_name_for_a_while_is_no_conflict(kind: History) -> None:
    shop = Shop(kind)
    shop.world.snapshot()
    shop.world.postgres.add_column(shop.t, COLUMN[kind], pa.int64())
    shop.insert(shop.t)
    shop.world.postgres.drop_column(shop.t, COLUMN[kind])
    shop.insert(shop.t)
    shop.cdc()
    shop.is_equal("t")
    assert COLUMN[kind] not in shop.world.lake.tables["t"].columns


@pytest.mark.parametrize("kind", KINDS)
def test_a_column_that_the_source_dropped_leaves_its_name_to_the_history(kind: History) -> None:
    shop = Shop()
    shop.world.postgres.add_column(shop.t, COLUMN[kind], pa.int64())
    shop.world.snapshot()
    shop.world.postgres.drop_column(shop.t, COLUMN[kind])
    shop.cdc()
    assert COLUMN[kind] in shop.world.lake.tables["t"].columns
    shop.world.rules = (Rule(("public.t",), history=(kind,)),)
    shop.cdc()
    shop.insert(shop.t)
    shop.cdc()
    shop.is_equal("t")
    history = shop.world.lake.tables[f"t_{SUFFIX[kind]}"]
    assert len({name.casefold() for name in history.columns}) == len(history.columns)
    assert len(history.rows) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_full_load_reads_all_tables_but_the_one_that_waits(kind: History) -> None:
    shop = Shop(kind)
    name = f"t_{SUFFIX[kind]}"
    shop.create(name)
    shop.create("wide", **{COLUMN[kind]: pa.int64()})
    shop.world.rules = (Rule(("public.t", "public.wide"), history=(kind,)),)
    said = shop.waits(shop.world.snapshot, name, "the history of public.t has the name")
    assert "public.wide (its history adds a column" in said
    shop.is_equal("t")
    assert "wide" not in shop.world.lake.tables
    assert len(shop.world.lake.tables[name].rows) == 1
    shop.insert(shop.t)
    shop.cdc_waits(name)
    shop.is_equal("t")
    said = shop.waits(lambda: shop.world.snapshot("wide"), "wide")
    assert "public.t" not in said.replace(name, "")
    shop.world.snapshot("t")


def test_an_unfinished_full_load_goes_on_without_the_table_that_waits() -> None:
    shop = Shop("log")
    shop.create("t_history")
    for call in itertools.count(1, 3):
        reached = _crashes(shop, call)
        shop.waits(shop.world.snapshot, "t_history")
        shop.is_equal("t")
        if not reached:
            break
        shop.world.lake.tables.clear()
        shop.world.lake.checkpoint = None
        shop.world.lake.written.clear()


def _crashes(shop: Shop, call: int) -> bool:
    try:
        return shop.world.crashing(call, "snapshot")
    except TablesRefused:
        return False


def test_a_dropped_table_keeps_its_history_when_a_table_gets_that_name() -> None:
    shop = Shop("log")
    shop.world.snapshot()
    shop.world.postgres.drop_table(shop.t)
    shop.create("t_history")
    shop.cdc()
    assert shop.images() == [("insert", 1)]
    assert len(shop.world.lake.rows("t_history_2")) == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", ["create", "rename"])
def test_a_history_that_was_switched_off_is_not_replaced(kind: History, way: str) -> None:
    shop = Shop(kind)
    other = shop.create("other")
    shop.world.snapshot()
    shop.world.rules = ()
    shop.cdc()
    name = f"t_{SUFFIX[kind]}"
    if way == "rename":
        shop.world.postgres.rename_table(other, name)
    else:
        shop.create(name)
    kept = list(shop.world.lake.tables[name].rows)
    shop.cdc_waits(name, f"has a history of another table under its name {name}")
    assert shop.world.lake.tables[name].rows == kept
    del shop.world.lake.tables[name]
    shop.cdc()
    shop.is_equal(name)


def test_a_history_is_not_renamed_onto_the_data_of_a_dropped_table() -> None:
    shop = Shop("log")
    shop.world.rules = (Rule(("public.t", "public.u"), history=("log",)),)
    other = shop.create("u_history")
    shop.world.snapshot()
    shop.world.postgres.drop_table(other)
    shop.cdc()
    kept = list(shop.world.lake.tables["u_history"].rows)
    shop.world.postgres.rename_table(shop.t, "u")
    shop.insert(shop.t)
    shop.cdc_waits("u", "its history needs the name u_history")
    assert shop.world.lake.tables["u_history"].rows == kept
    histories = [name for name in shop.world.lake.tables if name.startswith("t_history")]
    assert [shop.images(name) for name in histories] == [[("insert", 1)]]


def test_a_run_that_follows_takes_the_table_back_once_the_conflict_is_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shop = Shop("log")
    shop.world.snapshot()
    other = shop.create("t_history")
    steps = iter(
        [
            lambda: None,
            lambda: shop.world.postgres.rename_table(other, "other"),
            lambda: shop.insert(other),
        ]
    )

    def stop() -> bool:
        step = next(steps, None)
        if step is not None:
            step()
        return step is None

    parts = shop.world.parts()
    stream = StreamChanges(**parts, poll_seconds=0.0, progress=shop.world)
    monkeypatch.setattr(stream_changes, "LOOK_SECONDS", 0.0)
    stream.run(follow=True, stop=stop)
    assert any("public.t_history is set aside" in note for note in shop.world.notes)
    shop.world.cdc()
    shop.is_equal("other")


def test_check_plan_and_status_name_the_table() -> None:
    shop = Shop("log")
    shop.world.snapshot()
    shop.create("t_history")
    shop.create("wide", _sort_by=pa.int64())
    shop.world.rules = (Rule(("public.t", "public.wide"), history=("log",)),)
    parts = shop.world.parts()
    source, catalog, destination = parts["source"], parts["catalog"], parts["destination"]
    failed = {
        found.subject: found.sentence
        for found in CheckSource(source, catalog, destination, rules=catalog.rules).run()
        if found.level is Level.FAIL
    }
    assert failed.keys() == {"public.t_history", "public.wide"}
    assert "the history of public.t has the name t_history" in failed["public.t_history"]
    monitor = InMemoryMonitor(shop.world.postgres)
    plan = PlanRun(monitor, source, catalog, destination).run()
    waiting = {t.table: t.reason for t in plan.tables if t.action is Action.SET_ASIDE}
    assert waiting.keys() == failed.keys()
    lines = {line.table: line for line in ShowStatus(monitor, catalog, destination).run().tables}
    assert "has the name t_history" in lines["public.t_history"].reason
    shop.waits(shop.world.cdc, "t_history")
    empty = InMemoryDestination()
    plan = PlanRun(monitor, source, catalog, empty).run()
    waiting = {t.table: t.reason for t in plan.tables if t.action is Action.SET_ASIDE}
    assert waiting.keys() == failed.keys()
