"""Parts of a batch: what they leave, and how much of it is held at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from cdc_core.fold import multi_part_batch
from cdc_core.fold.multi_part_batch import BatchParts
from cdc_core.values.lsn import Lsn
from cdc_core.values.merges import KEYED_CONTROL_FIELDS, METADATA_FIELDS, KeyedMerge, TargetTable
from cdc_core.values.relation import Column, Relation, ReplicaIdentity, TableName

if TYPE_CHECKING:
    import pytest

RELATION = Relation(
    1,
    TableName("public", "t"),
    (Column("id", pa.int64(), 20), Column("v", pa.string(), 25)),
    ReplicaIdentity.DEFAULT,
    ("id",),
)
OWN = pa.schema([("id", pa.int64()), ("v", pa.string())])
STAGED = pa.schema([*OWN, *METADATA_FIELDS, *KEYED_CONTROL_FIELDS])


@dataclass
class Stage:
    """Staged rows that are in memory."""

    rows: pa.Table

    def __len__(self) -> int:
        return len(self.rows)

    def read(self) -> pa.Table:
        return self.rows


def merge(rows: int, *, truncated_at: Lsn | None = None) -> KeyedMerge:
    table = pa.table(
        [
            pa.array(range(rows), pa.int64()),
            pa.array(["x" * 1000] * rows, pa.string()),
            pa.array([7] * rows, pa.int64()),
            pa.array([0] * rows, METADATA_FIELDS[1].type),
            pa.array(["U"] * rows, pa.string()),
            pa.nulls(rows, pa.string()),
            pa.nulls(rows, pa.int64()),
        ],
        schema=STAGED,
    )
    return KeyedMerge(TargetTable("t", OWN), ("id",), table, truncated_at)


def test_a_truncate_alone_follows_the_table_to_its_new_name() -> None:
    parts = BatchParts[int](Stage)
    parts.add(1, RELATION, merge(0, truncated_at=Lsn(5)))
    taken = parts.take(1, TargetTable("t9", OWN), ("id",), ())
    assert (taken.target.name, taken.truncated_at, len(taken.rows)) == ("t9", 5, 0)
    assert taken.rows.schema == STAGED


def test_parts_with_the_same_keys_are_folded_again_in_bounded_chunks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(multi_part_batch, "REGROUP_BYTES", 100_000)
    sizes: list[int] = []

    def stage(rows: pa.Table) -> Stage:
        sizes.append(rows.nbytes)
        return Stage(rows)

    parts = BatchParts[int](stage)
    for _ in range(3):
        parts.add(1, RELATION, merge(400))
    taken = parts.take(1, TargetTable("t", OWN), ("id",), ())
    assert sum(map(len, taken.staged)) == 400
    assert len(taken.staged) > 5
    assert max(sizes) < 150_000
