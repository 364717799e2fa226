from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest

from adapters.pgoutput.catalog import catalog as catalog_module
from adapters.pgoutput.catalog.catalog import PgCatalog
from adapters.pgoutput.changes.change_source import PgChangeSource
from adapters.pgoutput.snapshot.snapshot_source import PgSnapshotSource
from cdc_core.values.changes import Op
from cdc_core.values.errors import OperatorNeeded
from cdc_core.values.fingerprint import ITSELF
from cdc_core.values.partition_bounds import Bound
from tests.support.changes import events

if TYPE_CHECKING:
    from collections.abc import Iterator

    from adapters.pgoutput.session.settings import SourceSettings
    from cdc_core.ports.catalog import SourceTable
    from cdc_core.values.relation import Relation


def by_name(tables: object) -> dict[str, SourceTable]:
    return {str(t.relation.table): t for t in tables}  # type: ignore[attr-defined]


def published(sql: psycopg.Connection, name: str = "pgbronze_pub") -> set[str]:
    rows = sql.execute(
        "SELECT schemaname || '.' || tablename FROM pg_publication_tables WHERE pubname = %s",
        [name],
    )
    return {row[0] for row in rows}


def take_snapshot(
    settings: SourceSettings, *relations: Relation, create_slot: bool = False
) -> None:
    with PgSnapshotSource(settings).begin(create_slot=create_slot) as snapshot:
        for relation in relations:
            list(snapshot.read(relation))


def major(sql: psycopg.Connection) -> int:
    return sql.info.server_version // 10_000


@pytest.fixture
def reader(sql: psycopg.Connection, database: str) -> Iterator[str]:
    """The DSN of a role that may connect and replicate, and owns nothing."""
    role = "reader_" + database.rpartition("_")[2]
    sql.execute(f"CREATE ROLE {role} LOGIN REPLICATION PASSWORD 'secret-word'")
    parts = urlsplit(database)
    yield urlunsplit(parts._replace(netloc=f"{role}:secret-word@{parts.hostname}:{parts.port}"))
    sql.execute(f"DROP OWNED BY {role} CASCADE")
    sql.execute(f"DROP ROLE {role}")


def role_of(dsn: str) -> str:
    return str(urlsplit(dsn).username)


def test_discovery(settings: SourceSettings, sql: psycopg.Connection) -> None:
    sql.execute('CREATE SCHEMA sales; CREATE SCHEMA "Odd one"')
    sql.execute(
        "CREATE TABLE plain (id int PRIMARY KEY); CREATE TABLE sales.plain (id int PRIMARY KEY)"
    )
    sql.execute('CREATE TABLE "Odd one"."Tab le" ("I d" int PRIMARY KEY)')
    sql.execute("CREATE TABLE _dlt_loads (id int PRIMARY KEY); CREATE TABLE audit_log (id int)")
    sql.execute("CREATE TABLE part (id int PRIMARY KEY) PARTITION BY RANGE (id)")
    sql.execute("CREATE TABLE sales.part_1 PARTITION OF part FOR VALUES FROM (0) TO (9)")
    sql.execute("CREATE TEMP TABLE passing (id int)")
    sql.execute("CREATE VIEW look AS SELECT 1; CREATE MATERIALIZED VIEW kept AS SELECT 1")
    catalog = PgCatalog(
        replace(settings, schemas=("public", "sales", "Odd one"), exclude=("public.audit_*",))
    )
    tables = catalog.publish()
    names = [str(t.relation.table) for t in tables]
    assert names == ["Odd one.Tab le", "public.part", "public.plain", "sales.plain"]
    assert published(sql) == set(names)
    catalog.close()
    catalog = PgCatalog(replace(settings, schemas=("sales",), include=("sales.p*",)))
    assert [str(t.relation.table) for t in catalog.tables()] == ["sales.plain"]
    catalog.close()


def test_columns(catalog: PgCatalog, sql: psycopg.Connection) -> None:
    sql.execute("CREATE DOMAIN price AS numeric(8,2) DEFAULT 1")
    sql.execute(
        "CREATE TABLE t (b text NOT NULL, a int GENERATED ALWAYS AS IDENTITY, gone int,"
        " p price, n numeric(5,1)[], twice int GENERATED ALWAYS AS (length(b) * 2) STORED,"
        " PRIMARY KEY (a, b))"
    )
    sql.execute("ALTER TABLE t DROP COLUMN gone")
    (table,) = catalog.publish()
    found = [
        (c.name, c.attnum, str(c.arrow_type), c.pg_type, c.has_default)
        for c in table.relation.columns
    ]
    expected = [
        ("b", 1, "string", "text", False),
        ("a", 2, "int32", "integer", True),
        ("p", 4, "decimal128(8, 2)", "price", True),
        ("n", 5, "string", "numeric(5,1)[]", False),
    ]
    if major(sql) >= 18:
        expected.append(("twice", 6, "int32", "integer", True))
    assert found == expected
    assert table.relation.key == ("b", "a")


