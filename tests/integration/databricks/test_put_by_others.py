"""What others put on a table stays; what the destination refuses of one table stops no other; and
definitions are followed though `information_schema` does not show them yet."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from tests.support import oracle
from tests.support.lakes import LocalLake, WarehouseLake, lake_of
from tests.support.pipeline import InProcess

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.integration.warehouse.client import Warehouse

TABLES = """
CREATE TABLE orders (id int PRIMARY KEY, n int, note text, gone text);
CREATE TABLE people (id int PRIMARY KEY, v text);
INSERT INTO orders VALUES (1, 1, 'a', 'x'), (2, 2, 'b', 'x');
INSERT INTO people VALUES (1, 'a');
"""
#: By somebody else, after the first load.
THEIRS = """
SET TBLPROPERTIES ('delta.feature.allowColumnDefaults' = 'supported', 'their.own' = 'x')
SET TBLPROPERTIES ('delta.enableChangeDataFeed' = 'true')
ADD COLUMNS (loaded_at TIMESTAMP, surrogate BIGINT AFTER id, kind STRING)
ALTER COLUMN loaded_at SET DEFAULT current_timestamp()
ALTER COLUMN kind SET DEFAULT 'web'
ALTER COLUMN note COMMENT 'it''s free text'
ALTER COLUMN note SET TAGS ('pii' = 'yes')
ALTER COLUMN id SET NOT NULL
SET TAGS ('team' = 'sales')
ADD CONSTRAINT positive CHECK (id > 0)
SET ROW FILTER main.bronze.mine ON (id)
"""


@pytest.fixture
def sql(database: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(TABLES)
        yield connection


@pytest.fixture
def lake(warehouse: Warehouse, tmp_path: Path) -> WarehouseLake:
    return WarehouseLake(warehouse, tmp_path)


@pytest.fixture
def pipeline(database: str, lake: WarehouseLake) -> InProcess:
    return InProcess(database, lake)


def query(lake: WarehouseLake, statement: str) -> list[Any]:
    with lake.warehouse.connect() as session, session.cursor() as cursor:
        cursor.execute(statement)
        return list(cursor.fetchall())


def described(lake: WarehouseLake) -> dict[str, Any]:
    ((text,),) = query(lake, "DESCRIBE TABLE EXTENDED bronze.orders AS JSON")
    found: dict[str, Any] = json.loads(text)
    return found


def assert_theirs(lake: WarehouseLake) -> None:
    """All that others put on the table is there, and new rows have their defaults."""
    found = described(lake)
    columns = {column["name"]: column for column in found["columns"]}
    assert {"loaded_at", "surrogate", "kind"} <= columns.keys()
    assert columns["kind"]["default"] == "'web'"
    assert columns["note"]["comment"] == "it's free text"
    assert not columns["id"]["nullable"]
    assert found["comment"] == "theirs"
    assert found["table_properties"]["their.own"] == "x"
    assert found["table_properties"]["delta.enableChangeDataFeed"] == "true"
    assert found["table_properties"]["delta.constraints.positive"] == "id > 0"
    views = ("table_tags", "column_tags", "row_filters")
    for view in views:
        assert len(query(lake, f"SELECT 1 FROM main.information_schema.{view}")) == 1, view
    assert "readers" in str(query(lake, "SHOW GRANTS ON TABLE bronze.orders"))
    rows = query(lake, "SELECT count(*), count(loaded_at), min(kind) FROM bronze.orders")
    assert rows[0][0] == rows[0][1] > 0
    assert rows[0][2] == "web"


def assert_equal(sql: Any, lake: Any, *tables: str) -> None:
    oracle.assert_equal(sql, lake, tables)


def test_what_others_put_on_a_table_stays(
    sql: Any, lake: WarehouseLake, pipeline: InProcess
) -> None:
    pipeline.run("snapshot")
    lake.execute("COMMENT ON TABLE bronze.orders IS 'theirs'")
    lake.execute("GRANT SELECT ON TABLE bronze.orders TO `readers`")
    for action in THEIRS.strip().splitlines():
        lake.execute(f"ALTER TABLE bronze.orders {action.replace(chr(39) * 2, chr(92) + chr(39))}")
    sql.execute("INSERT INTO orders VALUES (3, 3, 'c', 'x')")
    pipeline.run("cdc")
    assert (3, "web") in lake.rows("orders", "id", "kind")
    for command in (["snapshot"], ["snapshot", "--tables", "public.orders"]):
        pipeline.run(*command)
        assert_theirs(lake)
        assert_equal(sql, lake, "orders", "people")
    for change in (
        "ALTER TABLE orders ALTER n TYPE numeric(12, 2) USING n + 0.5",  # widened
        "ALTER TABLE orders ADD made timestamp DEFAULT '2024-01-02 03:04:05'",  # read again
        "ALTER TABLE orders RENAME n TO amount",
        "ALTER TABLE orders ALTER amount TYPE text USING amount || ' EUR'",  # replaced
    ):
        sql.execute(change)
        sql.execute("UPDATE orders SET note = note || '!'")
        pipeline.run("cdc")
        assert_theirs(lake)
        assert_equal(sql, lake, "orders", "people")
    sql.execute("ALTER TABLE orders DROP gone")
    pipeline.run("cdc")
    pipeline.run("snapshot")
    assert_theirs(lake)
    assert "gone" in lake.read("orders").column_names
    sql.execute("ALTER TABLE orders RENAME TO purchases")
    pipeline.run("cdc")
    assert_equal(sql, lake, "purchases")
    assert {"loaded_at", "surrogate", "kind"} <= set(lake.read("purchases").column_names)


def test_generated_columns_of_others(sql: Any, lake: WarehouseLake, pipeline: InProcess) -> None:
    """They are filled by the table; where it must be replaced, the run says what is lost."""
    pipeline.run("snapshot")
    lake.execute(
        "CREATE OR REPLACE TABLE bronze.orders (id INT, n INT, note STRING, gone STRING, "
        "_cdc_lsn BIGINT, _cdc_committed_at TIMESTAMP, twice INT GENERATED ALWAYS AS (id * 2), "
        "no BIGINT GENERATED ALWAYS AS IDENTITY)"
    )
    pipeline.run("snapshot")
    sql.execute("INSERT INTO orders VALUES (3, 3, 'c', 'x'); UPDATE orders SET n = 7 WHERE id = 1")
    pipeline.run("cdc")
    assert_equal(sql, lake, "orders")
    assert sorted(lake.rows("orders", "id", "twice")) == [(1, 2), (2, 4), (3, 6)]
    assert len({number for (number,) in lake.rows("orders", "no")}) == 3
    sql.execute("ALTER TABLE orders ALTER n TYPE text")
    told = pipeline.run("cdc")
    assert "GENERATED of column 'twice'" in told
    assert "GENERATED of column 'no'" in told
    assert_equal(sql, lake, "orders")


def test_a_timestamp_column_is_added_to_a_table_that_is_there(
    sql: Any, lake: WarehouseLake, pipeline: InProcess
) -> None:
    pipeline.run("snapshot")
    sql.execute("ALTER TABLE orders ADD created timestamp; UPDATE orders SET created = now()")
    pipeline.run("cdc")
    assert_equal(sql, lake, "orders", "people")
    sql.execute("ALTER TABLE people ADD day date; UPDATE people SET day = '2024-01-02', v = 'b'")
    pipeline.run("cdc")
    sql.execute("ALTER TABLE people ALTER day TYPE timestamp; UPDATE people SET v = 'c'")
    lake.warehouse.clear_log()
    pipeline.run("cdc")
    assert_equal(sql, lake, "orders", "people")
    assert not any(s["text"].startswith("CREATE OR") for s in lake.warehouse.statements())


@pytest.mark.parametrize("before", ["cdc", "snapshot"])
def test_a_definition_that_is_refused_sets_its_table_aside(
    sql: Any, lake: WarehouseLake, pipeline: InProcess, before: str
) -> None:
    pipeline.run("snapshot")
    lake.warehouse.add_fault(
        "ALTER TABLE .*`orders`.* ADD COLUMNS",
        times=100,
        error_class="INSUFFICIENT_PERMISSIONS",
        message="no MODIFY on it.",
    )
    sql.execute("ALTER TABLE orders ADD more int; UPDATE orders SET more = 1")
    sql.execute("INSERT INTO people VALUES (2, 'b')")
    refused = pipeline.run(before, code=3).splitlines()[-1]
    assert "public.orders" in refused
    assert "[INSUFFICIENT_PERMISSIONS]" in refused
    assert_equal(sql, lake, "people")
    sql.execute("INSERT INTO people VALUES (3, 'c')")
    pipeline.run("cdc", code=3)
    assert_equal(sql, lake, "people")
    lake.warehouse.clear_faults()
    pipeline.run("snapshot", "--tables", "public.orders")
    pipeline.run("cdc")
    assert_equal(sql, lake, "orders", "people")


@pytest.mark.parametrize("kind", ["databricks", "duckdb", "delta"])
@pytest.mark.parametrize("command", ["cdc", "snapshot"])
def test_a_row_that_a_constraint_of_others_refuses(
    sql: Any,
    database: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    kind: str,
    command: str,
) -> None:
    lake = lake_of(kind, tmp_path, request)
    pipeline = InProcess(database, lake)
    pipeline.run("snapshot")
    constrain(lake)
    sql.execute("UPDATE orders SET n = 1; INSERT INTO people VALUES (2, 'b')")
    refused = pipeline.run(command, code=3).splitlines()[-1]
    assert "public.orders" in refused
    assert "public.people" not in refused
    assert_equal(sql, lake, "people")
    assert sorted(lake.rows("orders", "id", "n")) == [(1, 1), (2, 2)]
    sql.execute("UPDATE orders SET n = id * 2")
    pipeline.run("cdc")
    assert_equal(sql, lake, "orders", "people")


def constrain(lake: LocalLake | WarehouseLake) -> None:
    """Somebody wants that no two rows have the same n, or that n is as id."""
    import duckdb
    from deltalake import DeltaTable

    if isinstance(lake, WarehouseLake):
        lake.execute("ALTER TABLE bronze.orders ADD CONSTRAINT c CHECK (n >= id)")
    elif lake.kind == "duckdb":
        with duckdb.connect(str(lake.path / "lake.duckdb")) as connection:
            connection.execute("CREATE UNIQUE INDEX c ON bronze.orders (n)")
    else:
        table = DeltaTable(lake.path / "lakehouse" / "bronze" / "orders")
        table.alter.add_constraint({"c": "n >= id"})


@pytest.mark.parametrize("kind", ["databricks", "duckdb", "delta"])
@pytest.mark.parametrize("theirs", ["more int", "more string", "MORE int"])
def test_the_source_adds_a_column_that_others_have_added(
    sql: Any,
    database: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    kind: str,
    theirs: str,
) -> None:
    """Their values are not the source's: the table is read again, and no other one waits."""
    lake = lake_of(kind, tmp_path, request)
    pipeline = InProcess(database, lake)
    pipeline.run("snapshot")
    add_with_values(lake, theirs)
    sql.execute("ALTER TABLE orders ADD more int; UPDATE orders SET more = 7 WHERE id = 1")
    sql.execute("INSERT INTO people VALUES (2, 'b')")
    assert "the destination has a column" in pipeline.run("cdc")
    assert_equal(sql, lake, "orders", "people")
    sql.execute("UPDATE orders SET more = 8; ALTER TABLE orders ADD again int")
    assert "reading public." not in pipeline.run("cdc")
    assert_equal(sql, lake, "orders", "people")


