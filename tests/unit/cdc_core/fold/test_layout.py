"""Changes in the columns of their target, from one version of a definition or several."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from adapters.fakes import InMemoryPostgres
from cdc_core.fold.layout import lay_out
from cdc_core.fold.row_layout import RowLayout
from cdc_core.values.changes import Op, TableChanges
from cdc_core.values.checkpoint import ColumnState
from cdc_core.values.lsn import Lsn
from cdc_core.values.merges import TargetTable

TARGET = TargetTable("t", pa.schema([("id", pa.int64()), ("text", pa.string())]))


def column(name: str, target: str, kind: pa.DataType) -> ColumnState:
    return ColumnState(1, name, target, 20, -1, kind)


LAYOUT = RowLayout(
    {"id": column("id", "id", pa.int64()), "old": column("old", "text", pa.string())}
)
RENAMED = RowLayout(
    {"id": column("id", "id", pa.int64()), "new": column("new", "text", pa.string())}
)


def version(
    name: str, ids: list[int], lsns: list[int], moved: list[int] | None = None, oid: int = 1
) -> TableChanges:
    """Updates whose column `name` was not sent for the first row."""
    postgres = InMemoryPostgres()
    for _ in range(oid):
        number = postgres.create_table(f"t{oid}", {"id": pa.int64(), name: pa.string()})
    count = len(ids)
    return TableChanges(
        relation=postgres.tables[number].relation,
        rows=pa.table({"id": pa.array(ids, pa.int64()), name: [f"{n}" for n in ids]}),
        op=np.full(count, Op.UPDATE, np.uint8),
        commit_lsn=np.array(lsns, np.uint64),
        committed_at=np.array(lsns, np.int64) * 1000,
        xid=np.array(lsns, np.uint32) + 7,
        moved_from=np.array(moved or [-1] * count, np.int64),
        unchanged={name: np.arange(count) == 0},
    )


def test_one_version_gets_the_targets_columns() -> None:
    found = lay_out([(version("old", [1, 2], [10, 20]), LAYOUT)], TARGET, Lsn(5))
    assert found.rows.to_pylist() == [{"id": 1, "text": "1"}, {"id": 2, "text": "2"}]
    assert found.rows.schema == TARGET.schema
    assert found.commit_lsn.tolist() == [10, 20]
    assert found.unchanged["text"].tolist() == [True, False]


def test_versions_follow_one_another() -> None:
    """A row that got its key in a version still names the event before it."""
    first = version("old", [1, 2], [10, 20], [-1, 0])
    second = version("new", [3, 4, 5], [30, 40, 50], [-1, 0, 1], oid=2)
    found = lay_out([(first, LAYOUT), (second, RENAMED)], TARGET, Lsn(5))
    assert found.relation == second.relation
    assert [row["text"] for row in found.rows.to_pylist()] == ["1", "2", "3", "4", "5"]
    assert found.moved_from.tolist() == [-1, 0, -1, 2, 3]
    assert found.unchanged["text"].tolist() == [True, False, True, False, False]
    assert found.commit_lsn.tolist() == [10, 20, 30, 40, 50]
    assert found.committed_at.tolist() == [10_000, 20_000, 30_000, 40_000, 50_000]
    assert found.xid.tolist() == [17, 27, 37, 47, 57]
    assert found.op.tolist() == [Op.UPDATE] * 5


def test_the_last_version_counts() -> None:
    versions = [version("old", [1], [10], oid=n) for n in (1, 2, 3)]
    found = lay_out([(each, LAYOUT) for each in versions], TARGET, Lsn(5))
    assert found.relation == versions[2].relation


def test_what_the_snapshot_contains_is_left_out() -> None:
    changes = version("old", [1, 2, 3, 4], [10, 20, 20, 30], [-1, -1, 1, 2])
    found = lay_out([(changes, LAYOUT)], TARGET, Lsn(15))
    assert found.rows.column("id").to_pylist() == [2, 3, 4]
    assert found.commit_lsn.tolist() == [20, 20, 30]
    assert found.moved_from.tolist() == [-1, 0, 1]


def test_a_commit_at_the_snapshot_counts_as_newer() -> None:
    """Its record starts where the snapshot ends; the snapshot's rows have that LSN too."""
    changes = version("old", [1, 2, 3], [10, 20, 30])
    assert lay_out([(changes, LAYOUT)], TARGET, Lsn(20)).commit_lsn.tolist() == [21, 30]
    assert lay_out([(changes, LAYOUT)], TARGET, Lsn(10)).commit_lsn.tolist() == [11, 20, 30]
    assert lay_out([(changes, LAYOUT)], TARGET, Lsn(31)).rows.num_rows == 0