def test_a_default_that_was_taken_away_left_values(
    catalog: PgCatalog, sql: psycopg.Connection
) -> None:
    sql.execute("CREATE TABLE t (id int); ALTER TABLE t ADD a int DEFAULT 7, ADD b int")
    sql.execute("ALTER TABLE t ALTER a DROP DEFAULT")
    sql.execute("CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id)")
    sql.execute("CREATE TABLE p_1 PARTITION OF p FOR VALUES FROM (0) TO (10)")
    sql.execute("ALTER TABLE p ADD a int DEFAULT 7, ADD b int; ALTER TABLE p ALTER a DROP DEFAULT")
    for table in catalog.tables():
        found = {c.name: c.has_default for c in table.relation.columns}
        assert found == {"id": False, "a": True, "b": False}


def test_generated_columns_come_where_postgres_sends_them(
    settings: SourceSettings, catalog: PgCatalog, sql: psycopg.Connection
) -> None:
    sql.execute("CREATE TABLE t (id int PRIMARY KEY, g int GENERATED ALWAYS AS (id * 2) STORED)")
    (table,) = catalog.publish()
    with PgChangeSource(settings) as source:
        start = source.create_slot()
        sql.execute("INSERT INTO t VALUES (1)")
        batches = list(source.read(start, source.current_lsn(), {table.relation.oid}))
    names = table.relation.column_names
    assert names == (("id", "g") if major(sql) >= 18 else ("id",))
    assert [tuple(row) for _, _, row in events(batches)] == [names]
    assert table.fingerprint.unsent == (() if "g" in names else (2,))


def test_a_key_that_is_not_sent_identifies_nothing(
    catalog: PgCatalog, sql: psycopg.Connection
) -> None:
    sql.execute(
        "CREATE TABLE made (id int, at int, year int GENERATED ALWAYS AS (at / 100) STORED,"
        " PRIMARY KEY (id, year)); CREATE TABLE listed (id int PRIMARY KEY, a int)"
    )
    columns = "(a)" if major(sql) >= 15 else ""
    sql.execute(f"CREATE PUBLICATION pgbronze_pub FOR TABLE made, listed {columns}".encode())
    tables = by_name(catalog.tables())
    told = {"public.made": "not sent: year"}
    if columns:
        told["public.listed"] = "not sent: id; run: BEGIN; ALTER PUBLICATION"
    for name, reason in told.items():
        assert reason in tables[name].not_streamed
        assert tables[name].relation.key == ()
    for name in told:
        cure = tables[name].not_streamed.partition("; run: ")[2]
        if "PUBLICATION" in cure:
            sql.execute(cure.encode())
    mended = by_name(catalog.tables())
    assert mended["public.listed"].relation.key == ("id",)
    assert mended["public.made"].relation.key == (("id", "year") if major(sql) >= 18 else ())


def test_what_cannot_be_streamed_is_named_and_not_published(
    catalog: PgCatalog, sql: psycopg.Connection
) -> None:
    sql.execute("CREATE TABLE keyed (id int PRIMARY KEY)")
    sql.execute("CREATE TABLE keyless (id int)")
    sql.execute("CREATE TABLE late (id int PRIMARY KEY DEFERRABLE)")
    sql.execute(
        "CREATE TABLE nothing (id int PRIMARY KEY); ALTER TABLE nothing REPLICA IDENTITY NOTHING"
    )
    sql.execute("CREATE TABLE full_one (id int); ALTER TABLE full_one REPLICA IDENTITY FULL")
    sql.execute(
        "CREATE TABLE indexed (a int, b int NOT NULL); CREATE UNIQUE INDEX u ON indexed (b)"
    )
    sql.execute("ALTER TABLE indexed REPLICA IDENTITY USING INDEX u")
    sql.execute("CREATE TABLE lost_index (b int NOT NULL UNIQUE)")
    sql.execute("ALTER TABLE lost_index REPLICA IDENTITY USING INDEX lost_index_b_key")
    sql.execute("ALTER TABLE lost_index DROP CONSTRAINT lost_index_b_key")
    sql.execute("CREATE UNLOGGED TABLE fleeting (id int PRIMARY KEY)")
    tables = by_name(catalog.publish())
    streamed = {"public.keyed", "public.full_one", "public.indexed"}
    assert {name for name, t in tables.items() if t.published} == streamed == published(sql)
    assert {name for name, t in tables.items() if not t.not_streamed} == streamed
    assert tables["public.indexed"].relation.key == ("b",)
    assert tables["public.full_one"].relation.key == ()
    for name in ("keyless", "late", "lost_index"):
        assert "REPLICA IDENTITY FULL" in tables[f"public.{name}"].not_streamed
    assert "REPLICA IDENTITY DEFAULT" in tables["public.nothing"].not_streamed
    assert "SET LOGGED" in tables["public.fleeting"].not_streamed
    # The next run adds them by itself, once their own cures have been run.
    assert not any("ADD TABLE" in table.not_streamed for table in tables.values())
    for name in tables:
        sql.execute(f"INSERT INTO {name} ({tables[name].relation.column_names[-1]}) VALUES (1)")
        sql.execute(f"UPDATE {name} SET {tables[name].relation.column_names[-1]} = 2")
        sql.execute(f"DELETE FROM {name}")


