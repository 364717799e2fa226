"""`plan` against the run that follows: what it announces is sent, what it does not is not."""

from __future__ import annotations

import json
import re
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pytest

from adapters.dlt_destination.duckdb.store import DuckDbStore
from adapters.pgoutput.snapshot.snapshot_source import PgSnapshotSource
from cdc_core.values.merges import Replacement

#: A table with a column of each kind that the destination holds in another way.
ODD = """
CREATE TYPE mood AS ENUM ('sad', 'happy');
CREATE TABLE odd (
    id int PRIMARY KEY, "Name" text, name text, wide numeric, fits numeric(10, 2),
    moments timestamptz, days date[], feels mood, doc jsonb,
    double int GENERATED ALWAYS AS (id * 2) STORED);
"""


def plan(shop, **environ: str) -> dict[str, Any]:
    return json.loads(shop.run("plan", "--json", **environ).out)


def tables(planned: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {table["table"]: table for table in planned["tables"]}


def actions(planned: dict[str, Any]) -> dict[str, str]:
    return {table["table"]: table["action"] for table in planned["tables"]}


def definitions(planned: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Every definition, in an order of its own."""
    return sorted(
        (d["kind"], d["table"], d["column"] or "", d["type"] or "", d["was"] or "")
        for table in planned["tables"]
        for d in table["definitions"]
    )


class Recorder:
    """What a run sends to DuckDB and which tables it reads, taken where it is sent and read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.definitions: list[tuple[str, ...]] = []
        self.read: set[str] = set()
        store = DuckDbStore
        dialect_type: Any = DuckDbStore().column_type

        def record(method: str, found: Any) -> None:
            original = getattr(store, method)

            def recorded(self_: Any, client: Any, *arguments: Any, **options: Any) -> Any:
                for each in found(self_, client, *arguments):
                    self.definitions.append(tuple(each))
                return original(self_, client, *arguments, **options)

            monkeypatch.setattr(store, method, recorded)

        def replacing(store_: Any, client: Any, table: str, steps: Any) -> Any:
            if any(isinstance(step, Replacement) for step in steps):
                there = store_.current(client, table) is not None
                yield "replace table" if there else "create table", table, "", "", ""

        def widening(store_: Any, client: Any, table: str, fields: Any) -> Any:
            held = store_.current(client, table)
            for f in fields:
                was = dialect_type(held.field(f.name))
                yield "widen column", table, f.name, dialect_type(f), was

        record("create", lambda *a: [("create table", a[2].name, "", "", "")])
        record("apply", replacing)
        record(
            "add_columns",
            lambda *a: [("add column", a[2], f.name, dialect_type(f), "") for f in a[3]],
        )
        record("widen", widening)
        record("rename_column", lambda *a: [("rename column", a[2], a[4], "", a[3])])
        record("rename_table", lambda *a: [("rename table", a[3], "", "", a[2])])
        begin = PgSnapshotSource.begin
        recorder = self

        def begun(source: Any, **options: Any) -> Any:
            @contextmanager
            def opened() -> Any:
                with begin(source, **options) as snapshot:
                    read = snapshot.read

                    def reading(relation: Any, *arguments: Any) -> Any:
                        recorder.read.add(str(relation.table))
                        return read(relation, *arguments)

                    snapshot.read = reading
                    yield snapshot

            return opened()

        monkeypatch.setattr(PgSnapshotSource, "begin", begun)

    def take(self) -> tuple[list[tuple[str, ...]], set[str]]:
        found = sorted(self.definitions), self.read
        self.definitions, self.read = [], set()
        return found


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    return Recorder(monkeypatch)


def assert_as_planned(shop, recorder: Recorder, command: str, code: int = 0) -> dict[str, Any]:
    """Plan, run, and compare; return the plan."""
    planned = plan(shop)
    assert planned["run"] == command
    recorder.take()
    shop.run(command, code=code)
    sent, read = recorder.take()
    assert definitions(planned) == sent
    assert {name for name, action in actions(planned).items() if action == "read"} == read
    return planned


def test_each_run_does_what_the_plan_says(shop, recorder):
    shop.sql("CREATE TABLE a (id int PRIMARY KEY, n int, old text)")
    shop.sql("CREATE TABLE b (id int PRIMARY KEY, n int)")
    shop.sql("CREATE TABLE c (id int PRIMARY KEY)")
    shop.sql("INSERT INTO a SELECT g, g, 'x' FROM generate_series(1, 50) g")
    first = assert_as_planned(shop, recorder, "snapshot")
    assert set(actions(first).values()) == {"read"}
    assert first["at_source"] == [
        f"create replication slot {shop.database}",
        "create publication dlt_cdc_pub for 3 tables",
    ]
    assert first["statements"] == 3

    nothing = assert_as_planned(shop, recorder, "cdc")
    assert set(actions(nothing).values()) == {"stream"}
    assert (nothing["statements"], nothing["at_source"]) == (0, [])

    shop.sql("ALTER TABLE a ADD COLUMN extra text, ADD COLUMN more int")
    shop.sql("ALTER TABLE a ALTER COLUMN n TYPE bigint")  # rewrites: read again
    shop.sql("ALTER TABLE b RENAME COLUMN n TO number")
    shop.sql("ALTER TABLE b ADD COLUMN extra text, ADD COLUMN price numeric(8, 2)")
    shop.sql("ALTER TABLE c RENAME TO renamed")
    shop.sql("CREATE TABLE d (id int PRIMARY KEY)")
    changed = assert_as_planned(shop, recorder, "cdc")
    assert actions(changed) == {
        "public.a": "read",
        "public.b": "stream",
        "public.d": "read",
        "public.renamed": "stream",
    }
    assert changed["at_source"] == ["add to publication dlt_cdc_pub: public.d"]
    found = tables(changed)
    assert found["public.a"]["reason"] == "the table was rewritten"
    assert found["public.d"]["reason"] == "new table"
    assert [d["kind"] for d in found["public.b"]["definitions"]] == [
        "rename column",
        "add column",
        "add column",
    ]
    assert found["public.b"]["statements"] == 2

    shop.sql("ALTER TABLE a DROP COLUMN old")
    shop.sql("DROP TABLE d")
    shop.sql("ALTER PUBLICATION dlt_cdc_pub DROP TABLE b")
    last = assert_as_planned(shop, recorder, "cdc")
    assert actions(last) == {
        "public.a": "stream",
        "public.b": "read",
        "public.d": "stay",
        "public.renamed": "stream",
    }
    assert tables(last)["public.a"]["dropped_columns"] == ["old"]
    assert tables(last)["public.b"]["reason"] == "its publication was changed"
    assert_as_planned(shop, recorder, "cdc")


def test_a_wider_column_is_altered_in_place(shop, recorder):
    shop.sql("CREATE TABLE prices (id int PRIMARY KEY, price numeric(8, 2), name varchar(10))")
    shop.run("snapshot")
    shop.sql("ALTER TABLE prices ALTER COLUMN price TYPE numeric(12, 2)")
    shop.sql("ALTER TABLE prices ALTER COLUMN name TYPE varchar(20)")
    planned = assert_as_planned(shop, recorder, "cdc")
    assert definitions(planned) == [
        ("widen column", "prices", "price", "DECIMAL(12,2)", "DECIMAL(8,2)")
    ]


def test_what_the_destination_lost_is_read_again(shop, recorder):
    shop.run("simulate", "10", "0", "0")
    shop.run("snapshot")
    with duckdb.connect(str(shop.lake)) as lake:
        lake.execute("DROP TABLE bronze.demo_orders")
        lake.execute("ALTER TABLE bronze.demo_customers DROP COLUMN name")
    planned = assert_as_planned(shop, recorder, "cdc")
    assert actions(planned) == {
        "public.demo_customers": "read",
        "public.demo_documents": "stream",
        "public.demo_orders": "read",
    }
    kinds = {d["table"]: d["kind"] for t in planned["tables"] for d in t["definitions"]}
    assert kinds == {"demo_customers": "replace table", "demo_orders": "create table"}


def test_a_lost_slot_leads_to_a_snapshot_with_a_new_one(shop, recorder):
    shop.run("simulate", "10", "0", "0")
    shop.run("snapshot")
    shop.sql(f"SELECT pg_drop_replication_slot('{shop.database}')")
    planned = assert_as_planned(shop, recorder, "snapshot")
    assert "does not exist" in planned["problem"]
    assert planned["at_source"] == [f"create replication slot {shop.database}"]
    assert plan(shop)["run"] == "cdc"


def test_a_frozen_definition_is_set_aside(shop):
    shop.run("simulate", "10", "0", "0")
    shop.run("snapshot")
    shop.sql("ALTER TABLE demo_orders ADD COLUMN extra text")
    planned = plan(shop, PIPELINE__SCHEMA_CHANGES="freeze")
    assert actions(planned)["public.demo_orders"] == "set aside"
    assert "freeze" in tables(planned)["public.demo_orders"]["reason"]
    assert definitions(planned) == []
    shown = shop.run("plan", PIPELINE__SCHEMA_CHANGES="freeze").out
    assert "1 of 3 tables; the run will end with exit code 3" in shown
    shop.run("cdc", code=3, PIPELINE__SCHEMA_CHANGES="freeze")


def test_a_table_without_privilege_is_set_aside_with_the_grant(shop):
    shop.sql("CREATE TABLE open (id int PRIMARY KEY)")
    shop.sql("CREATE TABLE secret (id int PRIMARY KEY)")
    role = f"{shop.database}_reader"
    shop.sql(f"CREATE ROLE {role} LOGIN REPLICATION PASSWORD 'x'")
    try:
        shop.sql(f"GRANT CREATE ON DATABASE {shop.database} TO {role}")
        shop.sql(f"GRANT EXECUTE ON FUNCTION pg_control_system() TO {role}")
        shop.sql(f"ALTER TABLE open OWNER TO {role}")
        shop.sql("CREATE PUBLICATION dlt_cdc_pub FOR TABLE open, secret")
        info = psycopg.conninfo.conninfo_to_dict(shop.dsn) | {"user": role, "password": "x"}
        dsn = psycopg.conninfo.make_conninfo(**info)
        planned = plan(shop, SOURCES__PG_REPLICATION__CREDENTIALS=dsn)
        assert actions(planned) == {"public.open": "read", "public.secret": "set aside"}
        assert "GRANT SELECT ON public.secret" in tables(planned)["public.secret"]["reason"]
        shop.run("snapshot", code=3, SOURCES__PG_REPLICATION__CREDENTIALS=dsn)
        held = shop.lake_sql("SELECT table_name FROM duckdb_tables() WHERE schema_name = 'bronze'")
        assert ("open",) in held
        assert ("secret",) not in held
    finally:
        shop.sql(f"DROP OWNED BY {role}; DROP ROLE {role}")


def test_what_is_lost_is_named_column_by_column(shop):
    shop.sql(ODD)
    found = tables(plan(shop))["public.odd"]
    columns = {column["name"]: column for column in found["columns"]}
    assert columns["id"] == {
        "name": "id",
        "type": "integer",
        "target": "id",
        "target_type": "INTEGER",
        "key": True,
        "losses": [],
    }
    assert (columns["Name"]["target"], columns["name"]["target"]) == ("Name", "name_2")
    assert columns["wide"]["target_type"] == "VARCHAR"
    assert "no DECIMAL holds every digit" in columns["wide"]["losses"][0]
    assert "NaN" in columns["fits"]["losses"][0]
    assert "infinities" in columns["moments"]["losses"][0]
    assert "JSON" in columns["days"]["losses"][0]
    assert "as PostgreSQL prints it" in columns["feels"]["losses"][0]
    assert columns["Name"]["losses"] == []
    # PostgreSQL 18 publishes stored generated columns.
    assert "double" in columns or [c["name"] for c in found["left_out"]] == ["double"]
    shown = shop.run("plan").out
    assert "public.odd -> odd: is read whole (first load)" in shown
    assert "name as name_2" in shown


def _everything(shop) -> dict[str, Any]:
    """What a plan could change at either end."""
    files = (path for path in shop.folder.rglob("*") if path.is_file())
    catalogs = (
        "SELECT slot_name, restart_lsn, confirmed_flush_lsn FROM pg_replication_slots",
        "SELECT oid, xmin::text FROM pg_publication",
        "SELECT prrelid, xmin::text FROM pg_publication_rel",
        "SELECT oid, xmin::text FROM pg_class WHERE relnamespace = 'public'::regnamespace",
    )
    return {
        **{query: shop.sql(query) for query in catalogs},
        "files": sorted((str(path), path.stat().st_mtime_ns) for path in files),
    }


@pytest.mark.parametrize("destination", ["duckdb", "delta"])
def test_nothing_changes_at_either_end(shop, destination):
    shop.run("simulate", "5", "0", "0")
    for _ in ("before the first load", "after it", "with changes to come"):
        before = _everything(shop)
        shop.run("plan", "--destination", destination)
        shop.run("plan", "--json", "--destination", destination)
        assert _everything(shop) == before
        shop.run("snapshot", "--destination", destination)
        shop.sql("ALTER TABLE demo_orders ADD COLUMN IF NOT EXISTS extra text")
        shop.sql("CREATE TABLE IF NOT EXISTS late (id int PRIMARY KEY)")


def test_a_plan_does_not_wait_for_a_run(shop):
    """It takes no writer lock: a run can follow meanwhile."""
    shop.run("simulate", "5", "0", "0")
    shop.run("snapshot")
    following = shop.spawn("cdc", "--follow")
    try:
        time.sleep(2)
        assert plan(shop, DESTINATION__DUCKDB__CREDENTIALS=str(shop.folder / "other.duckdb"))
    finally:
        following.terminate()
        following.communicate(timeout=60)


def test_a_thousand_tables_are_planned_within_fifteen_seconds(shop):
    with psycopg.connect(shop.dsn, autocommit=True) as connection:
        connection.execute(
            b"""DO $$ BEGIN FOR n IN 1..1000 LOOP
                EXECUTE format('CREATE TABLE t%s (id int PRIMARY KEY, a text, b numeric)', n);
            END LOOP; END $$"""
        )
    began = time.monotonic()
    shown = shop.run("plan").out
    assert time.monotonic() - began < 15
    assert shown.count(": is read whole (first load)") == 1000


def test_the_documented_keys_are_those_of_the_document(shop):
    """`docs/reference/commands.md` names every key, and no other."""
    shop.sql(ODD)
    planned = plan(shop)
    page = (Path(__file__).parents[3] / "docs/reference/commands.md").read_text()
    section = page.split("## `plan --json`")[1].split("\n## ")[0]
    whole, _, each = section.partition("Each table has:")

    def keys(text: str) -> set[str]:
        firsts = (line.split("|")[1] for line in text.splitlines() if line.startswith("| `"))
        return {name for first in firsts for name in re.findall(r"`(\w+)`", first)}

    assert keys(whole) == planned.keys()
    assert keys(each) == planned["tables"][0].keys()
    for name in planned["tables"][0]["columns"][0].keys() | {"kind", "was", "why", "slot_name"}:
        assert f"`{name}`" in section, name


def test_the_rules_of_a_table_are_in_its_plan(shop, recorder):
    shop.sql("CREATE TABLE people (id int PRIMARY KEY, email text, ssn text, n int)")
    rules = [
        {
            "match": "public.people",
            "deletes": "soft",
            "exclude_columns": ["ssn"],
            "mask": {"email": "last4"},
        }
    ]
    shop.environ["SOURCES__PG_REPLICATION__TABLES"] = json.dumps(rules)
    planned = assert_as_planned(shop, recorder, "snapshot")
    found = tables(planned)["public.people"]
    assert found["rules"] == {
        "deletes": "soft",
        "columns": {"email": "last4", "ssn": "exclude"},
    }
    assert [column["name"] for column in found["columns"]] == ["id", "email", "n"]
    assert [column["name"] for column in found["left_out"]] == ["ssn"]
    # Changed rules: the table is read again.
    rules[0]["mask"] = {}
    shop.environ["SOURCES__PG_REPLICATION__TABLES"] = json.dumps(rules)
    changed = assert_as_planned(shop, recorder, "cdc")
    assert actions(changed) == {"public.people": "read"}


def test_the_types_are_those_of_the_table(shop):
    shop.sql(ODD)
    shop.sql("ALTER TABLE odd ADD small smallint, ADD flag boolean, ADD r real, ADD b bytea")
    shop.sql("ALTER TABLE odd ADD plain timestamp, ADD day date")
    planned = tables(plan(shop))["public.odd"]
    shop.run("snapshot")
    found = shop.lake_sql("SELECT name, type FROM pragma_table_info('bronze.odd')")
    types = {column["target"]: column["target_type"] for column in planned["columns"]}
    assert {name: kind for name, kind in found if not str(name).startswith("_cdc")} == types
