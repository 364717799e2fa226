"""What `check` says of a table: rights, streaming, names and types."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
import pytest

from cdc_core.findings import Finding, Level
from cdc_core.fingerprint import Fingerprint
from cdc_core.ports.catalog import SourceTable
from cdc_core.ports.source_inspector import PublicationFacts, TableFacts
from cdc_core.relation import Column, Relation, ReplicaIdentity, TableName
from cdc_core.table_rules import tables_findings
from tests.unit.cdc_core.test_source_rules import GOOD

FACTS = TableFacts(schema_usage=True, select=True, owner=True, hidden_rows=False)


def table(name: str = "orders", schema: str = "public", *columns: Column) -> SourceTable:
    relation = Relation(
        1,
        TableName(schema, name),
        (Column("id", pa.int64(), 20, pg_type="bigint"), *columns),
        ReplicaIdentity.DEFAULT,
        ("id",),
    )
    return SourceTable(relation, Fingerprint(), published=True)


def findings(found: SourceTable, facts: TableFacts = FACTS, **changes) -> list[Finding]:
    return list(tables_findings([found], replace(GOOD, tables={1: facts}, **changes), "public", {}))


def test_a_table_without_a_problem_has_one_line() -> None:
    (found,) = findings(table())
    assert (found.level, found.subject) == (Level.OK, "public.orders")
    assert found.sentence == "streams by key (id), to orders"


def test_a_multiset_is_told_as_one() -> None:
    keyless = table()
    keyless = replace(keyless, relation=replace(keyless.relation, key=()))
    assert "as a multiset" in findings(keyless)[0].sentence


CASES = [
    (
        table(),
        replace(FACTS, schema_usage=False),
        {},
        Level.FAIL,
        "GRANT USAGE ON SCHEMA public TO cdc",
    ),
    (
        table("Orders"),
        replace(FACTS, select=False),
        {},
        Level.FAIL,
        'GRANT SELECT ON public."Orders" TO cdc',
    ),
    (table(), replace(FACTS, hidden_rows=True), {}, Level.FAIL, "ALTER ROLE cdc BYPASSRLS"),
    (
        replace(table(), published=False),
        replace(FACTS, owner=False),
        {},
        Level.FAIL,
        "ALTER PUBLICATION pub ADD TABLE public.orders",
    ),
    (
        replace(table(), published=False),
        replace(FACTS, owner=False),
        {"publication": PublicationFacts("pub", exists=False, manageable=False)},
        Level.FAIL,
        "CREATE PUBLICATION pub FOR TABLE public.orders",
    ),
    (
        replace(
            table(), not_streamed="has no primary key; run: ALTER TABLE x REPLICA IDENTITY FULL"
        ),
        FACTS,
        {},
        Level.WARN,
        "ALTER TABLE x REPLICA IDENTITY FULL",
    ),
    (
        table("orders", "public", Column("ID", pa.string(), 25)),
        FACTS,
        {},
        Level.WARN,
        "RENAME COLUMN",
    ),
    (
        table("orders", "public", Column("n", pa.string(), 1700, pg_type="numeric")),
        FACTS,
        {},
        Level.WARN,
        "ALTER COLUMN n TYPE numeric(38, 10)",
    ),
    (
        table("orders", "public", Column("of", pa.string(), 2210, pg_type="regclass[]")),
        FACTS,
        {},
        Level.WARN,
        "verify --tables public.orders --repair",
    ),
    (table("a.b"), FACTS, {}, Level.WARN, 'ALTER TABLE public."a.b" RENAME TO'),
    (table(), replace(FACTS, generated_columns=("total",)), {}, Level.WARN, "PostgreSQL 18"),
]


@pytest.mark.parametrize(("found", "facts", "changes", "level", "cure"), CASES)
def test_each_problem_has_its_level_and_cure(found, facts, changes, level, cure) -> None:
    (line,) = findings(found, facts, **changes)
    assert line.level is level
    assert line.subject == str(found.relation.table)
    assert cure in line.cure


def test_no_table_at_all_is_a_failure() -> None:
    (found,) = tables_findings([], GOOD, "public", {})
    assert found.level is Level.FAIL


def test_tables_that_want_one_name() -> None:
    other = table("b", "a")
    other = replace(other, relation=replace(other.relation, oid=2))
    lines = list(tables_findings([table("a__b"), other], GOOD, "public", {}))
    assert [line.level for line in lines] == [Level.OK, Level.WARN]
    assert "becomes a__b_2" in lines[1].sentence
