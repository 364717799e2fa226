"""Values of enums that the catalog's labels do not explain."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from cdc_core.tables.enum_labels import has_stray_label
from cdc_core.values.changes import Op, TableChanges
from cdc_core.values.fingerprint import Fingerprint, Label
from cdc_core.values.relation import Column, Relation, ReplicaIdentity, TableName

MOOD, DOMAIN, OTHER = 20000, 20001, 20002
KNOWN = Fingerprint(
    labels=(
        Label(1, "sad", MOOD),
        Label(2, "new", MOOD, doubted_until=15),
        Label(3, "red", OTHER),
    ),
    enums=((MOOD, MOOD), (DOMAIN, MOOD)),
)


@pytest.mark.parametrize("type_oid", [MOOD, DOMAIN])
@pytest.mark.parametrize(
    ("values", "stray"),
    [
        (["sad", "sad", None], False),
        (["sad", "tmp", None], True),
        (["red", "sad", "sad"], True),
        (["sad", "sad", "new"], False),
        (["sad", "new", "sad"], True),
        ([None, None, None], False),
    ],
)
def test_labels(type_oid: int, values: list[str | None], stray: bool) -> None:
    """Of changes that commit at 10, 15 and 20."""
    column = Column("m", pa.string(), type_oid, attnum=1)
    text = Column("t", pa.string(), 25, attnum=2)
    relation = Relation(1, TableName("public", "t"), (column, text), ReplicaIdentity.FULL)
    changes = TableChanges(
        relation,
        pa.table({"m": pa.array(values, pa.string()), "t": ["any", "text", "tmp"]}),
        np.full(3, Op.INSERT, np.uint8),
        np.array([10, 15, 20], np.uint64),
        np.zeros(3, np.int64),
        np.zeros(3, np.uint32),
        np.full(3, -1, np.int64),
    )
    assert has_stray_label(changes, KNOWN) is stray
