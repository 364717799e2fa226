"""Definitions that change the text or the place of rows without an event: read again, or followed
without being read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.support import oracle
from tests.support.lakes import LocalLake, lake_of
from tests.support.pipeline import InProcess

if TYPE_CHECKING:
    from pathlib import Path

    import psycopg


class Followed:
    """A database with its pipeline; `cdc` gives the sentences about tables that were read."""

    def __init__(self, dsn: str, sql: psycopg.Connection, lake: Any) -> None:
        self.dsn, self.sql, self.lake = dsn, sql, lake
        self.settings: dict[str, str] = {}

    def execute(self, *statements: str) -> None:
        for statement in statements:
            self.sql.execute(statement.encode())

    def run(self, command: str, code: int = 0, **settings: str) -> str:
        pipeline = InProcess(self.dsn, self.lake, **self.settings, **settings)
        return " ".join(pipeline.run(command, code=code).split())

    def cdc(self, *tables: str) -> list[str]:
        told = self.run("cdc")
        oracle.assert_equal(self.sql, self.lake, list(tables))
        return [part.split(" ")[0] for part in told.split("reading public.")[1:]]


@pytest.fixture
def followed(database: str, sql: psycopg.Connection, tmp_path: Path) -> Followed:
    return Followed(database, sql, LocalLake("duckdb", tmp_path))


def test_an_added_label_causes_no_read(followed: Followed) -> None:
    followed.execute(
        "CREATE TYPE e AS ENUM ('a'); CREATE DOMAIN d AS e",
        "CREATE TABLE t (id int PRIMARY KEY, e e, d d); INSERT INTO t VALUES (1, 'a', 'a')",
    )
    followed.run("snapshot")
    followed.execute("ALTER TYPE e ADD VALUE 'b'", "INSERT INTO t VALUES (2, 'b', 'b')")
    assert followed.cdc("t") == []
    # Two at a time, of which no row has come.
    followed.execute("ALTER TYPE e ADD VALUE 'c'", "ALTER TYPE e ADD VALUE 'f'")
    followed.execute("UPDATE t SET e = 'b'")
    assert followed.cdc("t") == []
    followed.execute("INSERT INTO t VALUES (3, 'c', 'f')")
    assert followed.cdc("t") == []
    followed.execute("CREATE TYPE two AS ENUM ('x', 'y')", "ALTER TABLE t ADD two two")
    followed.execute("UPDATE t SET two = 'y' WHERE id = 1")
    assert followed.cdc("t") == []


RENAMED = {
    "renamed": [
        "ALTER TYPE e ADD VALUE 'tmp'",
        "INSERT INTO t VALUES (2, 'tmp')",
        "ALTER TYPE e RENAME VALUE 'tmp' TO 'final'",
    ],
    "renamed and back": [
        "ALTER TYPE e RENAME VALUE 'a' TO 'tmp'",
        "INSERT INTO t VALUES (2, 'tmp')",
        "ALTER TYPE e RENAME VALUE 'tmp' TO 'a'",
    ],
    "its name goes to another": [
        "ALTER TYPE e ADD VALUE 'x'",
        "INSERT INTO t VALUES (2, 'x')",
        "ALTER TYPE e RENAME VALUE 'x' TO 'y'",
        "ALTER TYPE e ADD VALUE 'x'",
    ],
    "of a domain": [
        "CREATE DOMAIN d AS e",
        "ALTER TABLE t ADD d d",
        "ALTER TYPE e ADD VALUE 'tmp'",
        "INSERT INTO t VALUES (2, 'a', 'tmp')",
        "ALTER TYPE e RENAME VALUE 'tmp' TO 'final'",
    ],
    "of a new type": [
        "CREATE TYPE f AS ENUM ('tmp')",
        "ALTER TABLE t ADD f f",
        "INSERT INTO t VALUES (2, 'a', 'tmp')",
        "ALTER TYPE f RENAME VALUE 'tmp' TO 'final'",
    ],
}


@pytest.mark.parametrize("how", RENAMED)
def test_a_label_that_no_run_has_seen_under_its_name(followed: Followed, how: str) -> None:
    followed.execute("CREATE TYPE e AS ENUM ('a')", "CREATE TABLE t (id int PRIMARY KEY, e e)")
    followed.run("snapshot")
    followed.execute(*RENAMED[how])
    assert followed.cdc("t") == ["t:"]
    assert followed.cdc("t") == []


@pytest.mark.parametrize("column", ["v int", "v text"])
def test_unlogged_for_a_time(followed: Followed, column: str) -> None:
    followed.execute(
        "CREATE PUBLICATION pgbronze_all FOR ALL TABLES WITH (publish_via_partition_root)",
        f"CREATE TABLE t (id int PRIMARY KEY, {column}); INSERT INTO t VALUES (1), (2)",
        f"CREATE TABLE o (id int PRIMARY KEY, {column}); INSERT INTO o VALUES (1), (2)",
    )
    followed.settings = {"SOURCES__PG_REPLICATION__PUB_NAME": "pgbronze_all"}
    followed.run("snapshot")
    followed.execute("ALTER TABLE t SET UNLOGGED", "INSERT INTO t VALUES (3)")
    followed.execute("DELETE FROM t WHERE id = 1", "ALTER TABLE t SET LOGGED", "VACUUM FULL o")
    followed.execute("UPDATE o SET v = '7' WHERE id = 1")
    assert followed.cdc("t", "o") == ["t:"]
    # While it is, it is said so; and followed again after.
    followed.execute("ALTER TABLE t SET UNLOGGED")
    followed.run("cdc")
    assert "is unlogged" in followed.run("status")
    followed.execute("INSERT INTO t VALUES (5)", "ALTER TABLE t SET LOGGED")
    assert followed.cdc("t", "o") == ["t:"]
    followed.execute("INSERT INTO t VALUES (6)")
    assert followed.cdc("t", "o") == []


def test_maintained_partitions_are_not_read_again(followed: Followed) -> None:
    followed.execute(
        "CREATE TABLE p (id int PRIMARY KEY, v text) PARTITION BY RANGE (id)",
        *(
            f"CREATE TABLE p_{n} PARTITION OF p FOR VALUES FROM ({n}0) TO ({n + 1}0)"
            for n in range(1, 4)
        ),
        "INSERT INTO p SELECT i, 'v' || i FROM generate_series(10, 39) AS i",
    )
    followed.run("snapshot")
    followed.execute("VACUUM FULL p_1", "CLUSTER p_2 USING p_2_pkey", "UPDATE p SET v = 'a'")
    followed.execute("INSERT INTO p_3 SELECT i, 'b' FROM generate_series(30, 30) i WHERE false")
    assert followed.cdc("p") == ["p:"]  # no row of these two was left as it was
    followed.execute("VACUUM FULL p_1", "CLUSTER p_2", "UPDATE p SET v = 'c' WHERE id = 15")
    assert followed.cdc("p") == []
    followed.execute(
        "CREATE TABLE p_4 (LIKE p INCLUDING ALL)",
        "ALTER TABLE p ATTACH PARTITION p_4 FOR VALUES FROM (40) TO (50)",
        "INSERT INTO p VALUES (40, 'new'), (41, 'new')",
        "CREATE TABLE p_5 PARTITION OF p FOR VALUES FROM (50) TO (60)",
    )
    followed.run("cdc")
    followed.execute("VACUUM FULL p_4", "INSERT INTO p VALUES (42, 'new')")
    assert followed.cdc("p") == []


@pytest.mark.parametrize("kind", ["duckdb", "delta", "databricks"])
def test_old_partitions_are_removed_without_reading_the_table(
    database: str,
    sql: psycopg.Connection,
    kind: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    followed = Followed(database, sql, lake_of(kind, tmp_path, request))
    followed.execute(
        "CREATE TABLE p (id int, at timestamptz, v text, PRIMARY KEY (id, at))"
        " PARTITION BY RANGE (at)",
        *(
            f"CREATE TABLE p_{n} PARTITION OF p FOR VALUES FROM ('2024-0{n}-01')"
            f" TO ('2024-0{n + 1}-01')"
            for n in range(1, 6)
        ),
        "CREATE TABLE p_rest PARTITION OF p DEFAULT",
        "INSERT INTO p SELECT i, '2024-01-01'::timestamptz + i * interval '1 hour', 'v'"
        " FROM generate_series(0, 3500) AS i",
        # Of two levels, with another order of columns.
        "CREATE TABLE q (a int, b bigint, v text, PRIMARY KEY (a, b)) PARTITION BY LIST (a)",
        "CREATE TABLE q_1 (v text, b bigint NOT NULL, a int NOT NULL, PRIMARY KEY (a, b))"
        " PARTITION BY RANGE (b)",
        "ALTER TABLE q ATTACH PARTITION q_1 FOR VALUES IN (1, 2)",
        "CREATE TABLE q_2 PARTITION OF q FOR VALUES IN (3)",
        "CREATE TABLE q_1_low PARTITION OF q_1 FOR VALUES FROM (MINVALUE) TO (0)",
        "CREATE TABLE q_1_high PARTITION OF q_1 FOR VALUES FROM (0) TO (100)",
        "INSERT INTO q SELECT 1 + abs(i) % 2, i, 'v' FROM generate_series(-20, 20) AS i",
        "INSERT INTO q VALUES (3, 5, 'v')",
    )
    followed.run("snapshot")
    followed.execute("UPDATE p SET v = 'changed' WHERE id % 7 = 0", "DROP TABLE p_1")
    followed.execute("UPDATE p SET v = 'after' WHERE id % 5 = 0", "DROP TABLE q_1_low")
    assert followed.cdc("p", "q") == []
    assert followed.cdc("p", "q") == []
    # Together with a partition that is new, and rows on both sides.
    followed.execute(
        "INSERT INTO p VALUES (-1, '2024-02-10', 'lost')",
        "ALTER TABLE p DETACH PARTITION p_2",
        "CREATE TABLE p_6 PARTITION OF p FOR VALUES FROM ('2024-06-01') TO ('2024-07-01')",
        "INSERT INTO p VALUES (-2, '2024-06-10', 'new')",
        "ALTER TABLE q DETACH PARTITION q_1",
    )
    assert sorted(followed.cdc("p", "q", "p_2", "q_1")) == ["p_2:", "q_1:"]  # they are new tables
    assert followed.lake.rows("q", "a", "b") == [(3, 5)]
    # Where other rows may be within its bounds, the table is read.
    followed.execute(
        "DROP TABLE p_3",
        "CREATE TABLE p_3 PARTITION OF p FOR VALUES FROM ('2024-03-05') TO ('2024-04-01')",
        "INSERT INTO p VALUES (-3, '2024-03-10', 'in its place')",
    )
    assert followed.cdc("p", "q") == ["p:"]
    followed.execute("DROP TABLE p_4", "INSERT INTO p VALUES (-4, '2024-04-10', 'by default')")
    assert followed.cdc("p", "q") == ["p:"]
    assert followed.cdc("p", "q") == []


def test_a_schema_that_is_renamed(followed: Followed) -> None:
    followed.execute(
        "CREATE SCHEMA sales; CREATE TABLE sales.t (id int PRIMARY KEY); INSERT INTO sales.t"
        " VALUES (1); CREATE TABLE o (id int PRIMARY KEY)",
    )
    schemas = "SOURCES__PG_REPLICATION__SCHEMAS"
    followed.settings = {schemas: '["public", "sales"]'}
    followed.run("snapshot")
    followed.execute("ALTER SCHEMA sales RENAME TO retail", "INSERT INTO retail.t VALUES (2)")
    for command in ("cdc", "snapshot"):
        told = followed.run(command, code=2)
        assert "schemas names 'sales', which was renamed to 'retail'" in told
        assert 'schemas = ["public", "retail"]' in told
    followed.settings = {schemas: '["public", "retail"]'}
    told = followed.run("cdc")
    assert "reading retail.t" not in told
    assert sorted(followed.lake.rows("retail__t", "id")) == [(1,), (2,)]
