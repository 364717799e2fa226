"""The local warehouse, through the clients that the project uses: connector, SDK, dlt."""

from __future__ import annotations

import datetime as dt
import io
import json
import math
import threading
import time
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from databricks.sql import exc

from tests.integration.databricks.costs import of_stock_dlt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.integration.warehouse import Warehouse

UTC = dt.UTC


class Sql:
    """A cursor with less ceremony."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self._cursor = connection.cursor()

    def __call__(self, statement: str, parameters: Any = None) -> list[dict[str, Any]]:
        self._cursor.execute(statement, parameters)
        if not self._cursor.description:
            return []
        rows: list[dict[str, Any]] = self._cursor.fetchall_arrow().to_pylist()
        return rows

    def fails(self, statement: str, error_class: str) -> str:
        with pytest.raises(exc.ServerOperationError) as caught:
            self(statement)
        text = str(caught.value)
        assert f"[{error_class}]" in text
        assert "SQLSTATE: " in text
        return text


@pytest.fixture
def sql(warehouse: Warehouse, tmp_path: Path) -> Iterator[Sql]:
    connection = warehouse.connect(staging_allowed_local_path=str(tmp_path))
    statement = Sql(connection)
    statement("CREATE SCHEMA bronze")
    statement("USE bronze")
    yield statement
    connection.close()


@pytest.fixture
def stage(sql: Sql, tmp_path: Path) -> Callable[[pa.Table, str], str]:
    """Upload a table as Parquet into a volume; returns the folder's path there."""
    sql("CREATE VOLUME IF NOT EXISTS files")

    def upload(table: pa.Table, folder: str, name: str = "part.parquet") -> str:
        local = tmp_path / name
        pq.write_table(table, local)
        target = f"/Volumes/main/bronze/files/{folder}"
        sql(f"PUT '{local}' INTO '{target}/{name}' OVERWRITE")
        return target

    return upload


def versions(warehouse: Warehouse, table: str) -> int:
    log = warehouse.table_path("bronze", table) / "_delta_log"
    return len(list(log.glob("*.json")))


TYPES = pa.schema(
    [
        ("b", pa.bool_()),
        ("i16", pa.int16()),
        ("i32", pa.int32()),
        ("i64", pa.int64()),
        ("f32", pa.float32()),
        ("f64", pa.float64()),
        ("d", pa.decimal128(38, 18)),
        ("s", pa.string()),
        ("bin", pa.binary()),
        ("date", pa.date32()),
        ("ntz", pa.timestamp("us")),
        ("ts", pa.timestamp("us", "UTC")),
    ]
)
TYPES_DDL = (
    "b BOOLEAN, i16 SMALLINT, i32 INT, i64 BIGINT, f32 FLOAT, f64 DOUBLE, d DECIMAL(38,18), "
    "s STRING, bin BINARY, date DATE, ntz TIMESTAMP_NTZ, ts TIMESTAMP"
)
VALUES = [
    {
        "b": True,
        "i16": -(2**15),
        "i32": 2**31 - 1,
        "i64": -(2**63),
        "f32": math.nan,
        "f64": -0.0,
        "d": Decimal("12345678901234567890.123456789012345678"),
        "s": "ü€\n\t'\"\\ \U0001f600",
        "bin": b"\x00\xff",
        "date": dt.date(1, 1, 1),
        "ntz": dt.datetime(1, 1, 1, 0, 0, 0, 1),  # noqa: DTZ001
        "ts": dt.datetime(9999, 12, 31, 23, 59, 59, 999999, UTC),
    },
    {
        "b": False,
        "i16": 7,
        "i32": 0,
        "i64": 2**63 - 1,
        "f32": 1.5,
        "f64": math.inf,
        "d": Decimal("-1E-18"),
        "s": "",
        "bin": b"",
        "date": dt.date(9999, 12, 31),
        "ntz": dt.datetime(9999, 12, 31, 23, 59, 59, 999999),  # noqa: DTZ001
        "ts": dt.datetime(1, 1, 1, 0, 0, 0, 1, UTC),
    },
    dict.fromkeys(TYPES.names),
]


def assert_same(found: pa.Table, wanted: pa.Table) -> None:
    assert found.schema.types == wanted.schema.types
    # As text, so that NaN equals NaN and -0.0 differs from 0.0.
    assert sorted(map(str, found.to_pylist())) == sorted(map(str, wanted.to_pylist()))


class TestTypes:
    def test_round_trip(self, sql: Sql, stage: Callable[..., str], warehouse: Warehouse) -> None:
        table = pa.Table.from_pylist(VALUES, schema=TYPES)
        sql(f"CREATE TABLE t ({TYPES_DDL})")
        folder = stage(table, "types")
        sql(f"COPY INTO t FROM '{folder}' FILEFORMAT = PARQUET")
        cursor = sql.connection.cursor()
        cursor.execute("SELECT * FROM t")
        kinds = [column[1] for column in cursor.description]
        assert " ".join(kinds) == (
            "boolean smallint int bigint float double decimal string binary date "
            "timestamp timestamp"
        )
        assert_same(cursor.fetchall_arrow(), table)
        assert_same(warehouse.read_table("bronze", "t"), table)

    def test_a_constant_beside_nan_stays(self, sql: Sql, stage: Callable[..., str]) -> None:
        sql("CREATE TABLE t (f DOUBLE)")
        folder = stage(pa.table({"f": [math.nan, 1.0]}), "nan")
        sql(f"COPY INTO t FROM '{folder}' FILEFORMAT = PARQUET")
        assert sql("SELECT count(*) AS n FROM t WHERE isnan(f)") == [{"n": 1}]
        sql("MERGE INTO t USING (SELECT 1) s ON false WHEN NOT MATCHED BY SOURCE THEN DELETE")
        assert sql("SELECT * FROM t") == []

    def test_information_schema(self, sql: Sql) -> None:
        sql(f"CREATE TABLE t ({TYPES_DDL})")
        found = sql(
            "SELECT column_name, full_data_type, numeric_precision, numeric_scale "
            "FROM information_schema.columns WHERE table_catalog = 'main' "
            "AND table_schema = 'bronze' AND table_name IN ('t') ORDER BY ordinal_position"
        )
        assert {row["column_name"]: row["full_data_type"] for row in found} == {
            "b": "boolean",
            "i16": "smallint",
            "i32": "int",
            "i64": "bigint",
            "f32": "float",
            "f64": "double",
            "d": "decimal(38,18)",
            "s": "string",
            "bin": "binary",
            "date": "date",
            "ntz": "timestamp_ntz",
            "ts": "timestamp",
        }

    def test_large_results_arrive_in_segments(self, sql: Sql) -> None:
        cursor = sql.connection.cursor()
        cursor.execute("SELECT id, repeat('x', 100) AS s FROM range(300000)")
        table = cursor.fetchall_arrow()
        assert table.num_rows == 300_000
        assert sum(table.column("id").to_pylist()) == 299_999 * 150_000

    def test_parameters(self, sql: Sql) -> None:
        found = sql("SELECT :a + 1 AS a, :b AS b", {"a": 1, "b": "it's \\ here"})
        assert found == [{"a": 2, "b": "it's \\ here"}]