def test_tables_come_and_go(catalog: PgCatalog, sql: psycopg.Connection) -> None:
    sql.execute("CREATE TABLE one (id int PRIMARY KEY)")
    catalog.publish()
    sql.execute("CREATE TABLE two (id int PRIMARY KEY); ALTER TABLE one DROP CONSTRAINT one_pkey")
    (one, two) = catalog.tables()
    assert (one.published, two.published) == (True, False)
    assert (bool(one.not_streamed), two.not_streamed) == (True, "")
    (one, two) = catalog.publish()
    assert (one.published, two.published) == (False, True)
    assert published(sql) == {"public.two"}
    assert catalog.drop_publication()
    assert not catalog.drop_publication()


def test_an_empty_database_gets_an_empty_publication(
    catalog: PgCatalog, sql: psycopg.Connection
) -> None:
    assert catalog.publish() == []
    sql.execute("CREATE TABLE t (id int PRIMARY KEY)")
    (table,) = catalog.publish()
    assert table.published


def test_partitions(catalog: PgCatalog, sql: psycopg.Connection) -> None:
    def partitioned(name: str, key: str) -> None:
        sql.execute(f"CREATE TABLE {name} (id int {key}, v int) PARTITION BY RANGE (id)")
        sql.execute(f"CREATE TABLE {name}_1 PARTITION OF {name} FOR VALUES FROM (0) TO (9)")

    for name in ("fine", "unidentified", "odd", "whole"):
        partitioned(name, "PRIMARY KEY")
    partitioned("bare", "")
    sql.execute("ALTER TABLE unidentified_1 REPLICA IDENTITY NOTHING")
    sql.execute("ALTER TABLE odd_1 ALTER v SET NOT NULL, ADD CONSTRAINT other UNIQUE (v)")
    sql.execute("ALTER TABLE odd_1 REPLICA IDENTITY USING INDEX other")
    sql.execute("ALTER TABLE whole_1 REPLICA IDENTITY FULL")
    sql.execute("INSERT INTO fine VALUES (1, 1)")
    tables = by_name(catalog.publish())
    assert {name for name, t in tables.items() if t.published} == {"public.fine", "public.whole"}
    assert "public.unidentified_1" in tables["public.unidentified"].not_streamed
    assert '"public"."odd_1" REPLICA IDENTITY DEFAULT' in tables["public.odd"].not_streamed
    assert "primary key" in tables["public.bare"].not_streamed
    sql.execute("CREATE TABLE fine_2 PARTITION OF fine FOR VALUES FROM (9) TO (19)")
    sql.execute("UPDATE fine SET id = 10; DELETE FROM fine")


def test_partitioned_changes_come_by_the_root(
    settings: SourceSettings, catalog: PgCatalog, sql: psycopg.Connection
) -> None:
    sql.execute("CREATE TABLE root (id int PRIMARY KEY, v text) PARTITION BY RANGE (id)")
    sql.execute("CREATE TABLE root_1 PARTITION OF root FOR VALUES FROM (0) TO (10)")
    sql.execute("CREATE TABLE root_2 (v text, id int PRIMARY KEY)")
    sql.execute("ALTER TABLE root ATTACH PARTITION root_2 FOR VALUES FROM (10) TO (20)")
    (table,) = catalog.publish()
    with PgChangeSource(settings) as source:
        start = source.create_slot()
        sql.execute("INSERT INTO root VALUES (1, 'a'), (11, 'b')")
        sql.execute("UPDATE root SET id = 12 WHERE id = 1")
        sql.execute("TRUNCATE root")
        batches = list(source.read(start, source.current_lsn(), {table.relation.oid}))
    told = [(table, op, row["id"]) for table, op, row in events(batches)]
    assert {table for table, _, _ in told} == {"public.root"}
    assert [(op, key) for _, op, key in told] == [
        ("INSERT", 1), ("INSERT", 11), ("DELETE", 1), ("INSERT", 12), ("TRUNCATE", None),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("statements", "rows"),
    [
        ("BEGIN; TRUNCATE root; INSERT INTO root VALUES (1); {alone}; COMMIT", [[1], []]),
        ("INSERT INTO root VALUES (1); {alone}; BEGIN; TRUNCATE root; COMMIT", [[], []]),
    ],
)
def test_the_truncate_of_a_partition_leaves_no_trace_beside_that_of_its_root(
    settings: SourceSettings,
    catalog: PgCatalog,
    sql: psycopg.Connection,
    statements: str,
    rows: list[list[int]],
) -> None:
    """So a partitioned table with new files is read again, whatever the stream sent."""
    found = []
    for alone in ("SELECT 1", "TRUNCATE root_1"):
        sql.execute("DROP TABLE IF EXISTS root")
        sql.execute("CREATE TABLE root (id int PRIMARY KEY) PARTITION BY RANGE (id)")
        sql.execute("CREATE TABLE root_1 PARTITION OF root FOR VALUES FROM (0) TO (10)")
        (table,) = catalog.publish()
        with PgChangeSource(settings) as source:
            start = source.create_slot()
            for statement in statements.format(alone=alone).split("; "):
                sql.execute(statement.encode())
            batches = list(source.read(start, source.current_lsn(), {table.relation.oid}))
            source.drop_slot()
        told = [(op, row["id"]) for _, op, row in events(batches)]
        changes = [changes for batch in batches for changes in batch.tables]
        (xid,) = {int(xid) for c in changes for xid in c.xid[c.op == Op.TRUNCATE]}
        row = sql.execute(
            "SELECT xmin::text, relfilenode <> oid FROM pg_class WHERE relname = 'root_1'"
        ).fetchone()
        found.append((told, row == (str(xid), True)))
        assert [id_ for (id_,) in sql.execute("SELECT id FROM root")] == rows[len(found) - 1]
    assert found[0] == found[1]
    assert found[0][1]


