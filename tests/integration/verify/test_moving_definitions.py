"""Definitions that change while `verify --repair` looks: what is not told then is not lost."""

from __future__ import annotations

import pytest

from adapters.pgoutput import snapshot_source

TABLE = "CREATE TABLE t (id int PRIMARY KEY, a int); INSERT INTO t VALUES (1, 1), (2, 2), (3, 3)"


def before_first(monkeypatch, owner, name, act):
    method, waiting = getattr(owner, name), iter([act])

    def later(*arguments, **options):
        for one in waiting:
            one()
        return method(*arguments, **options)

    monkeypatch.setattr(owner, name, later)


@pytest.mark.parametrize(
    ("change", "moment"),
    [
        ("ALTER TABLE t ADD COLUMN c text; UPDATE t SET c = 'new' WHERE id = 1", "begin"),
        ("ALTER TABLE t ALTER a TYPE bigint", "read"),
    ],
)
def test_a_repair_beside_a_change_of_definition_ends_equal(
    pipeline, sql, monkeypatch, change, moment
):
    sql.execute(TABLE)
    pipeline.snapshot()
    pipeline.lake_sql("t", "id = 2")
    owners = {"begin": snapshot_source.PgSnapshotSource, "read": snapshot_source.CopySnapshot}
    with monkeypatch.context() as patch:
        before_first(patch, owners[moment], moment, lambda: sql.execute(change))
        report = pipeline.verify(repair=True)
    assert not report.tables[0].repaired
    assert "definition" in report.tables[0].note
    pipeline.cdc()
    pipeline.verify(repair=True)
    assert pipeline.verify().equal