class TestVolumes:
    def test_put_get_list_remove(self, sql: Sql, tmp_path: Path) -> None:
        sql("CREATE VOLUME files")
        (tmp_path / "a.bin").write_bytes(b"content")
        target = "/Volumes/main/bronze/files/sub/a.bin"
        sql(f"PUT '{tmp_path}/a.bin' INTO '{target}'")
        sql.fails(f"PUT '{tmp_path}/a.bin' INTO '{target}'", "STAGING_FILE_ALREADY_EXISTS")
        [listed] = sql("LIST '/Volumes/main/bronze/files/sub'")
        assert (listed["path"], listed["size"]) == (target, 7)
        sql(f"GET '{target}' TO '{tmp_path}/b.bin'")
        assert (tmp_path / "b.bin").read_bytes() == b"content"
        sql(f"REMOVE '{target}'")
        assert sql("LIST '/Volumes/main/bronze/files/sub'") == []

    def test_a_list_is_cut_off(self, sql: Sql, warehouse: Warehouse, tmp_path: Path) -> None:
        sql("CREATE VOLUME files")
        (tmp_path / "a.bin").write_bytes(b"")
        for number in range(4):
            sql(f"PUT '{tmp_path}/a.bin' INTO '/Volumes/main/bronze/files/{number}.bin'")
        warehouse.list_at_most(3)
        assert len(sql("LIST '/Volumes/main/bronze/files' LIMIT 9")) == 3

    def test_a_volume_must_exist(self, sql: Sql) -> None:
        sql.fails("REMOVE '/Volumes/main/bronze/none/x'", "VOLUME_DOES_NOT_EXIST")
        sql.fails("CREATE VOLUME nowhere.files", "SCHEMA_NOT_FOUND")


class TestCopyInto:
    def test_files_are_loaded_once_by_path(self, sql: Sql, stage: Callable[..., str]) -> None:
        sql("CREATE TABLE t (id BIGINT)")
        rows = pa.table({"id": [1, 2]})
        copy = f"COPY INTO t FROM '{stage(rows, 'a')}' FILEFORMAT = PARQUET"
        assert sql(copy)[0]["num_inserted_rows"] == 2
        assert sql(copy)[0]["num_inserted_rows"] == 0
        stage(rows, "a", "second.parquet")
        assert sql(copy)[0]["num_inserted_rows"] == 2
        other = f"COPY INTO t FROM '{stage(rows, 'b')}' FILEFORMAT = PARQUET"
        assert sql(other)[0]["num_inserted_rows"] == 2
        assert sql(other + " COPY_OPTIONS ('force' = 'true')")[0]["num_inserted_rows"] == 2
        assert sql("SELECT count(*) AS n FROM t") == [{"n": 8}]

    def test_types_are_strict(self, sql: Sql, stage: Callable[..., str]) -> None:
        sql("CREATE TABLE t (id BIGINT, f DOUBLE, d DECIMAL(38,10), ts TIMESTAMP)")
        wrong = {
            "id": pa.array([1], pa.int32()),
            "f": pa.array([1.0], pa.float32()),
            "d": pa.array([Decimal(1)], pa.decimal128(38, 9)),
            "ts": pa.array([0], pa.timestamp("us")),
        }
        for name, column in wrong.items():
            folder = stage(pa.table({name: column}), name)
            text = sql.fails(
                f"COPY INTO t FROM '{folder}' FILEFORMAT = PARQUET", "DELTA_FAILED_TO_MERGE_FIELDS"
            )
            assert f"'{name}'" in text
        nanos = stage(pa.table({"ts": pa.array([0], pa.timestamp("ns", "UTC"))}), "nanos")
        with pytest.raises(exc.ServerOperationError, match="Illegal Parquet type"):
            sql(f"COPY INTO t FROM '{nanos}' FILEFORMAT = PARQUET")

    def test_columns_that_lack_or_exceed(self, sql: Sql, stage: Callable[..., str]) -> None:
        sql("CREATE TABLE t (id BIGINT, v STRING)")
        sql(f"COPY INTO t FROM '{stage(pa.table({'id': [1]}), 'less')}' FILEFORMAT = PARQUET")
        more = f"COPY INTO t FROM '{stage(pa.table({'id': [2], 'x': [2.5]}), 'more')}' "
        more += "FILEFORMAT = PARQUET"
        sql.fails(more, "COPY_INTO_SCHEMA_MISMATCH_WITH_TARGET_TABLE")
        sql(more + " COPY_OPTIONS ('mergeSchema' = 'true')")
        assert sql("SELECT * FROM t ORDER BY id") == [
            {"id": 1, "v": None, "x": None},
            {"id": 2, "v": None, "x": 2.5},
        ]

    def test_not_null(self, sql: Sql, stage: Callable[..., str]) -> None:
        sql("CREATE TABLE t (id BIGINT NOT NULL)")
        folder = stage(pa.table({"id": pa.array([1, None], pa.int64())}), "nulls")
        sql.fails(
            f"COPY INTO t FROM '{folder}' FILEFORMAT = PARQUET",
            "DELTA_NOT_NULL_CONSTRAINT_VIOLATED",
        )
        sql.fails("INSERT INTO t VALUES (NULL)", "DELTA_NOT_NULL_CONSTRAINT_VIOLATED")


