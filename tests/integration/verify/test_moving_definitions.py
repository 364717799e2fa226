"""Definitions that change while `verify --repair` looks: what is not told then is not lost."""

from __future__ import annotations

import pytest

from adapters.pgoutput.snapshot import page_ranges, range_readers, row_sessions, snapshot_source

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


MANY = "SELECT i, i, repeat('x', 500) FROM generate_series(1, 8000) i"
PLAIN = f"CREATE TABLE t (id int PRIMARY KEY, a int, x text); INSERT INTO t {MANY}"
PARTITIONED = f"""
CREATE TABLE t (id int PRIMARY KEY, a int, x text) PARTITION BY RANGE (id);
CREATE TABLE t_1 PARTITION OF t FOR VALUES FROM (0) TO (3000);
CREATE TABLE t_2 PARTITION OF t FOR VALUES FROM (3000) TO (6000);
CREATE TABLE t_3 PARTITION OF t FOR VALUES FROM (6000) TO (9000);
INSERT INTO t {MANY}
"""


@pytest.mark.parametrize("pipeline", ["duckdb"], indirect=True)
@pytest.mark.parametrize(
    ("table", "change"),
    [
        (PLAIN, "TRUNCATE t"),
        (PLAIN, "TRUNCATE t; INSERT INTO t VALUES (1, 1, 'new')"),
        (PLAIN, "VACUUM FULL t"),
        (PLAIN, "ALTER TABLE t ALTER a TYPE bigint"),
        (PLAIN, "ALTER TABLE t RENAME TO u; CREATE TABLE t (id int PRIMARY KEY, a int, x text)"),
        (PLAIN, "DROP TABLE t"),
        (PARTITIONED, "ALTER TABLE t DETACH PARTITION t_3"),
        (PARTITIONED, "DROP TABLE t_3"),
        (PARTITIONED, "TRUNCATE t_3"),
        (PARTITIONED, "TRUNCATE t"),
        (PARTITIONED, "VACUUM FULL t_2"),
        (PARTITIONED, "ALTER TABLE t_3 RENAME TO t_4; ALTER TABLE t_2 RENAME TO t_3"),
        (PARTITIONED, "ALTER TABLE t ALTER a TYPE bigint"),
    ],
)
def test_a_table_changes_between_two_of_its_page_ranges(pipeline, sql, monkeypatch, table, change):
    """None of its locks holds that off: it is noticed, and this table alone is read once more."""
    sql.execute(table)
    sql.execute("CREATE TABLE other (id int PRIMARY KEY); INSERT INTO other VALUES (1)")
    sql.execute("CREATE TABLE a_first (id int PRIMARY KEY); INSERT INTO a_first VALUES (1)")
    monkeypatch.setattr(page_ranges, "STATEMENT_PAGES", 20)
    monkeypatch.setattr(row_sessions, "SEGMENT_BYTES", 50_000)
    monkeypatch.setattr(range_readers, "AHEAD_BYTES", 100_000)
    monkeypatch.setattr(range_readers, "STALL_SECONDS", 0.2)
    read, readings, changes = snapshot_source.CopySnapshot.read, [], change.split("; ")

    def changing(self, relation, part=""):
        readings.append((self.lsn, relation.table.name))
        for number, piece in enumerate(read(self, relation, part)):
            if relation.table.name == "t" and number == 1:
                while changes:
                    sql.execute(changes.pop(0).encode())
            yield piece

    with monkeypatch.context() as patch:
        patch.setattr(snapshot_source.CopySnapshot, "read", changing)
        pipeline.snapshot()
    assert not changes
    first = readings[0][0]
    assert {name for lsn, name in readings if lsn != first} <= {"t", "u"}
    pipeline.cdc()
    report = pipeline.verify()
    assert report.equal
    assert {table.table for table in report.tables} >= {"public.other", "public.a_first"}