def reread(catalog: PgCatalog, sql: psycopg.Connection, *statements: str) -> str:
    """Why tables would be read again after these statements."""
    horizon = catalog.horizon()
    before = {t.relation.oid: t.fingerprint for t in catalog.publish()}
    for statement in statements:
        sql.execute(statement.encode())
    reasons = set()
    for table in catalog.publish():
        oid, now = table.relation.oid, table.fingerprint
        if oid in before:
            moved = {oid if leaf == ITSELF else leaf for leaf in now.moved(before[oid])}
            settled = catalog.settled(moved, now.attached(before[oid]), horizon)
            settled = {ITSELF if leaf == oid else leaf for leaf in settled}
            reasons.add(now.reread_reason(before[oid], settled))
    return ", ".join(sorted(reasons - {""}))


def test_fingerprints_tell_what_leaves_no_row_events(
    catalog: PgCatalog, sql: psycopg.Connection
) -> None:
    def reread(*statements: str) -> str:
        before = {t.relation.oid: t.fingerprint for t in catalog.publish()}
        for statement in statements:
            sql.execute(statement)
        after = {t.relation.oid: t.fingerprint for t in catalog.tables()}
        found = {after[oid].reread_reason(before[oid]) for oid in before.keys() & after.keys()}
        return ", ".join(sorted(found - {""}))

    sql.execute("CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t VALUES (1, 1)")
    sql.execute("CREATE TABLE p (id int PRIMARY KEY, v int) PARTITION BY RANGE (id)")
    sql.execute("CREATE TABLE p_1 PARTITION OF p FOR VALUES FROM (0) TO (10)")
    assert reread("INSERT INTO t VALUES (2, 2)", "ANALYZE", "VACUUM t, p") == ""
    assert reread("VACUUM FULL t") == ""
    assert reread("TRUNCATE t") == ""
    assert reread("ALTER TABLE t ADD COLUMN w int") == ""
    assert reread("ALTER TABLE t RENAME w TO x", "ALTER TABLE t RENAME TO t2") == ""
    assert "rewritten" in reread("ALTER TABLE t2 ALTER v TYPE bigint")
    assert "rewritten" in reread("ALTER TABLE t2 ALTER v TYPE bigint USING v + 1")
    assert "rewritten" in reread("ALTER TABLE t2 ADD COLUMN r float8 DEFAULT random()")
    assert reread("CREATE TABLE p_2 PARTITION OF p FOR VALUES FROM (10) TO (20)") == ""
    sql.execute("CREATE TABLE p_3 (id int PRIMARY KEY, v int)")
    attach = "ALTER TABLE p ATTACH PARTITION {} FOR VALUES FROM ({}) TO ({})"
    assert "attached" in reread(attach.format("p_3", 20, 30))
    one_transaction = "; ".join(
        [
            "CREATE TABLE p_4 (id int NOT NULL, v int)",
            "INSERT INTO p_4 VALUES (30, 1)",
            attach.format("p_4", 30, 40),
        ]
    )
    assert "attached" in reread(one_transaction)
    # Also where a change that was rolled back has passed over the partition's catalog rows.
    again = one_transaction.replace("30", "80").replace("40", "90").replace("p_4", "p_8")
    rolled_back = "BEGIN; ALTER TABLE p_8 ALTER v SET STATISTICS 5; ROLLBACK"
    assert "attached" in reread(again, rolled_back)
    assert "truncated" in reread("TRUNCATE p_1")
    assert "rewritten" in reread("ALTER TABLE p ALTER v TYPE bigint")
    assert "detached" in reread("ALTER TABLE p DETACH PARTITION p_3")
    assert "dropped" in reread("DROP TABLE p_1")
    sql.execute(
        "CREATE TABLE sub PARTITION OF p FOR VALUES FROM (50) TO (60) PARTITION BY RANGE (id)"
    )
    assert reread("CREATE TABLE sub_1 PARTITION OF sub FOR VALUES FROM (50) TO (55)") == ""
    create = "CREATE TABLE p_9 PARTITION OF p FOR VALUES FROM (90) TO (100)"
    filled = create, "INSERT INTO p VALUES (90, 1)"
    assert "new partition was truncated" in reread(*filled, "TRUNCATE p_9")
    for part, low, high in (("p_2", 10, 20), ("sub", 50, 60)):
        detach = f"ALTER TABLE p DETACH PARTITION {part}"
        assert "attached again" in reread(detach, attach.format(part, low, high))