class TestMerge:
    @pytest.fixture(autouse=True)
    def _table(self, sql: Sql) -> None:
        sql("CREATE TABLE t (id BIGINT NOT NULL, v STRING, lsn BIGINT)")
        sql("INSERT INTO t VALUES (1, 'a', 1), (2, 'b', 1), (3, 'c', 1), (4, 'd', 9)")

    def test_all_clauses_in_one_commit(self, sql: Sql, warehouse: Warehouse) -> None:
        before = versions(warehouse, "t")
        [counts] = sql(
            "MERGE INTO main.bronze.t AS t USING (VALUES (1, 'A', 'U'), (2, '', 'D'), "
            "(5, 'e', 'U'), (6, '', 'D')) AS s(id, v, op) ON t.id <=> s.id "
            "WHEN MATCHED AND s.op = 'D' THEN DELETE "
            "WHEN MATCHED THEN UPDATE SET v = s.v, lsn = 2 "
            "WHEN NOT MATCHED AND s.op <> 'D' THEN INSERT (id, v) VALUES (s.id, s.v) "
            "WHEN NOT MATCHED BY SOURCE AND t.lsn < 5 THEN DELETE"
        )
        assert counts == {
            "num_affected_rows": 4,
            "num_updated_rows": 1,
            "num_deleted_rows": 2,
            "num_inserted_rows": 1,
        }
        assert versions(warehouse, "t") == before + 1
        wanted = [(1, "A", 2), (4, "d", 9), (5, "e", None)]
        found = warehouse.read_table("bronze", "t").to_pylist()
        assert sorted((r["id"], r["v"], r["lsn"]) for r in found) == wanted

    def test_two_source_rows_for_one_target_row(self, sql: Sql, warehouse: Warehouse) -> None:
        before = versions(warehouse, "t")
        sql.fails(
            "MERGE INTO t USING (VALUES (1, 'x'), (1, 'y')) AS s(id, v) ON t.id = s.id "
            "WHEN MATCHED THEN UPDATE SET v = s.v",
            "DELTA_MULTIPLE_SOURCE_ROW_MATCHING_TARGET_ROW_IN_MERGE",
        )
        assert versions(warehouse, "t") == before

    def test_source_with_windows_that_reads_the_target(self, sql: Sql) -> None:
        sql("CREATE TABLE s (id BIGINT, v STRING, unchanged STRING, lsn BIGINT, op STRING)")
        sql(
            "INSERT INTO s VALUES (1, 'x', NULL, 5, 'U'), (1, NULL, '.1.', 6, 'U'), "
            "(2, NULL, '.1.', 7, 'U'), (7, 'new', NULL, 7, 'U')"
        )
        sql(
            "MERGE INTO t USING (SELECT w.id, CASE WHEN w.unchanged LIKE '%.1.%' THEN o.v "
            "ELSE w.v END AS v, w.lsn, w.op FROM (SELECT * FROM (SELECT *, row_number() OVER "
            "(PARTITION BY id ORDER BY lsn DESC) AS rn FROM s) WHERE rn = 1) w "
            "LEFT JOIN t AS o ON o.id = w.id) AS s ON t.id = s.id "
            "WHEN MATCHED AND t.lsn < s.lsn THEN UPDATE SET v = s.v, lsn = s.lsn "
            "WHEN NOT MATCHED THEN INSERT (id, v, lsn) VALUES (s.id, s.v, s.lsn)"
        )
        found = sql("SELECT id, v, lsn FROM t ORDER BY id")
        assert [tuple(row.values()) for row in found] == [
            (1, "a", 6),
            (2, "b", 7),
            (3, "c", 1),
            (4, "d", 9),
            (7, "new", 7),
        ]

    def test_tables_of_one_name_without_aliases(self, sql: Sql) -> None:
        sql("CREATE SCHEMA bronze_staging")
        sql("CREATE TABLE bronze_staging.t AS SELECT 1L AS id, 'staged' AS v")
        sql(
            "MERGE INTO main.bronze.t USING main.bronze_staging.t "
            "ON main.bronze.t.id = main.bronze_staging.t.id "
            "WHEN MATCHED THEN UPDATE SET v = main.bronze_staging.t.v"
        )
        assert sql("SELECT v FROM t WHERE id = 1") == [{"v": "staged"}]

    def test_delete_and_update_that_ask_other_rows(self, sql: Sql, warehouse: Warehouse) -> None:
        before = versions(warehouse, "t")
        sql("CREATE TABLE k AS SELECT * FROM VALUES (1L), (3L) AS v(id)")
        sql("DELETE FROM t AS d WHERE EXISTS (SELECT 1 FROM k AS s WHERE s.id = d.id)")
        sql("UPDATE t SET v = concat(v, '!') WHERE id IN (SELECT id + 1 FROM k)")
        assert versions(warehouse, "t") == before + 2
        found = sql("SELECT id, v FROM t ORDER BY id")
        assert [tuple(row.values()) for row in found] == [(2, "b!"), (4, "d!")]
        sql.fails(
            "DELETE FROM t WHERE id IN (SELECT id FROM k WHERE id IN (SELECT id FROM k))",
            "DELTA_NESTED_SUBQUERY_NOT_SUPPORTED",
        )


