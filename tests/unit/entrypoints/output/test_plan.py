"""A plan as people read it: one line for each thing, whatever is in a name."""

from __future__ import annotations

from cdc_core.plan.plan import (
    Action,
    Definition,
    DefinitionKind,
    LeftOutColumn,
    PlannedColumn,
    PlannedTable,
    Run,
    RunPlan,
)
from cdc_core.values.checkpoint import SourceIdentity
from cdc_core.values.lsn import Lsn
from entrypoints.output.plan import plan_as_json, show_plan

ODD = "public.two\nlines [red]:bug: \x1b[31m"
SHOWN = r"public.two\nlines [red]:bug: \x1b[31m"


def plan(*tables: PlannedTable, **values) -> RunPlan:
    source = SourceIdentity("1", "shop", "dlt_cdc_slot")
    return RunPlan(Run.CDC, "it continues", source, None, Lsn(1), Lsn(2), tables=tables, **values)


def test_each_thing_has_its_line(capsys):
    table = PlannedTable(
        ODD,
        "t",
        Action.READ,
        "new table",
        columns=(
            PlannedColumn("id", "integer", "id", "INT", key=True),
            PlannedColumn("Id", "numeric", "Id_2", "STRING", losses=("a number becomes its text",)),
        ),
        left_out=(LeftOutColumn("g", "a generated column"),),
        definitions=(Definition(DefinitionKind.CREATE_TABLE, "t"),),
        history=("t_history",),
        rules={"deletes": "soft", "columns": {"a": "hash"}},
        rows=1200,
        bytes=4096,
    )
    show_plan(plan(table, at_source=("create replication slot x",), wal_bytes=2048))
    assert capsys.readouterr().out.splitlines() == [
        "next run     cdc: it continues",
        "reads        1 of 1 tables whole, about 1,200 rows, 4.0 kB; 2.0 kB of WAL",
        "statements   2 in the destination",
        "at source    create replication slot x",
        "",
        f"{SHOWN} -> t: is read whole (new table)",
        "  about 1,200 rows, 4.0 kB",
        "  create table t",
        "  write the difference to t_history",
        "  rules: deletes soft; a hash",
        "  id          integer  INT     key",
        "  Id as Id_2  numeric  STRING  a number becomes its text",
        "  left out: g, a generated column",
    ]


def test_statements_are_counted_as_they_are_sent():
    """Added columns of a table are one statement."""
    kinds = [DefinitionKind.RENAME_COLUMN, *[DefinitionKind.ADD_COLUMN] * 3]
    table = PlannedTable(
        "t", "t", Action.STREAM, definitions=tuple(Definition(k, "t") for k in kinds)
    )
    found = plan_as_json(plan(table, table))
    assert found["statements"] == 4
    assert [each["statements"] for each in found["tables"]] == [2, 2]


def test_a_problem_and_tables_set_aside_come_first(capsys):
    table = PlannedTable("public.t", "t", Action.SET_ASIDE, "no privilege; run: GRANT")
    show_plan(plan(table, problem="the slot is lost"))
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "problem      the slot is lost"
    assert lines[4] == "set aside    1 of 1 tables; the run will end with exit code 3"