def add_with_values(lake: LocalLake | WarehouseLake, column: str) -> None:
    """Somebody adds a column, and a value in each row."""
    import duckdb
    import pyarrow as pa
    from deltalake import DeltaTable, write_deltalake

    name, kind = column.split()
    if isinstance(lake, WarehouseLake):
        lake.execute(f"ALTER TABLE bronze.orders ADD COLUMNS ({column})")
        lake.execute(f"UPDATE bronze.orders SET {name} = 99")
    elif lake.kind == "duckdb":
        with duckdb.connect(str(lake.path / "lake.duckdb")) as connection:
            connection.execute(f"ALTER TABLE bronze.orders ADD COLUMN {column} DEFAULT 99")
    else:
        path = lake.path / "lakehouse" / "bronze" / "orders"
        rows = DeltaTable(path).to_pyarrow_table()
        values = pa.array([99] * len(rows)).cast(pa.int32() if kind == "int" else pa.string())
        write_deltalake(
            path, rows.append_column(name, values), mode="overwrite", schema_mode="overwrite"
        )


@pytest.mark.parametrize("kind", ["databricks", "duckdb"])
def test_a_column_that_others_gave_another_type_stops_no_other_table(
    sql: Any, database: str, tmp_path: Path, request: pytest.FixtureRequest, kind: str
) -> None:
    lake = lake_of(kind, tmp_path, request)
    pipeline = InProcess(database, lake)
    pipeline.run("snapshot")
    give_other_type(lake)
    sql.execute("UPDATE orders SET n = 5; INSERT INTO people VALUES (2, 'b')")
    refused = pipeline.run("cdc", code=3).splitlines()[-1]
    assert "column 'n' of 'orders' is string there" in refused
    assert "pgbronze snapshot --tables public.orders" in refused
    assert_equal(sql, lake, "people")
    pipeline.run("cdc")
    assert_equal(sql, lake, "orders", "people")