class TestTables:
    def test_replace_is_one_version(self, sql: Sql, warehouse: Warehouse) -> None:
        sql("CREATE TABLE t (id BIGINT, v STRING) CLUSTER BY (id)")
        sql("GRANT SELECT ON TABLE t TO `reader@example.com`")
        sql("INSERT INTO t VALUES (1, 'a')")
        before = versions(warehouse, "t")
        sql("CREATE OR REPLACE TABLE t CLUSTER BY (id) AS SELECT id, 2.5D AS x FROM t")
        assert versions(warehouse, "t") == before + 1
        assert warehouse.read_table("bronze", "t").to_pylist() == [{"id": 1, "x": 2.5}]
        sql("INSERT OVERWRITE t SELECT id + 1, x FROM t")
        assert versions(warehouse, "t") == before + 2
        assert sql("SELECT * FROM t") == [{"id": 2, "x": 2.5}]
        assert sql("SHOW GRANTS ON TABLE t")[0]["Principal"] == "reader@example.com"
        assert sql("DESCRIBE DETAIL t")[0]["clusteringColumns"] == ["id"]
        sql("TRUNCATE TABLE t")
        assert versions(warehouse, "t") == before + 3
        assert sql("SELECT * FROM t") == []
        history = [row["operation"] for row in sql("DESCRIBE HISTORY t")]
        assert history[:3] == ["TRUNCATE", "WRITE", "CREATE OR REPLACE TABLE AS SELECT"]

    def test_a_clustering_column_cannot_be_dropped(self, sql: Sql) -> None:
        sql("CREATE TABLE t (id BIGINT, v STRING) CLUSTER BY (id)")
        sql("ALTER TABLE t SET TBLPROPERTIES ('delta.columnMapping.mode' = 'name')")
        with pytest.raises(exc.ServerOperationError, match="DROP_CLUSTERING_COLUMN"):
            sql("ALTER TABLE t DROP COLUMN id")
        sql("ALTER TABLE t CLUSTER BY (v)")
        sql("ALTER TABLE t DROP COLUMN id")

    def test_clustering_that_databricks_chooses(self, sql: Sql) -> None:
        sql("CREATE TABLE t (id BIGINT, v STRING) CLUSTER BY (id)")
        assert "clusterByAuto" not in str(sql("SHOW TBLPROPERTIES t"))
        sql("ALTER TABLE t CLUSTER BY AUTO")
        assert {"key": "clusterByAuto", "value": "true"} in sql("SHOW TBLPROPERTIES t")
        assert "CLUSTER BY AUTO" in sql("SHOW CREATE TABLE t")[0]["createtab_stmt"]
        sql("CREATE OR REPLACE TABLE t CLUSTER BY AUTO AS SELECT id, v FROM t")
        assert {"key": "clusterByAuto", "value": "true"} in sql("SHOW TBLPROPERTIES t")
        sql("ALTER TABLE t CLUSTER BY NONE")
        assert "clusterByAuto" not in str(sql("SHOW TBLPROPERTIES t"))

    def test_alter(self, sql: Sql, warehouse: Warehouse) -> None:
        sql("CREATE TABLE t (id BIGINT, v STRING)")
        sql("INSERT INTO t VALUES (1, 'a')")
        sql("ALTER TABLE t SET TBLPROPERTIES ('delta.feature.timestampNtz' = 'supported')")
        sql("ALTER TABLE t ADD COLUMN\n`n` TIMESTAMP_NTZ,\nd DECIMAL(38,4)")
        sql.fails("ALTER TABLE t ADD COLUMN N INT", "FIELD_ALREADY_EXISTS")
        sql.fails("ALTER TABLE t RENAME COLUMN v TO w", "DELTA_UNSUPPORTED_RENAME_COLUMN")
        sql.fails("ALTER TABLE t DROP COLUMN v", "DELTA_UNSUPPORTED_DROP_COLUMN")
        sql.fails("ALTER TABLE t ADD COLUMN `a b` INT", "DELTA_INVALID_CHARACTERS_IN_COLUMN_NAMES")
        sql("ALTER TABLE t SET TBLPROPERTIES ('delta.columnMapping.mode' = 'name')")
        sql("ALTER TABLE t RENAME COLUMN v TO `w w`")
        sql("ALTER TABLE t DROP COLUMN d")
        sql("ALTER TABLE t ADD COLUMN d INT")
        sql("INSERT INTO t (id, `w w`, d) VALUES (2, 'b', 3)")
        wanted = [
            {"id": 1, "w w": "a", "n": None, "d": None},
            {"id": 2, "w w": "b", "n": None, "d": 3},
        ]
        assert sql("SELECT * FROM t ORDER BY id") == wanted
        found = warehouse.read_table("bronze", "t").to_pylist()
        assert sorted(found, key=lambda row: row["id"]) == wanted
        sql("ALTER TABLE t RENAME TO u")
        sql.fails("SELECT * FROM t", "TABLE_OR_VIEW_NOT_FOUND")
        assert len(sql("SELECT * FROM u")) == 2

    def test_widening_a_type(self, sql: Sql) -> None:
        sql("CREATE TABLE t (i INT) TBLPROPERTIES ('delta.enableTypeWidening' = 'true')")
        sql("INSERT INTO t VALUES (1)")
        sql("ALTER TABLE t ALTER COLUMN i TYPE BIGINT")
        sql("INSERT INTO t VALUES (5000000000)")
        assert sql("SELECT sum(i) AS i FROM t") == [{"i": 5000000001}]

    @pytest.mark.parametrize(
        ("before", "after", "value"),
        [
            ("TINYINT", "DECIMAL(10,0)", 7),
            ("SMALLINT", "DOUBLE", 7),
            ("INT", "DECIMAL(12,2)", 7),
            ("INT", "DOUBLE", 7),
            ("BIGINT", "DECIMAL(20,0)", 7),
            ("DECIMAL(10,1)", "DECIMAL(12,3)", 7),
            ("FLOAT", "DOUBLE", 1.5),
            ("DATE", "TIMESTAMP_NTZ", "DATE'2024-01-02'"),
        ],
    )
    def test_documented_type_changes(self, sql: Sql, before: str, after: str, value: Any) -> None:
        widen = f"ALTER TABLE t ALTER COLUMN c TYPE {after}"
        sql(f"CREATE TABLE t (c {before})")
        sql(f"INSERT INTO t SELECT {value}")
        sql.fails(widen, "DELTA_UNSUPPORTED_ALTER_TABLE_CHANGE_COL_OP")
        sql("ALTER TABLE t SET TBLPROPERTIES ('delta.enableTypeWidening' = 'true')")
        if after == "TIMESTAMP_NTZ":
            sql.fails(widen, "DELTA_FEATURES_REQUIRE_MANUAL_ENABLEMENT")
            sql("ALTER TABLE t SET TBLPROPERTIES ('delta.feature.timestampNtz' = 'supported')")
        sql(widen)
        assert sql(f"SELECT 1 AS one FROM t WHERE c = CAST({value} AS {after})") == [{"one": 1}]

    @pytest.mark.parametrize(
        ("before", "after"),
        [
            ("INT", "STRING"),
            ("INT", "DECIMAL(10,2)"),
            ("BIGINT", "DOUBLE"),
            ("BIGINT", "DECIMAL(19,0)"),
            ("BIGINT", "INT"),
            ("DECIMAL(10,2)", "DECIMAL(11,4)"),
            ("DATE", "TIMESTAMP"),
        ],
    )
    def test_other_type_changes_are_refused(self, sql: Sql, before: str, after: str) -> None:
        sql(f"CREATE TABLE t (c {before}) TBLPROPERTIES ('delta.enableTypeWidening' = 'true')")
        refusal = "DELTA_UNSUPPORTED_ALTER_TABLE_CHANGE_COL_OP"
        sql.fails(f"ALTER TABLE t ALTER COLUMN c TYPE {after}", refusal)

    def test_timestamp_ntz_is_enabled_by_hand_on_a_table_that_is_there(self, sql: Sql) -> None:
        sql("CREATE TABLE made_with (n TIMESTAMP_NTZ)")
        sql("ALTER TABLE made_with ADD COLUMNS (m TIMESTAMP_NTZ)")
        sql("CREATE TABLE t (id INT)")
        add = "ALTER TABLE t ADD COLUMNS (n TIMESTAMP_NTZ)"
        sql.fails(add, "DELTA_FEATURES_REQUIRE_MANUAL_ENABLEMENT")
        sql("ALTER TABLE t SET TBLPROPERTIES ('delta.feature.timestampNtz' = 'supported')")
        sql(add)
        sql("INSERT INTO t VALUES (1, TIMESTAMP_NTZ'2024-01-02 03:04:05')")
        assert len(sql("SELECT * FROM t")) == 1

    def test_variant(self, sql: Sql) -> None:
        sql("CREATE TABLE t (id INT, v VARIANT)")
        assert [row["data_type"] for row in sql("DESCRIBE TABLE t")] == ["int", "variant"]
        sql("""INSERT INTO t SELECT 1, PARSE_JSON('{"a":0.1}')""")
        sql("INSERT INTO t SELECT 2, PARSE_JSON('null')")
        sql("INSERT INTO t SELECT 3, PARSE_JSON(CAST(NULL AS STRING))")
        sql("""MERGE INTO t USING (SELECT 1 AS id, '[2]' AS v) AS s ON t.id = s.id
            WHEN MATCHED THEN UPDATE SET v = CASE WHEN s.id = 2 THEN t.v ELSE PARSE_JSON(s.v) END
            WHEN NOT MATCHED THEN INSERT (id, v) VALUES (s.id, PARSE_JSON(s.v))""")
        found = sql("SELECT id, TO_JSON(v) AS v, v IS NULL AS n FROM t ORDER BY id")
        assert [tuple(row.values()) for row in found] == [
            (1, "[2]", False),
            (2, "null", False),
            (3, None, True),
        ]
        malformed = "MALFORMED_RECORD_IN_PARSING.WITHOUT_SUGGESTION"
        sql.fails("""SELECT PARSE_JSON('{"a":1,"a":2}') IS NULL""", malformed)
        assert sql("""SELECT TO_JSON(TRY_PARSE_JSON('{"a":1,"a":2}')) AS v""") == [{"v": None}]
        sql("CREATE OR REPLACE TABLE t AS SELECT id, TO_JSON(v) AS v FROM t")
        assert [row["data_type"] for row in sql("DESCRIBE TABLE t")] == ["int", "string"]

    def test_variant_cannot_be_compared_or_clustered(self, sql: Sql) -> None:
        sql("CREATE TABLE t (id INT, v VARIANT)")
        refused = "DATATYPE_MISMATCH.INVALID_ORDERING_TYPE"
        using = "(SELECT PARSE_JSON('1') AS v) AS s"
        for query in (
            f"MERGE INTO t USING {using} ON t.v = s.v WHEN MATCHED THEN DELETE",
            "SELECT * FROM t AS a JOIN t AS b ON a.v = b.v",
            "SELECT * FROM t AS a JOIN (SELECT r.* FROM t AS r) AS b ON a.v <=> b.v",
            "SELECT COUNT(*) FROM t GROUP BY v",
            "SELECT DISTINCT v FROM t",
            "SELECT id FROM t ORDER BY v",
            "SELECT ROW_NUMBER() OVER (PARTITION BY v ORDER BY id) FROM t",
        ):
            sql.fails(query, refused)
        union = "SELECT v FROM t UNION ALL SELECT PARSE_JSON('1') AS v"
        sql.fails(union, "UNSUPPORTED_FEATURE.SET_OPERATION_ON_VARIANT_TYPE")
        assert sql("SELECT COUNT(*) FROM t GROUP BY TO_JSON(v)") == []
        clustered = "DELTA_CLUSTERING_COLUMNS_DATATYPE_NOT_SUPPORTED"
        sql.fails("CREATE TABLE c (v VARIANT) CLUSTER BY (v)", clustered)
        sql.fails("ALTER TABLE t CLUSTER BY (v)", clustered)

    def test_variant_is_enabled_by_hand_on_a_table_that_is_there(self, sql: Sql) -> None:
        sql("CREATE TABLE t (id INT)")
        sql("INSERT INTO t VALUES (1)")
        add = "ALTER TABLE t ADD COLUMNS (v VARIANT AFTER id)"
        sql.fails(add, "DELTA_FEATURES_REQUIRE_MANUAL_ENABLEMENT")
        sql("ALTER TABLE t SET TBLPROPERTIES ('delta.feature.variantType-preview' = 'supported')")
        sql(add)
        sql("INSERT INTO t (id) VALUES (2)")
        found = sql("SELECT id, TO_JSON(v) AS v FROM t ORDER BY id")
        assert found == [{"id": 1, "v": None}, {"id": 2, "v": None}]

    def test_defaults(self, sql: Sql) -> None:
        disabled = "WRONG_COLUMN_DEFAULTS_FOR_DELTA_FEATURE_NOT_ENABLED"
        sql.fails("CREATE TABLE t (id INT, d INT DEFAULT 5)", disabled)
        sql("CREATE TABLE t (id INT, d INT)")
        sql.fails("ALTER TABLE t ALTER COLUMN d SET DEFAULT 5", disabled)
        sql("ALTER TABLE t SET TBLPROPERTIES ('delta.feature.allowColumnDefaults' = 'supported')")
        sql.fails(
            "ALTER TABLE t ADD COLUMNS (e INT DEFAULT 6)",
            "WRONG_COLUMN_DEFAULTS_FOR_DELTA_ALTER_TABLE_ADD_COLUMN_NOT_SUPPORTED",
        )
        sql("ALTER TABLE t ALTER COLUMN d SET DEFAULT 5")
        sql("INSERT INTO t (id) VALUES (1)")
        sql("INSERT INTO t (id, d) VALUES (2, NULL)")
        sql(
            "MERGE INTO t AS t USING (SELECT 3 AS id) AS s ON t.id = s.id "
            "WHEN NOT MATCHED THEN INSERT (id) VALUES (s.id)"
        )
        found = {row["id"]: row["d"] for row in sql("SELECT * FROM t")}
        assert found == {1: 5, 2: None, 3: 5}
        sql("INSERT OVERWRITE t (id) SELECT 4")
        assert sql("SELECT * FROM t") == [{"id": 4, "d": 5}]

    def test_generated_and_identity_columns(self, sql: Sql) -> None:
        sql(
            "CREATE TABLE t (id INT, twice INT GENERATED ALWAYS AS (id * 2), "
            "no BIGINT GENERATED ALWAYS AS IDENTITY (START WITH 10 INCREMENT BY 5))"
        )
        sql("INSERT INTO t (id) VALUES (1), (2)")
        sql(
            "MERGE INTO t AS t USING (VALUES (2, 20), (3, 30)) AS s(id, new) ON t.id = s.id "
            "WHEN MATCHED THEN UPDATE SET id = s.new "
            "WHEN NOT MATCHED THEN INSERT (id) VALUES (s.id)"
        )
        found = sql("SELECT id, twice FROM t ORDER BY id")
        assert [tuple(row.values()) for row in found] == [(1, 2), (3, 6), (20, 40)]
        numbers = [row["no"] for row in sql("SELECT no FROM t")]
        assert len(set(numbers)) == 3
        assert {number % 5 for number in numbers} == {0}
        refusal = "DELTA_IDENTITY_COLUMNS_EXPLICIT_INSERT_NOT_SUPPORTED"
        sql.fails("INSERT INTO t (id, no) VALUES (1, 1)", refusal)

    def test_constraints_are_kept(self, sql: Sql, warehouse: Warehouse) -> None:
        sql("CREATE TABLE t (id INT, v INT)")
        sql("INSERT INTO t VALUES (1, NULL)")
        sql.fails("ALTER TABLE t ALTER COLUMN v SET NOT NULL", "DELTA_NEW_NOT_NULL_VIOLATION")
        add = "ALTER TABLE t ADD CONSTRAINT positive CHECK (id > 0)"
        sql(add)
        sql.fails(add, "DELTA_CONSTRAINT_ALREADY_EXISTS")
        before = versions(warehouse, "t")
        broken = "DELTA_VIOLATE_CONSTRAINT_WITH_VALUES"
        for statement in (
            "INSERT INTO t VALUES (0, 1)",
            "INSERT OVERWRITE t VALUES (-1, 1)",
            "UPDATE t SET id = 0",
            (
                "MERGE INTO t AS t USING (SELECT 0 AS id) AS s ON t.id = s.id "
                "WHEN NOT MATCHED THEN INSERT (id) VALUES (s.id)"
            ),
        ):
            sql.fails(statement, broken)
        assert versions(warehouse, "t") == before
        sql("ALTER TABLE t SET TBLPROPERTIES ('delta.columnMapping.mode' = 'name')")
        sql.fails(
            "ALTER TABLE t RENAME COLUMN id TO no", "DELTA_CONSTRAINT_DEPENDENT_COLUMN_CHANGE"
        )
        sql("ALTER TABLE t DROP CONSTRAINT positive")
        sql("INSERT INTO t VALUES (0, 1)")

    def test_what_a_replacement_loses(self, sql: Sql) -> None:
        sql("CREATE TABLE t (id INT, theirs INT) COMMENT 'c'")
        for action in (
            "SET TBLPROPERTIES ('delta.feature.allowColumnDefaults' = 'supported', 'own' = 'x')",
            "ALTER COLUMN theirs SET DEFAULT 5",
            "ALTER COLUMN id COMMENT 'number'",
            "ALTER COLUMN id SET TAGS ('pii' = 'no')",
            "SET TAGS ('team' = 'a')",
            "ADD CONSTRAINT positive CHECK (id > 0)",
            "SET ROW FILTER main.bronze.f ON (id)",
        ):
            sql(f"ALTER TABLE t {action}")
        schema = "main.information_schema"
        shown = [
            f"SELECT tag_value FROM {schema}.table_tags",
            f"SELECT tag_value FROM {schema}.column_tags",
            f"SELECT check_clause FROM {schema}.check_constraints",
            f"SELECT filter_name FROM {schema}.row_filters",
        ]
        assert [len(sql(query)) for query in shown] == [1, 1, 1, 1]
        [described] = sql("DESCRIBE TABLE EXTENDED t AS JSON")
        found = json.loads(described["json_metadata"])
        assert found["comment"] == "c"
        assert found["table_properties"]["own"] == "x"
        assert [c.get("comment") for c in found["columns"]] == ["number", None]
        assert [c.get("default") for c in found["columns"]] == [None, "5"]
        sql("CREATE OR REPLACE TABLE t AS SELECT 1 AS id")
        assert [len(sql(query)) for query in shown] == [0, 0, 0, 0]
        [described] = sql("DESCRIBE TABLE EXTENDED t AS JSON")
        found = json.loads(described["json_metadata"])
        assert "comment" not in found
        assert "own" not in found["table_properties"]

    def test_information_schema_lags(self, sql: Sql, warehouse: Warehouse) -> None:
        query = (
            "SELECT column_name FROM main.information_schema.columns "
            "WHERE table_schema = 'bronze' ORDER BY ordinal_position"
        )
        sql("CREATE TABLE t (id INT)")
        warehouse.lag(1.0)
        sql("ALTER TABLE t ADD COLUMN v INT")
        assert [row["column_name"] for row in sql(query)] == ["id"]
        assert [row["col_name"] for row in sql("DESCRIBE TABLE t")] == ["id", "v"]
        time.sleep(1.1)
        assert [row["column_name"] for row in sql(query)] == ["id", "v"]

    def test_properties_that_the_engine_does_not_act_on(self, sql: Sql) -> None:
        sql("CREATE TABLE t (id INT) TBLPROPERTIES ('delta.enableDeletionVectors' = 'true')")
        assert sql("SHOW TBLPROPERTIES t") == [
            {"key": "delta.enableDeletionVectors", "value": "true"}
        ]

    def test_names(self, sql: Sql) -> None:
        sql.fails("CREATE TABLE t (a INT, A INT)", "DELTA_DUPLICATE_COLUMNS_FOUND")
        sql.fails("CREATE TABLE t (`a b` INT)", "DELTA_INVALID_CHARACTERS_IN_COLUMN_NAMES")
        sql("CREATE TABLE `Order` (`Ünï` INT, `MiXed` INT)")
        sql("INSERT INTO main.BRONZE.ORDER VALUES (1, 2)")
        assert sql("SELECT * FROM `order`") == [{"Ünï": 1, "MiXed": 2}]

    @pytest.mark.parametrize("name", ["ünï-cøde", "a$b%20c", "x#y?z*[q]{r}", "per.cent;', ("])
    def test_unusual_names_of_tables_and_files(
        self, sql: Sql, stage: Callable[..., str], warehouse: Warehouse, name: str
    ) -> None:
        if "." in name:
            sql.fails(f"CREATE TABLE `{name}` (id BIGINT)", "INVALID_PARAMETER_VALUE")
            return
        sql(f"CREATE TABLE main.bronze.`{name}` (id BIGINT)")
        folder = stage(pa.table({"id": [1]}), name, f"{name}.parquet")
        sql(f"COPY INTO main.bronze.`{name}` FROM '{folder}' FILEFORMAT = PARQUET")
        sql(
            f"MERGE INTO `{name}` AS t USING (SELECT 2L AS id) AS s ON t.id = s.id "
            "WHEN NOT MATCHED THEN INSERT *"
        )
        assert sql(f"SELECT sum(id) AS n FROM `{name}`") == [{"n": 3}]
        assert warehouse.read_table("bronze", name).num_rows == 2
        assert [row["tableName"] for row in sql("SHOW TABLES")] == [name]

    def test_qualify_and_except(self, sql: Sql) -> None:
        sql("CREATE TABLE t AS SELECT * FROM VALUES (1, 'a'), (1, 'b') AS v(id, v)")
        assert sql(
            "SELECT * EXCEPT (id) FROM t QUALIFY row_number() OVER (PARTITION BY id ORDER BY v) = 1"
        ) == [{"v": "a"}]

    def test_temporary_views_belong_to_a_session(self, sql: Sql, warehouse: Warehouse) -> None:
        sql("CREATE TABLE t AS SELECT 1 AS id")
        sql("CREATE TEMPORARY VIEW v AS SELECT id FROM t")
        sql("INSERT INTO t VALUES (2)")
        assert sql("SELECT count(*) AS n FROM v") == [{"n": 2}]
        with warehouse.connect(schema="bronze") as other:
            Sql(other).fails("SELECT * FROM v", "TABLE_OR_VIEW_NOT_FOUND")

    def test_clone(self, sql: Sql) -> None:
        sql("CREATE TABLE t (id INT NOT NULL)")
        sql("INSERT INTO t VALUES (1)")
        sql("CREATE TABLE u CLONE t")
        sql("TRUNCATE TABLE t")
        assert sql("SELECT * FROM u") == [{"id": 1}]

    def test_atomic_block(self, sql: Sql, warehouse: Warehouse) -> None:
        managed = "TBLPROPERTIES ('delta.feature.catalogManaged' = 'supported')"
        sql(f"CREATE TABLE t (id INT NOT NULL) {managed}")
        sql(f"CREATE TABLE u (v STRING) {managed}")
        sql("BEGIN ATOMIC INSERT INTO t VALUES (1); INSERT INTO u VALUES ('a;b'); END;")
        sql.fails(
            "BEGIN ATOMIC INSERT INTO u VALUES ('c'); INSERT INTO t VALUES (NULL); END",
            "DELTA_NOT_NULL_CONSTRAINT_VIOLATED",
        )
        assert sql("SELECT v FROM u") == [{"v": "a;b"}]
        assert warehouse.read_table("bronze", "u").num_rows == 1

    @pytest.mark.parametrize(
        ("statement", "reason"),
        [
            ("INSERT INTO plain VALUES (1)", "WRITE_NON_CATALOG_OWNED_TABLE"),
            ("CREATE TABLE v (id INT)", "COMMAND"),
            ("SELECT * FROM main.information_schema.tables", "INFORMATION_SCHEMA_TABLE"),
            ("SELECT * FROM parquet.`/x`", "ILLEGAL_DATA_SOURCE_FOR_TRANSACTIONAL_READ"),
        ],
    )
    def test_what_no_atomic_block_may_hold(self, sql: Sql, statement: str, reason: str) -> None:
        sql("CREATE TABLE plain (id INT)")
        sql.fails(f"BEGIN ATOMIC {statement}; END;", f"TRANSACTION_NOT_SUPPORTED.{reason}")


