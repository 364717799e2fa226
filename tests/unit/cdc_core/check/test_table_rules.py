"""What `check` says of a table: rights, streaming, names and types."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
import pytest

from cdc_core.check.findings import Finding, Level
from cdc_core.check.table_rules import passed_over_findings, tables_findings
from cdc_core.ports.catalog import PassedOver, Reason, SourceTable
from cdc_core.ports.source_inspector import PublicationFacts, TableFacts
from cdc_core.values.fingerprint import Fingerprint
from cdc_core.values.relation import Column, Relation, ReplicaIdentity, TableName
from cdc_core.values.table_rules import ColumnRule
from tests.unit.cdc_core.check.test_source_rules import GOOD

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


def test_a_table_without_key_is_reported_as_a_multiset() -> None:
    keyless = table()
    keyless = replace(keyless, relation=replace(keyless.relation, key=()))
    assert "as a multiset" in findings(keyless)[0].sentence


CASES = [
    (
        table(),
        replace(FACTS, relations_locked=900),
        {},
        Level.WARN,
        "GRANT SELECT ON each of its partitions TO cdc",
    ),
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
        "ALTER PUBLICATION pub ADD TABLE ONLY public.orders",
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
        "none needed: these names are kept from now on",
    ),
    (
        table("orders", "public", Column("n", pa.string(), 1700, pg_type="numeric")),
        FACTS,
        {},
        Level.WARN,
        "none needed; if you want numbers, cast it in a view at the destination",
    ),
    (
        table("orders", "public", Column("of", pa.string(), 2210, pg_type="regclass[]")),
        FACTS,
        {},
        Level.WARN,
        "verify --tables public.orders --repair",
    ),
    (table("a.b"), FACTS, {}, Level.WARN, "none needed: this name is kept from now on"),
    (table(), replace(FACTS, generated_columns=("total",)), {}, Level.WARN, "PostgreSQL 18"),
    (
        table(),
        replace(FACTS, generated_columns=("total",)),
        {"version": 180001},
        Level.WARN,
        "ALTER PUBLICATION pub SET (publish_generated_columns = stored)",
    ),
    (
        table(),
        replace(FACTS, generated_columns=("total",), virtual_columns=("total",)),
        {"version": 180001},
        Level.WARN,
        "none needed; compute them",
    ),
    (table(), replace(FACTS, row_filter="(id > 5)"), {}, Level.WARN, "if that is intended"),
    (table(), replace(FACTS, unlisted_columns=("ssn",)), {}, Level.WARN, "if that is intended"),
    (
        replace(table("my table"), not_streamed="is a foreign table"),
        FACTS,
        {},
        Level.WARN,
        "pgbronze snapshot --tables 'public.my table'",
    ),
]


@pytest.mark.parametrize(("found", "facts", "changes", "level", "cure"), CASES)
def test_each_problem_has_its_level_and_cure(found, facts, changes, level, cure) -> None:
    (line,) = findings(found, facts, **changes)
    assert line.level is level
    assert line.subject == str(found.relation.table)
    assert cure in line.cure


def test_a_number_that_is_hashed_is_not_kept_as_its_text() -> None:
    column = Column("price", pa.string(), 1700, pg_type="numeric(10,2)", rule=ColumnRule.HASH)
    (line,) = findings(table("orders", "public", column), FACTS)
    assert line.level is Level.OK


def test_no_table_at_all_is_a_warning() -> None:
    """As `snapshot` has it."""
    (found,) = tables_findings([], GOOD, "public", {})
    assert found.level is Level.WARN


def test_tables_of_another_role_share_one_statement() -> None:
    other = table("b")
    other = replace(other, published=False, relation=replace(other.relation, oid=2))
    one = replace(table(), published=False)
    publication = PublicationFacts("pub", exists=False, manageable=False, statement="CREATE IT")
    owned = replace(FACTS, owner=False)
    facts = replace(GOOD, tables={1: owned, 2: owned}, publication=publication)
    found = [f for f in tables_findings([one, other], facts, "public", {}) if f.level is Level.FAIL]
    assert [(f.subject, f.cure) for f in found] == [("publication pub", "CREATE IT")]
    assert "public.orders, public.b" in found[0].sentence


def test_what_is_passed_over_is_named() -> None:
    names = [("_dlt_loads", Reason.RESERVED), ("a", Reason.VIEW), ("b", Reason.EXCLUDED)]
    names += [("c", Reason.EXCLUDED), ("_dlt_x", Reason.RESERVED)]
    lines = list(passed_over_findings([PassedOver(TableName("public", n), r) for n, r in names]))
    warned = [line.subject for line in lines if line.level is Level.WARN]
    assert warned == ["public._dlt_loads", "public._dlt_x"]
    told = [line.sentence for line in lines if line.level is Level.OK]
    assert told[0].endswith("a view: public.a")
    assert told[1].endswith(": public.b, public.c")


def test_tables_that_want_one_name() -> None:
    other = table("b", "a")
    other = replace(other, relation=replace(other.relation, oid=2))
    lines = list(tables_findings([table("a__b"), other], GOOD, "public", {}))
    assert [line.level for line in lines] == [Level.OK, Level.WARN]
    assert "becomes a__b_2" in lines[1].sentence