def give_other_type(lake: LocalLake | WarehouseLake) -> None:
    import duckdb

    if isinstance(lake, WarehouseLake):
        columns = "id, CAST(n AS STRING) AS n, note, gone, _cdc_lsn, _cdc_committed_at"
        lake.execute(
            f"CREATE OR REPLACE TABLE bronze.orders AS SELECT {columns} FROM bronze.orders"
        )
    else:
        with duckdb.connect(str(lake.path / "lake.duckdb")) as connection:
            connection.execute("ALTER TABLE bronze.orders ALTER n TYPE VARCHAR")


def test_definitions_that_do_not_show_yet(
    sql: Any, lake: WarehouseLake, pipeline: InProcess
) -> None:
    lake.warehouse.lag(600)
    pipeline.run("snapshot")
    for change in (
        "INSERT INTO orders VALUES (3, 3, 'c', 'x')",
        "ALTER TABLE orders ADD more int; UPDATE orders SET more = 1 WHERE id = 1",
        "ALTER TABLE orders RENAME more TO most; UPDATE orders SET most = 2 WHERE id = 2",
        "CREATE TABLE fresh (id int PRIMARY KEY, v text); INSERT INTO fresh VALUES (1, 'a')",
        "ALTER TABLE fresh ADD w int; INSERT INTO fresh VALUES (2, 'b', 2)",
    ):
        sql.execute(change)
        told = pipeline.run("cdc")
        assert "reading public." not in told or "fresh: new table" in told
        assert_equal(sql, lake, "orders", "people")
    sql.execute("ALTER TABLE fresh RENAME TO stale; UPDATE stale SET v = 'c'")
    assert "reading public." not in pipeline.run("cdc")
    assert_equal(sql, lake, "stale")
    sql.execute("ALTER TABLE orders ALTER n TYPE bigint; UPDATE orders SET n = 5000000000")
    pipeline.run("cdc")
    pipeline.run("cdc")
    pipeline.run("snapshot")
    sql.execute("ALTER TABLE orders ALTER n TYPE text; ALTER TABLE orders ADD x timestamp")
    pipeline.run("snapshot")
    pipeline.run("cdc")
    assert_equal(sql, lake, "orders", "people", "stale")