class TestErrors:
    def test_classes(self, sql: Sql) -> None:
        sql("CREATE TABLE t (id INT)")
        sql.fails("SELECT * FROM nothing", "TABLE_OR_VIEW_NOT_FOUND")
        sql.fails("CREATE TABLE nowhere.t (id INT)", "SCHEMA_NOT_FOUND")
        sql.fails("DROP TABLE IF EXISTS nowhere.t", "SCHEMA_NOT_FOUND")
        sql.fails("SELECT 1 FROM other.bronze.t", "TABLE_OR_VIEW_NOT_FOUND")
        sql.fails("CREATE SCHEMA other.bronze", "NO_SUCH_CATALOG_EXCEPTION")
        sql.fails("SELEC 1", "PARSE_SYNTAX_ERROR")
        sql.fails("SELECT nope FROM t", "UNRESOLVED_COLUMN.WITH_SUGGESTION")
        sql.fails("SELECT cast('x' AS INT)", "CAST_INVALID_INPUT")
        sql.fails("INSERT INTO t VALUES (5000000000)", "CAST_OVERFLOW")
        sql.fails("CREATE TABLE t (id INT)", "TABLE_OR_VIEW_ALREADY_EXISTS")
        sql.fails("DROP SCHEMA bronze", "SCHEMA_NOT_EMPTY")
        sql("DROP SCHEMA bronze CASCADE")
        sql.fails("SELECT * FROM t", "TABLE_OR_VIEW_NOT_FOUND")

    def test_a_session_may_name_a_schema_not_yet_made(self, warehouse: Warehouse) -> None:
        with warehouse.connect(schema="later") as connection:
            later = Sql(connection)
            later.fails("CREATE TABLE t (id INT)", "SCHEMA_NOT_FOUND")
            later("CREATE SCHEMA later")
            later("CREATE TABLE t (id INT)")

    def test_wrong_token(self, warehouse: Warehouse) -> None:
        with pytest.raises(exc.RequestError, match="Invalid access token"):
            warehouse.connect(access_token="wrong")


