"""Following a definition: what is taken over in place, and what asks for a reading."""

from __future__ import annotations

import pyarrow as pa
import pytest

from cdc_core.fingerprint import Fingerprint
from cdc_core.lsn import Lsn
from cdc_core.ports.catalog import SourceTable
from cdc_core.relation import Column, Relation, ReplicaIdentity, TableName
from cdc_core.schema_change import evolve, first_state

ID = Column("id", pa.int64(), 20, attnum=1)
TEXT, CIDR, INET, VARCHAR, DOMAIN = 25, 650, 869, 1043, 16400


def table(*columns: Column, unsent: tuple[int, ...] = ()) -> SourceTable:
    relation = Relation(
        1, TableName("public", "t"), (ID, *columns), ReplicaIdentity.DEFAULT, ("id",)
    )
    return SourceTable(relation, Fingerprint(unsent=unsent), published=True)


@pytest.mark.parametrize(
    ("old", "new", "reread"),
    [
        (VARCHAR, TEXT, False),
        (TEXT, VARCHAR, False),
        (CIDR, INET, True),
        (DOMAIN, INET, True),
        (TEXT, DOMAIN, True),
        (CIDR, CIDR, False),
    ],
)
def test_a_type_that_may_print_otherwise_asks_for_a_reading(
    old: int, new: int, reread: bool
) -> None:
    before = first_state(table(Column("c", pa.string(), old, 5, attnum=2)), "t", Lsn(1))
    evolution = evolve(before, table(Column("c", pa.string(), new, 9, attnum=2)))
    assert evolution.reread == ("type of column c changed" if reread else "")


@pytest.mark.parametrize(("unsent", "reason"), [((2,), "column g was not sent before"), ((), "")])
def test_a_column_that_was_not_sent_has_values_already(
    unsent: tuple[int, ...], reason: str
) -> None:
    before = first_state(table(unsent=unsent), "t", Lsn(1))
    evolution = evolve(before, table(Column("g", pa.int32(), 23, attnum=2)))
    assert evolution.reread == reason