@pytest.mark.parametrize("change", ["SELECT 1", "ALTER TABLE orders ALTER n TYPE text"])
def test_a_table_that_others_drop_while_it_is_still_listed(
    sql: Any, lake: WarehouseLake, pipeline: InProcess, change: str
) -> None:
    pipeline.run("snapshot")
    lake.warehouse.lag(600)
    lake.drop("orders")
    sql.execute("UPDATE orders SET note = 'z'; INSERT INTO people VALUES (2, 'b')")
    refused = pipeline.run("cdc", code=3)
    assert "pgbronze snapshot --tables public.orders" in refused
    assert_equal(sql, lake, "people")
    sql.execute(change)
    pipeline.run("cdc")
    assert_equal(sql, lake, "orders", "people")
    lake.drop("people")
    pipeline.run("snapshot")
    assert_equal(sql, lake, "orders", "people")


def test_a_run_describes_no_table_that_it_has_nothing_to_do_with(
    sql: Any, lake: WarehouseLake, pipeline: InProcess
) -> None:
    pipeline.run("snapshot")
    sql.execute("UPDATE orders SET n = 9")
    lake.warehouse.clear_log()
    pipeline.run("cdc")
    pipeline.run("snapshot")
    texts = [statement["text"] for statement in lake.warehouse.statements()]
    assert not [text for text in texts if text.startswith(("DESCRIBE", "SHOW", "ALTER"))]