class TestFaults:
    @pytest.fixture(autouse=True)
    def _table(self, sql: Sql) -> None:
        sql("CREATE TABLE t (id INT)")

    def ids(self, sql: Sql) -> list[int]:
        return sorted(row["id"] for row in sql("SELECT id FROM t"))

    def test_error_at_the_nth_match(self, sql: Sql, warehouse: Warehouse) -> None:
        warehouse.add_fault(r"^insert", nth=2, error_class="DELTA_METADATA_CHANGED")
        sql("INSERT INTO t VALUES (1)")
        sql.fails("INSERT INTO t VALUES (2)", "DELTA_METADATA_CHANGED")
        sql("INSERT INTO t VALUES (3)")
        assert self.ids(sql) == [1, 3]
        assert [fault["fired"] for fault in warehouse.faults()] == [1]

    def test_conflict(self, sql: Sql, warehouse: Warehouse) -> None:
        warehouse.add_fault("insert", "conflict", times=2)
        for _ in range(2):
            sql.fails("INSERT INTO t VALUES (1)", "DELTA_CONCURRENT_APPEND")
        sql("INSERT INTO t VALUES (1)")

    def test_drop_before_is_sent_again(self, sql: Sql, warehouse: Warehouse) -> None:
        warehouse.add_fault("insert", "drop_before")
        sql("INSERT INTO t VALUES (1)")
        assert self.ids(sql) == [1]

    def test_drop_after_is_sent_again_and_counts_twice(
        self, sql: Sql, warehouse: Warehouse
    ) -> None:
        warehouse.add_fault("insert", "drop_after")
        sql("INSERT INTO t VALUES (1)")
        assert self.ids(sql) == [1, 1]

    def test_without_the_connectors_retries(self, warehouse: Warehouse) -> None:
        with warehouse.connect(schema="bronze", _enable_v3_retries=False) as connection:
            warehouse.add_fault("insert", "drop_after")
            with pytest.raises(Exception, match="Connection aborted"):
                Sql(connection)("INSERT INTO t VALUES (1)")
            assert self.ids(Sql(connection)) == [1]

    @pytest.mark.parametrize("status", [429, 503])
    def test_busy(self, sql: Sql, warehouse: Warehouse, status: int) -> None:
        """The connector would wait for five seconds at the least: here that is more than it may."""
        with warehouse.connect(_retry_stop_after_attempts_duration=1) as connection:
            warehouse.add_fault("insert", "http", status=status, retry_after=1)
            with pytest.raises(exc.RequestError, match="max retry duration"):
                Sql(connection)("INSERT INTO bronze.t VALUES (1)")
            Sql(connection)("INSERT INTO bronze.t VALUES (2)")
        assert self.ids(sql) == [2]

    def test_a_delayed_statement_is_polled_for(self, sql: Sql, warehouse: Warehouse) -> None:
        warehouse.add_fault("insert", "delay", seconds=0.2)
        warehouse.add_fault("GetOperationStatus", "drop_after")
        sql("INSERT INTO t VALUES (1)")
        assert [fault["fired"] for fault in warehouse.faults()] == [1, 1]
        assert self.ids(sql) == [1]

    def test_a_cycle_of_faults_for_each_statement(self, sql: Sql, warehouse: Warehouse) -> None:
        warehouse.add_fault("insert", "conflict", nth=1, cycle=3)
        warehouse.add_fault("insert", "error", nth=2, cycle=3)
        for value in (1, 2):
            insert = f"INSERT INTO t VALUES ({value})"
            for _ in range(2):
                sql.fails(insert, "DELTA_CONCURRENT_APPEND")
                sql.fails(insert, "INTERNAL_ERROR")
                sql(insert)
        assert self.ids(sql) == [1, 1, 2, 2]

    def test_opening_a_session_and_uploading(
        self, sql: Sql, warehouse: Warehouse, tmp_path: Path
    ) -> None:
        warehouse.add_fault("^THRIFT OpenSession$", "error", message="no session today")
        with pytest.raises(exc.DatabaseError, match="no session today"):
            warehouse.connect()
        warehouse.connect().close()
        sql("CREATE VOLUME files")
        (tmp_path / "a").write_bytes(b"x")
        warehouse.add_fault("^HTTP PUT", "error")
        with pytest.raises(exc.OperationalError, match="500"):
            sql(f"PUT '{tmp_path}/a' INTO '/Volumes/main/bronze/files/a'")
        assert sql("LIST '/Volumes/main/bronze/files'") == []

    def test_log_and_counters(self, sql: Sql, warehouse: Warehouse) -> None:
        warehouse.clear_log()
        with warehouse.connect(schema="bronze") as connection:
            Sql(connection)("SELECT 1")
            assert warehouse.open_sessions() >= 2
        sql.fails("SELECT * FROM nothing", "TABLE_OR_VIEW_NOT_FOUND")
        counters = warehouse.counters()
        assert (counters["sessions"], counters["sessions_closed"]) == (1, 1)
        assert counters["statements"] == 2
        first, second = warehouse.statements()
        assert (first["text"], first["status"], first["rows"]) == ("SELECT 1", "finished", 1)
        assert second["error_class"] == "TABLE_OR_VIEW_NOT_FOUND"
        assert second["seconds"] > 0
        assert first["session"] != second["session"]