@pytest.mark.parametrize("type_", ["shade", "shade[]", "domains", "shades", "shades[]", "paint"])
def test_fingerprints_tell_that_a_label_was_renamed(
    catalog: PgCatalog, sql: psycopg.Connection, type_: str
) -> None:
    def reason(*statements: str) -> str:
        return reread(catalog, sql, *statements)

    sql.execute("CREATE TYPE shade AS ENUM ('red', 'blue'); CREATE TYPE other AS ENUM ('red')")
    sql.execute("CREATE DOMAIN domain AS shade; CREATE DOMAIN domains AS domain[]")
    sql.execute("CREATE TYPE shades AS RANGE (subtype = shade)")
    sql.execute("CREATE TYPE paint AS (name text, shade shades)")
    sql.execute(f"CREATE TABLE t (id int PRIMARY KEY, v {type_})".encode())
    # Where it is a part of the values, nothing tells what rows had of it since it was added.
    added = reason("ALTER TYPE shade ADD VALUE 'green' BEFORE 'blue'")
    assert ("labels were added" in added) is (type_ != "shade")
    assert reason("ALTER TYPE other RENAME VALUE 'red' TO 'scarlet'") == ""
    rename = "ALTER TYPE shade RENAME VALUE '{}' TO '{}'"
    assert "renamed" in reason(rename.format("red", "scarlet"))
    assert "renamed" in reason(rename.format("blue", "x"), rename.format("x", "blue"))
    assert reason("CREATE TYPE late AS ENUM ('a', 'b')", "ALTER TABLE t ADD w late[]") == ""
    assert "labels" in reason("ALTER TABLE t ADD o other[]")
    assert reason("ALTER TABLE t DROP v") == ""


@pytest.mark.parametrize("type_", ["pair", "pair[]", "pairs", "holder"])
def test_fingerprints_tell_that_attributes_were_changed(
    catalog: PgCatalog, sql: psycopg.Connection, type_: str
) -> None:
    def reason(*statements: str) -> str:
        return reread(catalog, sql, *statements)

    sql.execute("CREATE TYPE pair AS (a int, b text); CREATE DOMAIN pairs AS pair[]")
    sql.execute("CREATE TABLE holder (p pairs)")
    sql.execute(f"CREATE TABLE t (id int PRIMARY KEY, v {type_})".encode())
    assert reason("ALTER TYPE pair RENAME ATTRIBUTE a TO c") == ""
    assert "attributes" in reason("ALTER TYPE pair ADD ATTRIBUTE d int")
    assert "attributes" in reason("ALTER TYPE pair DROP ATTRIBUTE c")
    assert ("attributes" in reason("ALTER TABLE holder ADD q int")) == (type_ == "holder")
    assert reason("CREATE TYPE other AS (a int); ALTER TABLE t ADD w other") == ""
    new = "CREATE TYPE {0} AS (x int, y text)", "ALTER TABLE t ADD {0} {0}"
    for name, change in (
        ("fewer", "ALTER TYPE fewer DROP ATTRIBUTE y"),
        ("more", "ALTER TYPE more ADD ATTRIBUTE z int"),
    ):
        statements = [statement.format(name) for statement in new]
        assert "new to it" in reason(*statements, change)
    assert reason("ALTER TABLE t DROP v") == ""


def test_fingerprints_tell_that_a_table_was_published_otherwise(
    catalog: PgCatalog, settings: SourceSettings, sql: psycopg.Connection
) -> None:
    name = settings.pub_name

    def reread(*statements: str) -> dict[str, str]:
        before = {t.relation.oid: t.fingerprint for t in catalog.publish()}
        for statement in statements:
            sql.execute(statement)
        found = {t.relation.table.name: t for t in catalog.publish()}
        return {
            table: reason
            for table, t in found.items()
            if t.relation.oid in before
            and (reason := t.fingerprint.reread_reason(before[t.relation.oid]))
        }

    changed = "its publication was changed"
    sql.execute("CREATE TABLE t (id int PRIMARY KEY, v int); CREATE TABLE o (id int PRIMARY KEY)")
    assert reread() == {}
    assert reread("CREATE TABLE late (id int PRIMARY KEY)") == {}
    assert reread(f"ALTER PUBLICATION {name} DROP TABLE t") == {"t": changed}
    everything = "insert, update, delete, truncate"
    paused = [f"ALTER PUBLICATION {name} SET (publish = '{p}')" for p in ("insert", everything)]
    assert reread(*paused) == {"late": changed, "o": changed, "t": changed}
    assert reread(f"DROP PUBLICATION {name}") == {"late": changed, "o": changed, "t": changed}
    if sql.info.server_version >= 150000:
        assert reread(f"ALTER PUBLICATION {name} SET TABLE t (id), o, late") == {"t": changed}
        filtered = f"ALTER PUBLICATION {name} SET TABLE t, o WHERE (id > 5), late"
        assert reread(filtered) == {"o": changed, "t": changed}