def test_what_others_put_on_a_duckdb_table_stays(sql: Any, database: str, tmp_path: Path) -> None:
    import duckdb

    lake = LocalLake("duckdb", tmp_path)
    pipeline = InProcess(database, lake)
    pipeline.run("snapshot")
    with duckdb.connect(str(tmp_path / "lake.duckdb")) as connection:
        connection.execute("ALTER TABLE bronze.orders ADD COLUMN kind VARCHAR DEFAULT 'web'")
        connection.execute("COMMENT ON TABLE bronze.orders IS 'theirs'")
        connection.execute("COMMENT ON COLUMN bronze.orders.note IS 'free text'")
        connection.execute("ALTER TABLE bronze.orders ALTER COLUMN id SET NOT NULL")
    for change in (
        "INSERT INTO orders VALUES (3, 3, 'c', 'x')",
        "ALTER TABLE orders ADD more int; UPDATE orders SET more = 1",
        "ALTER TABLE orders ALTER n TYPE text USING n || ' EUR'",
        "ALTER TABLE orders DROP gone",
    ):
        sql.execute(change)
        for command in ("cdc", "snapshot"):
            pipeline.run(command)
            assert set(lake.rows("orders", "kind")) == {("web",)}
            with duckdb.connect(str(tmp_path / "lake.duckdb")) as connection:
                found = connection.execute(
                    "SELECT comment, (SELECT count(*) FROM duckdb_columns() WHERE "
                    "table_name = 'orders' AND (comment = 'free text' OR NOT is_nullable)) "
                    "FROM duckdb_tables() WHERE table_name = 'orders'"
                ).fetchall()
            assert found == [("theirs", 2)]
            own = lake.read("orders").select(["id", "n", "note"]).sort_by("id").to_pylist()
            rows = sql.execute("SELECT id, n, note FROM orders ORDER BY id").fetchall()
            assert [tuple(row.values()) for row in own] == rows


def test_what_others_put_on_a_delta_table_stays(sql: Any, database: str, tmp_path: Path) -> None:
    import pyarrow as pa
    from deltalake import DeltaTable, Schema

    lake = LocalLake("delta", tmp_path)
    pipeline = InProcess(database, lake)
    pipeline.run("snapshot")
    place = tmp_path / "lakehouse" / "bronze" / "orders"
    alter = DeltaTable(place).alter
    alter.add_columns(Schema.from_arrow(pa.schema([("kind", pa.string())])).fields)
    alter = DeltaTable(place).alter
    alter.set_table_description("theirs")
    DeltaTable(place).alter.set_column_metadata("note", {"comment": "free text"})
    DeltaTable(place).alter.add_constraint({"positive": "id > 0"})
    for change in (
        "INSERT INTO orders VALUES (3, 3, 'c', 'x')",
        "ALTER TABLE orders ADD more int; UPDATE orders SET more = 1",
        "ALTER TABLE orders ALTER n TYPE text USING n || ' EUR'",
    ):
        sql.execute(change)
        for command in ("cdc", "snapshot"):
            pipeline.run(command)
            table = DeltaTable(place)
            assert table.metadata().description == "theirs"
            assert table.metadata().configuration["delta.constraints.positive"] == "id > 0"
            metadata = {f.name: f.metadata for f in table.schema().fields}
            assert metadata["note"] == {"comment": "free text"}
            assert "kind" in metadata
            assert_equal(sql, lake, "orders", "people")