def test_parallel_sessions(sql: Sql, warehouse: Warehouse) -> None:
    """Writers of one table follow one another; readers see whole versions."""
    sql("CREATE TABLE t (worker INT, n INT)")
    failures: list[Exception] = []

    def work(worker: int) -> None:
        try:
            with warehouse.connect(schema="bronze") as connection:
                own = Sql(connection)
                own(f"CREATE TABLE own{worker} (n INT)")
                for n in range(5):
                    own(f"INSERT INTO t VALUES ({worker}, {n}), ({worker}, {n})")
                    own(f"INSERT INTO own{worker} VALUES ({n})")
                    assert own("SELECT count(*) % 2 AS odd FROM t") == [{"odd": 0}]
        except Exception as error:  # noqa: BLE001
            failures.append(error)

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert warehouse.read_table("bronze", "t").num_rows == 60
    assert sql("SELECT count(*) AS n FROM own3") == [{"n": 5}]


class TestSdk:
    @pytest.fixture(params=["token", "oauth"])
    def client(
        self, request: pytest.FixtureRequest, warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
    ) -> Any:
        from databricks.sdk import WorkspaceClient

        monkeypatch.setenv("REQUESTS_CA_BUNDLE", warehouse.ca_file)
        if request.param == "token":
            return WorkspaceClient(host=warehouse.host, token=warehouse.token)
        return WorkspaceClient(
            host=warehouse.host,
            client_id=warehouse.client_id,
            client_secret=warehouse.client_secret,
        )

    def test_secrets(self, client: Any) -> None:
        if "dlt_scope" not in [scope.name for scope in client.secrets.list_scopes()]:
            client.secrets.create_scope("dlt_scope")
        client.secrets.put_secret("dlt_scope", "key", string_value="postgresql://ü:x@h/db")
        assert client.dbutils.secrets.get("dlt_scope", "key") == "postgresql://ü:x@h/db"
        with pytest.raises(Exception, match="Failed to get secret"):
            client.dbutils.secrets.get("dlt_scope", "none")

    def test_identity_and_warehouses(self, client: Any) -> None:
        assert client.current_user.me().user_name == "tester@example.com"
        [found] = client.warehouses.list()
        assert found.odbc_params.path == "/sql/1.0/warehouses/local"

    def test_catalog_and_files(self, client: Any, sql: Sql) -> None:
        sql("CREATE VOLUME files")
        sql("CREATE TABLE t (id INT, d DECIMAL(38,2))")
        path = "/Volumes/main/bronze/files/a/b c.bin"
        client.files.upload(path, io.BytesIO(b"content"), overwrite=True)
        assert client.files.download(path).contents.read() == b"content"
        [entry] = client.files.list_directory_contents("/Volumes/main/bronze/files/a")
        assert (entry.path, entry.file_size) == (path, 7)
        client.files.delete(path)
        assert client.tables.get("main.bronze.t").columns[1].type_text == "decimal(38,2)"
        assert [v.name for v in client.volumes.list("main", "bronze")] == ["files"]
        client.volumes.delete("main.bronze.files")
        with pytest.raises(Exception, match="VOLUME_DOES_NOT_EXIST"):
            client.volumes.read("main.bronze.files")
        client.schemas.delete("main.bronze", force=True)
        assert "bronze" not in [schema.name for schema in client.schemas.list("main")]