def test_what_only_copies_rows_is_known_by_the_rows(
    catalog: PgCatalog, settings: SourceSettings, sql: psycopg.Connection
) -> None:
    def reason(*statements: str) -> str:
        return reread(catalog, sql, *statements)

    sql.execute(f"CREATE PUBLICATION {settings.pub_name} FOR ALL TABLES".encode())
    sql.execute(f"ALTER PUBLICATION {settings.pub_name} SET (publish_via_partition_root)".encode())
    sql.execute("CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE n (id int PRIMARY KEY)")
    sql.execute("CREATE TABLE p (id int PRIMARY KEY, v int) PARTITION BY RANGE (id)")
    sql.execute("CREATE TABLE p_1 PARTITION OF p FOR VALUES FROM (0) TO (10)")
    sql.execute("CREATE TABLE p_2 PARTITION OF p FOR VALUES FROM (10) TO (20)")
    for table in ("t", "n", "p"):
        sql.execute(f"INSERT INTO {table} VALUES (1), (11)".encode())
    for table in ("t", "n", "p_1"):
        copies = f"VACUUM FULL {table}", f"CLUSTER {table} USING {table}_pkey"
        assert reason(*copies, f"UPDATE {table} SET id = id + 2 WHERE id > 10") == ""
        unlogged = f"ALTER TABLE {table} SET UNLOGGED", f"INSERT INTO {table} VALUES (5)"
        logged = f"ALTER TABLE {table} SET LOGGED"
        assert reason(*unlogged, logged, f"VACUUM FULL {table}")
        assert reason(f"DELETE FROM {table} WHERE id = 5") == ""
    assert reason("ALTER TABLE p ADD w int", "VACUUM FULL p, t") == ""
    assert reason("TRUNCATE t", "INSERT INTO t VALUES (1)") == ""
    assert "truncated" in reason("TRUNCATE p_1", "INSERT INTO p VALUES (1)")
    # Of rows that all were written since, nothing is known.
    assert reason("UPDATE p SET id = id + 1 WHERE id < 10", "VACUUM FULL p_1")
    create = "CREATE TABLE p_3 (LIKE p INCLUDING ALL)"
    attach = "ALTER TABLE p ATTACH PARTITION p_3 FOR VALUES FROM (20) TO (30)"
    assert reason(create, attach) == ""
    assert "attached" in reason(
        "CREATE TABLE p_4 (LIKE p)",
        "INSERT INTO p_4 VALUES (30)",
        "ALTER TABLE p ATTACH PARTITION p_4 FOR VALUES FROM (30) TO (40)",
        "DELETE FROM p WHERE id = 30",
    )


def test_bounds_of_partitions(catalog: PgCatalog, sql: psycopg.Connection) -> None:
    sql.execute(
        "CREATE TABLE p (at timestamptz, id int, PRIMARY KEY (id, at)) PARTITION BY LIST (id)"
    )
    sql.execute(
        "CREATE TABLE p_1 (id int NOT NULL, at timestamptz NOT NULL) PARTITION BY RANGE (at)"
    )
    sql.execute("ALTER TABLE p ATTACH PARTITION p_1 FOR VALUES IN (-1, 7)")
    sql.execute("SET TimeZone = 'Asia/Tokyo'")
    sql.execute("CREATE TABLE p_2 PARTITION OF p_1 FOR VALUES FROM ('2024-01-01') TO (MAXVALUE)")
    sql.execute("CREATE TABLE p_3 PARTITION OF p DEFAULT")
    sql.execute("CREATE TABLE p_4 PARTITION OF p FOR VALUES IN (8) PARTITION BY RANGE (id, at)")
    sql.execute("CREATE TABLE p_5 PARTITION OF p_4 FOR VALUES FROM (8, MINVALUE) TO (9, MAXVALUE)")
    (table,) = catalog.tables()
    ((_, bounds),) = table.fingerprint.bounds
    assert bounds == (
        Bound(2, ("-1", "7")),
        Bound(1, None, "2023-12-31 15:00:00+00", None),
    )


def test_a_partition_whose_detaching_has_begun_is_gone(
    catalog: PgCatalog, sql: psycopg.Connection, database: str
) -> None:
    sql.execute("CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id)")
    sql.execute("CREATE TABLE p_1 PARTITION OF p FOR VALUES FROM (0) TO (10)")
    (before,) = catalog.tables()
    with psycopg.connect(database) as reader:
        reader.execute("SELECT * FROM p")
        sql.execute("SET statement_timeout = '500ms'")
        with pytest.raises(psycopg.errors.QueryCanceled):
            sql.execute("ALTER TABLE p DETACH PARTITION p_1 CONCURRENTLY")
    (after,) = catalog.tables()
    assert len(after.fingerprint.gone(before.fingerprint)) == 1
    assert "detached" in after.fingerprint.reread_reason(before.fingerprint)


def test_fingerprints_tell_that_a_table_left_its_schema(
    catalog: PgCatalog, settings: SourceSettings, sql: psycopg.Connection
) -> None:
    if major(sql) < 15:
        pytest.skip("publications of schemas come with PostgreSQL 15")

    def reason(*statements: str) -> str:
        (before,) = catalog.tables()
        for statement in statements:
            sql.execute(statement.encode())
        (after,) = catalog.tables()
        return after.fingerprint.reread_reason(before.fingerprint)

    name = settings.pub_name
    sql.execute("CREATE SCHEMA o; CREATE TABLE t (id int PRIMARY KEY)")
    moved = "ALTER TABLE t SET SCHEMA o", "ALTER TABLE o.t SET SCHEMA public"
    sql.execute(f"CREATE PUBLICATION {name} FOR TABLES IN SCHEMA public".encode())
    assert reason("ALTER TABLE t RENAME TO u", "ALTER TABLE u RENAME TO t", "ANALYZE") == ""
    assert "schema" in reason(*moved)
    sql.execute(f"DROP PUBLICATION {name}; CREATE PUBLICATION {name} FOR TABLE t".encode())
    assert reason(*moved) == ""


