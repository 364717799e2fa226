from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from adapters.pgoutput.catalog.streamability import stream_obstacle, updates_refused
from adapters.pgoutput.catalog.table_rows import StoredRow, TableRow
from adapters.pgoutput.session.sql_text import quote
from cdc_core.values.relation import ReplicaIdentity, TableName

KEYED = StoredRow(1, TableName("public", "t"), 1, ReplicaIdentity.DEFAULT, ("id",), (), "p")
FULL = replace(KEYED, identity=ReplicaIdentity.FULL, primary_key=())
BARE = replace(KEYED, primary_key=())
NOTHING = replace(KEYED, identity=ReplicaIdentity.NOTHING)
PAIRED = replace(KEYED, primary_key=("a", "b"))
INDEXED = replace(BARE, identity=ReplicaIdentity.INDEX, identity_index=("b",))


def table(stored: StoredRow, *leaves: StoredRow, partitioned: bool = False) -> TableRow:
    return TableRow(stored, partitioned or bool(leaves), 2200, (), leaves, 0, 0)


@pytest.mark.parametrize(
    ("row", "obstacle", "refused"),
    [
        (table(KEYED), "", False),
        (table(FULL), "", False),
        (table(INDEXED), "", False),
        (table(BARE), "REPLICA IDENTITY FULL", True),
        (table(NOTHING), "REPLICA IDENTITY DEFAULT", True),
        (table(replace(INDEXED, identity_index=())), "REPLICA IDENTITY FULL", True),
        (table(replace(KEYED, persistence="u")), "SET LOGGED", False),
        (table(KEYED, partitioned=True), "", False),
        (table(KEYED, KEYED, replace(FULL, primary_key=("id",))), "", False),
        (table(KEYED, KEYED, NOTHING), "its partition public.t", True),
        (table(KEYED, replace(KEYED, persistence="f")), "foreign table", False),
        (table(KEYED, INDEXED), "REPLICA IDENTITY FULL", False),
        (table(KEYED, replace(INDEXED, primary_key=("id",))), "REPLICA IDENTITY DEFAULT", False),
        (table(replace(BARE, unique_index="i")), 'REPLICA IDENTITY USING INDEX "i"', True),
        (table(replace(BARE, deferrable_key=True)), "deferrable", True),
        (
            table(replace(BARE, unique_columns=("a", "b")), FULL),
            'ADD PRIMARY KEY ("a", "b")',
            False,
        ),
        (
            table(replace(BARE, persistence="u")),
            'SET LOGGED; ALTER TABLE "public"."t" REPLICA IDENTITY FULL',
            True,
        ),
        (table(PAIRED, replace(PAIRED, primary_key=("b", "a"))), "", False),
        (table(BARE, FULL), "without a primary key", False),
        (table(FULL, FULL), "without a primary key", False),
        (table(NOTHING, KEYED), "REPLICA IDENTITY DEFAULT", False),
    ],
)
def test_what_can_be_streamed(row: TableRow, obstacle: str, refused: bool) -> None:
    found = stream_obstacle(row)
    assert obstacle in found
    assert bool(found) is bool(obstacle)
    assert updates_refused(row) is refused


@pytest.mark.parametrize(("name", "quoted"), [("a", '"a"'), ('we"ird', '"we""ird"'), ("", '""')])
def test_identifiers_are_quoted(name: Any, quoted: str) -> None:
    assert quote(name) == quoted