class TestDlt:
    """dlt's own Databricks destination, as it comes."""

    @pytest.fixture(autouse=True)
    def _quiet(self, monkeypatch: pytest.MonkeyPatch, warehouse: Warehouse) -> None:
        monkeypatch.setenv("RUNTIME__DLTHUB_TELEMETRY", "false")
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", warehouse.ca_file)

    def pipeline(self, warehouse: Warehouse, folder: Path) -> Any:
        import dlt

        destination = dlt.destinations.databricks(credentials=warehouse.dlt_credentials(oauth=True))
        return dlt.pipeline(
            "orders", destination=destination, dataset_name="bronze", pipelines_dir=str(folder)
        )

    def resource(self, table: pa.Table, folder: Path, disposition: Any) -> Any:
        import dlt

        file = folder / f"{time.time_ns()}.parquet"
        pq.write_table(table, file)
        kinds = {"int64": "bigint", "string": "text", "double": "double"}
        columns: list[Any] = [
            {"name": field.name, "data_type": kinds[str(field.type)], "nullable": True}
            for field in table.schema
        ]
        hints = dlt.mark.make_hints(columns=columns)

        @dlt.resource(name="orders", write_disposition=disposition, primary_key="id")
        def orders() -> Iterator[Any]:
            dlt.current.resource_state()["rows"] = table.num_rows
            yield dlt.mark.with_file_import(str(file), "parquet", table.num_rows, hints=hints)

        return orders

    def rows(self, warehouse: Warehouse) -> list[tuple[Any, ...]]:
        found = warehouse.read_table("bronze", "orders").to_pylist()
        return sorted(tuple(row.values()) for row in found)

    def test_replace_merge_new_column_and_state(self, warehouse: Warehouse, tmp_path: Path) -> None:
        """As a service principal; with a token as below."""
        pipeline = self.pipeline(warehouse, tmp_path / "work")
        first = pa.table({"id": [1, 2, 3], "v": ["a", "b", "c"]})
        pipeline.run(self.resource(first, tmp_path, "replace")).raise_on_failed_jobs()
        pipeline.run(self.resource(first, tmp_path, "replace")).raise_on_failed_jobs()
        assert self.rows(warehouse) == [(1, "a"), (2, "b"), (3, "c")]

        second = pa.table({"id": [3, 4], "v": ["C", "D"]})
        pipeline.run(self.resource(second, tmp_path, "merge")).raise_on_failed_jobs()
        assert self.rows(warehouse) == [(1, "a"), (2, "b"), (3, "C"), (4, "D")]
        assert warehouse.table_path("bronze_staging", "orders").is_dir()

        third = pa.table({"id": [4, 5], "v": ["d", "e"], "x": [0.5, 1.5]})
        pipeline.run(self.resource(third, tmp_path, "merge")).raise_on_failed_jobs()
        assert self.rows(warehouse) == [
            (1, "a", None),
            (2, "b", None),
            (3, "C", None),
            (4, "d", 0.5),
            (5, "e", 1.5),
        ]

        fresh = self.pipeline(warehouse, tmp_path / "fresh")
        fresh.sync_destination()
        assert fresh.state["sources"]["orders"]["resources"]["orders"] == {"rows": 2}
        fresh.run(self.resource(third, tmp_path, "merge")).raise_on_failed_jobs()
        assert len(self.rows(warehouse)) == 5
        assert warehouse.open_sessions() == 0

    def test_costs_that_the_readme_states(self, warehouse: Warehouse, tmp_path: Path) -> None:
        costs = list(of_stock_dlt(warehouse, tmp_path, 1).values())
        assert costs == [(5, 19), (3, 8), (4, 19), (4, 12)]