def test_a_publication_of_another_owner_is_used_as_it_is(
    settings: SourceSettings, sql: psycopg.Connection, reader: str
) -> None:
    sql.execute("CREATE TABLE held (id int PRIMARY KEY, secret text, v int)")
    sql.execute("CREATE TABLE left_out (id int PRIMARY KEY)")
    detail = "(id, v) WHERE (id > 10)" if major(sql) >= 15 else ""
    sql.execute(f"CREATE PUBLICATION pgbronze_pub FOR TABLE held {detail}")
    sql.execute(f"GRANT SELECT ON held TO {role_of(reader)}")
    settings = replace(settings, conninfo=reader)
    catalog = PgCatalog(settings)
    tables = by_name(catalog.publish())
    assert published(sql) == {"public.held"}
    assert not tables["public.left_out"].published
    assert "ADD TABLE" in tables["public.left_out"].not_streamed
    held = tables["public.held"]
    assert held.published
    assert not held.not_streamed
    with PgChangeSource(settings) as source:
        sql.execute("INSERT INTO held VALUES (1, 'x', 1), (11, 'x', 1)")
        with PgSnapshotSource(settings).begin(create_slot=True) as snapshot:
            rows = [r for piece in snapshot.read(held.relation) for r in piece.rows.to_pylist()]
        sql.execute("UPDATE held SET id = id + 5, v = 2")
        batches = list(source.read(snapshot.lsn, source.current_lsn(), {held.relation.oid}))
        with pytest.raises(OperatorNeeded, match=r'GRANT SELECT ON "public"\."left_out"'):
            take_snapshot(settings, tables["public.left_out"].relation)
    told = [(op, row) for _, op, row in events(batches)]
    if major(sql) >= 15:
        assert held.relation.column_names == ("id", "v")
        assert rows == [{"id": 11, "v": 1}]
        assert told == [("DELETE", {"id": 11, "v": None}), ("UPDATE", {"id": 16, "v": 2})]
    else:
        assert [row["id"] for row in rows] == [1, 11]
        assert len(told) == 4
    assert not catalog.drop_publication()
    catalog.close()
    assert published(sql) == {"public.held"}


def test_whole_schemas_and_all_tables(catalog: PgCatalog, sql: psycopg.Connection) -> None:
    which = "TABLES IN SCHEMA public" if major(sql) >= 15 else "ALL TABLES"
    sql.execute("CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE keyless (id int)")
    sql.execute("CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id)")
    sql.execute(f"CREATE PUBLICATION pgbronze_pub FOR {which}")
    tables = by_name(catalog.publish())
    assert all(t.published for t in tables.values())
    assert tables["public.t"].not_streamed == ""
    assert "publish_via_partition_root" in tables["public.p"].not_streamed
    assert "REPLICA IDENTITY FULL" in tables["public.keyless"].not_streamed


def test_a_publication_of_our_own_is_completed(catalog: PgCatalog, sql: psycopg.Connection) -> None:
    sql.execute("CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE keyless (id int)")
    sql.execute("CREATE PUBLICATION pgbronze_pub FOR TABLE keyless WITH (publish = 'insert')")
    tables = by_name(catalog.publish())
    assert tables["public.t"].published
    assert not tables["public.keyless"].published
    row = sql.execute("SELECT pubupdate, pubtruncate, pubviaroot FROM pg_publication").fetchone()
    assert row == (True, True, True)


def test_a_role_that_owns_nothing_gets_the_statement_to_run(
    settings: SourceSettings, sql: psycopg.Connection, reader: str
) -> None:
    sql.execute("CREATE TABLE t (id int PRIMARY KEY)")
    catalog = PgCatalog(replace(settings, conninfo=reader))
    with pytest.raises(OperatorNeeded, match='CREATE PUBLICATION "pgbronze_pub" FOR TABLE') as told:
        catalog.publish()
    catalog.close()
    sql.execute(told.value.cure.partition(": ")[2].encode())
    catalog = PgCatalog(replace(settings, conninfo=reader))
    (table,) = catalog.publish()
    assert table.published
    catalog.close()
    sql.execute(f"GRANT SELECT ON t TO {role_of(reader)}")
    least = replace(settings, conninfo=reader)
    with PgChangeSource(least) as source:
        take_snapshot(least, table.relation, create_slot=True)
        assert source.identity().database == sql.info.dbname
        slot = source.slot()
        assert slot is not None
        assert slot.confirmed_flush_lsn is not None
        sql.execute("SET synchronous_commit = off; INSERT INTO t VALUES (1)")
        told = list(
            source.read(slot.confirmed_flush_lsn, source.current_lsn(), {table.relation.oid})
        )
        assert len(events(told)) == 1
        source.confirm(told[-1].end_lsn)
        source.drop_slot()


def only_table(settings: SourceSettings) -> SourceTable:
    with closing(PgCatalog(settings)) as catalog:
        (table,) = catalog.tables()
    return table


def test_row_level_security_is_never_a_silent_filter(
    settings: SourceSettings, sql: psycopg.Connection, reader: str
) -> None:
    sql.execute("CREATE TABLE t (id int PRIMARY KEY); ALTER TABLE t ENABLE ROW LEVEL SECURITY")
    sql.execute(f"CREATE POLICY part ON t USING (id > 1); GRANT SELECT ON t TO {role_of(reader)}")
    sql.execute("CREATE PUBLICATION pgbronze_pub FOR TABLE t")
    sql.execute("INSERT INTO t VALUES (1), (2)")
    settings = replace(settings, conninfo=reader)
    table = only_table(settings)
    with pytest.raises(OperatorNeeded, match="BYPASSRLS"):
        take_snapshot(settings, table.relation)


def test_a_function_that_the_role_may_not_call_is_named(
    settings: SourceSettings, sql: psycopg.Connection, reader: str
) -> None:
    sql.execute(f"CREATE TABLE t (id uuid PRIMARY KEY); GRANT SELECT ON t TO {role_of(reader)}")
    sql.execute("CREATE PUBLICATION pgbronze_pub FOR TABLE t")
    sql.execute("REVOKE EXECUTE ON FUNCTION uuid_out FROM PUBLIC")
    settings = replace(settings, conninfo=reader)
    table = only_table(settings)
    with pytest.raises(OperatorNeeded, match="GRANT EXECUTE") as told:
        take_snapshot(settings, table.relation)
    cure = told.value.cure.removeprefix("run: ").replace("<role>", role_of(reader))
    sql.execute(cure.encode())
    take_snapshot(settings, table.relation)


ANOTHER_SESSION = {
    "adds": ("ALTER PUBLICATION pgbronze_pub ADD TABLE ONLY new", {"public.new", "public.kept"}),
    "takes out": (
        "ALTER PUBLICATION pgbronze_pub DROP TABLE ONLY keyless",
        {"public.new", "public.kept"},
    ),
    "drops": ("DROP TABLE new", {"public.kept"}),
    "renames": ("ALTER TABLE new RENAME TO other", {"public.other", "public.kept"}),
    "drops all": ("DROP PUBLICATION pgbronze_pub", {"public.new", "public.kept"}),
}


@pytest.mark.parametrize("does", ANOTHER_SESSION)
def test_another_session_alters_what_is_published_at_the_same_moment(
    catalog: PgCatalog, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch, does: str
) -> None:
    statement, expected = ANOTHER_SESSION[does]
    sql.execute("CREATE TABLE kept (id int PRIMARY KEY); CREATE TABLE keyless (id int PRIMARY KEY)")
    catalog.publish()
    sql.execute(
        "ALTER TABLE keyless DROP CONSTRAINT keyless_pkey; CREATE TABLE new (id int UNIQUE)"
    )
    sql.execute("ALTER TABLE new REPLICA IDENTITY FULL")
    complete, statements = catalog_module.complete_publication, iter([statement])

    def late(*arguments: Any, **options: Any) -> frozenset[int]:
        for one in statements:
            sql.execute(one.encode())
        return complete(*arguments, **options)

    monkeypatch.setattr(catalog_module, "complete_publication", late)
    tables = by_name(catalog.publish())
    assert {name for name, table in tables.items() if table.published} == expected
    assert published(sql) == expected


def test_a_publication_made_at_the_same_moment_is_used(
    catalog: PgCatalog, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    sql.execute("CREATE TABLE t (id int PRIMARY KEY)")
    create = catalog_module.create_publication

    def late(*arguments: Any) -> None:
        sql.execute("CREATE PUBLICATION pgbronze_pub")
        create(*arguments)

    monkeypatch.setattr(catalog_module, "create_publication", late)
    assert [table.published for table in catalog.publish()] == [True]


def test_our_ddl_does_not_wait_for_long(
    settings: SourceSettings, sql: psycopg.Connection, database: str
) -> None:
    sql.execute("CREATE TABLE t (id int PRIMARY KEY)")
    catalog = PgCatalog(replace(settings, lock_timeout_seconds=0.2))
    with psycopg.connect(database) as vacuum_like:
        vacuum_like.execute("LOCK TABLE t IN SHARE UPDATE EXCLUSIVE MODE")
        assert [t.published for t in catalog.tables()] == [False]
        with pytest.raises(Exception, match="timed out waiting for a lock") as told:
            catalog.publish()
        assert getattr(told.value, "exit_code", None) == 1
    assert [t.published for t in catalog.publish()] == [True]
    sql.execute("CREATE TABLE u (id int PRIMARY KEY); CREATE TABLE v (id int PRIMARY KEY)")
    with psycopg.connect(database) as other:
        other.execute("LOCK TABLE u")
        found = [(t.published, t.locked) for t in catalog.publish()]
    assert found == [(True, False), (False, True), (True, False)]
    assert [(t.published, t.locked) for t in catalog.publish()] == [(True, False)] * 3
    catalog.close()
