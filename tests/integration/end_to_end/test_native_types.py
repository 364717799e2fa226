"""Arrays in the destination's own type: from both ways of reading, and as verify compares them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from tests.support.lakes import lake_of
from tests.support.pipeline import InProcess

if TYPE_CHECKING:
    from pathlib import Path

TABLES = """
CREATE TYPE mood AS ENUM ('calm', 'an"gry', 'a,b');
CREATE DOMAIN ids AS int[];
CREATE TABLE t (
  id int PRIMARY KEY, ints int[], bigs bigint[], texts text[], flags bool[], floats float8[],
  exact numeric(10,2)[], digits numeric[], days date[], moods mood[], raws bytea[], own ids,
  docs jsonb[]
);
CREATE TABLE heap (tags text[]);
ALTER TABLE heap REPLICA IDENTITY FULL;
"""
ROWS = """
INSERT INTO t VALUES
  ({0} + 1, '{{1,NULL,-3}}', '{{9007199254740993}}', '{{a,"b,c",NULL,"NULL","q\\"x"}}',
   '{{t,f,NULL}}', '{{1.5,NaN,-Infinity}}', '{{1.50,NULL}}', '{{1.500,NaN}}', '{{2024-02-29}}',
   ARRAY['calm', 'an"gry', 'a,b']::mood[], ARRAY['\\x00ff'::bytea, NULL], '{{7}}',
   ARRAY['{{"a": 1}}'::jsonb]),
  ({0} + 2, '{{}}', '{{}}', '{{}}', '{{}}', '{{}}', '{{}}', '{{}}', '{{}}', '{{}}', '{{}}', '{{}}',
   '{{}}'),
  ({0} + 3, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
  ({0} + 4, '{{{{1,2}},{{3,4}}}}', '[0:1]={{5,6}}', '{{{{a}}}}', NULL, NULL, '{{NaN}}', NULL,
   '{{infinity}}', NULL, NULL, NULL, NULL);
INSERT INTO heap VALUES ('{{a,b}}'), ('{{a,b}}'), ('{{}}'), (NULL), ('{{{{x}}}}');
"""
RULES = json.dumps([{"match": "*", "arrays": "array"}])


def told(value: Any) -> str:
    return repr(value).replace("nan", "NaN")


def assert_rows(lake: Any, first: int) -> None:
    columns = (
        "ints", "bigs", "texts", "flags", "floats", "exact", "digits", "moods", "raws", "own",
        "docs",
    )  # fmt: skip
    found = {row[0]: row[1:] for row in lake.rows("t", "id", *columns)}
    whole = dict(zip(columns, found[first + 1], strict=True))
    assert whole["ints"] == [1, None, -3]
    assert whole["bigs"] == [9007199254740993]
    assert whole["texts"] == ["a", "b,c", None, "NULL", 'q"x']
    assert whole["flags"] == [True, False, None]
    assert told(whole["floats"]) == "[1.5, NaN, -inf]"
    assert [str(one) for one in whole["exact"]] == ["1.50", "None"]
    assert whole["digits"] == ["1.500", "NaN"]
    assert whole["moods"] == ["calm", 'an"gry', "a,b"]
    assert whole["raws"] == [b"\x00\xff", None]
    assert whole["own"] == [7]
    assert whole["docs"] == ['{"a": 1}']
    assert found[first + 2] == tuple([[]] * len(columns))
    assert found[first + 3] == tuple([None] * len(columns))
    assert found[first + 4] == tuple([None] * len(columns))


@pytest.mark.parametrize("kind", ["duckdb", "delta", "databricks"])
def test_arrays_of_their_elements_type(
    kind: str, database: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    lake = lake_of(kind, tmp_path, request)
    pipeline = InProcess(database, lake, SOURCES__PG_REPLICATION__TABLES=RULES)
    with psycopg.connect(database, autocommit=True) as sql:
        sql.execute(TABLES + ROWS.format(0))
        pipeline.run("snapshot")
        assert_rows(lake, 0)
        pipeline.run("verify")
        sql.execute(ROWS.format(10))
        sql.execute("UPDATE t SET ints = ints || 4 WHERE id = 1")
        sql.execute("DELETE FROM heap WHERE ctid = (SELECT min(ctid) FROM heap)")
        pipeline.run("cdc")
        assert_rows(lake, 10)
        assert (1, [1, None, -3, 4]) in lake.rows("t", "id", "ints")
        heap = sorted((row[0] for row in lake.rows("heap", "tags")), key=repr)
        assert heap == sorted([["a", "b"]] * 3 + [[], []] + [None] * 4, key=repr)
        pipeline.run("verify")
        kept = lake.rows("_cdc_unrepresentable", "table_name", "column_name", "value_text")
        assert sorted(kept) == sorted(
            2
            * [
                ("t", "ints", "{{1,2},{3,4}}"),
                ("t", "bigs", "[0:1]={5,6}"),
                ("t", "texts", "{{a}}"),
                ("t", "exact", "{NaN}"),
                ("t", "days", "{infinity}"),
                ("heap", "tags", "{{x}}"),
            ]
        )
        sql.execute("UPDATE t SET texts = '{z}' WHERE id = 2")
        pipeline.run("verify", code=1)
        pipeline.run("verify", "--repair")
        pipeline.run("cdc")
        assert (2, ["z"]) in lake.rows("t", "id", "texts")
        said = InProcess(database, lake).run("cdc")
        assert "its rules changed" in " ".join(said.split())
        assert (1, "[1,null,-3,4]") in lake.rows("t", "id", "ints")


@pytest.mark.parametrize("kind", ["duckdb", "delta", "databricks"])
def test_arrays_in_histories(
    kind: str, database: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    lake = lake_of(kind, tmp_path, request)
    rules = [{"match": "*", "arrays": "array", "history": ["log"], "deletes": "hard"}]
    rules += [{"match": "t", "history": ["log", "scd2"], "deletes": "soft"}]
    pipeline = InProcess(database, lake, SOURCES__PG_REPLICATION__TABLES=json.dumps(rules))
    with psycopg.connect(database, autocommit=True) as sql:
        sql.execute("CREATE TABLE t (id int PRIMARY KEY, tags text[], n int)")
        sql.execute("CREATE TABLE heap (tags int[]); ALTER TABLE heap REPLICA IDENTITY FULL")
        sql.execute("INSERT INTO t VALUES (1, '{a,NULL}', 0), (2, '{}', 0), (3, NULL, 0)")
        sql.execute("INSERT INTO heap VALUES ('{1}'), ('{1}'), ('{2,NULL}')")
        pipeline.run("snapshot")
        sql.execute("UPDATE t SET tags = tags || 'b'::text WHERE id = 1")
        sql.execute("UPDATE t SET n = 1 WHERE id = 2; DELETE FROM t WHERE id = 3")
        sql.execute("UPDATE heap SET tags = '{3}' WHERE tags = '{2,NULL}'")
        pipeline.run("cdc")
        pipeline.run("snapshot")  # the difference is empty
    order = ("_sort_by", "_pg_change_type", "id", "tags")
    images = [row[1:] for row in sorted(lake.rows("t_history", *order), key=lambda row: row[0])]
    assert images[3:] == [
        ("update_preimage", 1, ["a", None]),
        ("update_postimage", 1, ["a", None, "b"]),
        ("update_preimage", 2, []),
        ("update_postimage", 2, []),
        ("delete", 3, None),
    ]
    now = [row[:2] for row in lake.rows("t_scd2", "id", "tags", "__END_AT") if row[2] is None]
    assert sorted(now) == [(1, ["a", None, "b"]), (2, [])]
    heap = sorted((row for row in lake.rows("heap_history", "_pg_change_type", "tags")), key=repr)
    assert heap == [
        ("insert", [1]),
        ("insert", [1]),
        ("insert", [2, None]),
        ("update_postimage", [3]),
        ("update_preimage", [2, None]),
    ]


JSON_ROWS = """
    INSERT INTO docs VALUES
      ({0} + 1, '{{"b":  1.50, "a": [null, 1e5]}}', '{{"b": 2, "a": 1.50}}', '[]'),
      ({0} + 2, '"\\ud800 marker"', 'null', NULL),
      ({0} + 3, NULL, NULL, '"\\ud83d\\ude00"'),
      ({0} + 4, '{{"a": 1, "a": 2}}', '0.1234567890123456789', '1e400'),
      ({0} + 5, '{{"a": 0}}', '12345678901234567890123456789012345678901', '1e300');
    INSERT INTO heap VALUES ('{{"a": 1}}'), ('{{"a": 1}}'), ('null'), (NULL);
"""
CANONICAL_VALUES = {
    1: ('{"a":[null,100000],"b":1.5}', '{"a":1.5,"b":2}', "[]"),
    2: (None, "null", None),
    3: (None, None, '"😀"'),
    4: (None, "0.1234567890123456789", None),
    5: ('{"a":0}', None, "1e300"),
}


#: Values that the destination's type cannot hold: text of half a character, and values of VARIANT.
NO_TEXT = ("plain", '"\\ud800 marker"')
NO_VARIANT = [
    ("plain", '{"a": 1, "a": 2}'),
    ("own", "1e400"),
    ("body", "12345678901234567890123456789012345678901"),
]


def json_of(lake: Any, table: str, *columns: str) -> list[Any]:
    """Rows of the warehouse, whose VARIANT is a map with the text (see its README)."""
    return [
        tuple(value[0][1] if isinstance(value, list) else value for value in row)
        for row in lake.rows(table, *columns)
    ]


def described(lake: Any, table: str) -> list[str]:
    with lake.warehouse.connect() as session, session.cursor() as cursor:
        cursor.execute(f"DESCRIBE TABLE bronze.`{table}`")
        return [row[1] for row in cursor.fetchall()]


def types_of(lake: Any, table: str) -> list[str]:
    import duckdb

    with duckdb.connect(str(lake.path / "lake.duckdb"), read_only=True) as connection:
        return [row[1] for row in connection.execute(f"DESCRIBE bronze.{table}").fetchall()]


def columns_of(lake: Any, kind: str, table: str) -> list[str]:
    """The types of a table's columns."""
    return types_of(lake, table) if kind == "duckdb" else described(lake, table)


@pytest.mark.parametrize("kind", ["duckdb", "databricks"])
def test_json_in_its_own_type(
    kind: str, database: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """DuckDB keeps the text of values, VARIANT the values alone."""
    text, integer, own = (
        ("VARCHAR", "INTEGER", "JSON") if kind == "duckdb" else ("string", "int", "variant")
    )
    lake = lake_of(kind, tmp_path, request)
    rules = json.dumps([{"match": "*", "json": "variant"}])
    pipeline = InProcess(database, lake, SOURCES__PG_REPLICATION__TABLES=rules)

    def printed(value: str) -> str:
        return value if kind == "duckdb" else value.replace(" ", "")

    with psycopg.connect(database, autocommit=True) as sql:
        sql.execute("CREATE DOMAIN doc AS json")
        sql.execute("CREATE TABLE docs (id int PRIMARY KEY, plain json, body jsonb, own doc)")
        sql.execute("CREATE TABLE heap (body jsonb); ALTER TABLE heap REPLICA IDENTITY FULL")
        sql.execute(JSON_ROWS.format(0))
        InProcess(database, lake).run("snapshot")
        assert columns_of(lake, kind, "docs")[1:3] == [text, text]
        said = pipeline.run("cdc")
        assert "its rules changed" in " ".join(said.split())
        assert columns_of(lake, kind, "docs")[:4] == [integer, own, own, own]
        sql.execute(JSON_ROWS.format(10))
        sql.execute("UPDATE docs SET body = body || '{\"c\": 3}' WHERE id = 1")
        sql.execute("DELETE FROM heap WHERE ctid = (SELECT min(ctid) FROM heap)")
        assert "marker" not in pipeline.run("cdc")
        found = {row[0]: row[1:] for row in json_of(lake, "docs", "id", "plain", "body", "own")}
        if kind == "duckdb":
            rows = sql.execute("SELECT id, plain::text, body::text, own::text FROM docs")
            expected = {
                row[0]: tuple(None if one and "marker" in one else one for one in row[1:])
                for row in rows
            }
        else:
            values = CANONICAL_VALUES.items()
            expected = {first + n: row for n, row in values for first in (0, 10)}
            expected[1] = (expected[1][0], '{"a":1.5,"b":2,"c":3}', "[]")
        assert found == expected
        heap = sorted(str(row[0]) for row in json_of(lake, "heap", "body"))
        assert heap == ["None", "None", "null", "null", *3 * [printed('{"a": 1}')]]
        kept = lake.rows("_cdc_unrepresentable", "column_name", "value_text")
        unheld = [NO_TEXT] if kind == "duckdb" else [NO_TEXT, *NO_VARIANT]
        assert sorted(kept) == sorted(2 * unheld)
        pipeline.run("verify")
        sql.execute("ALTER TABLE docs ADD COLUMN more jsonb")
        sql.execute("""UPDATE docs SET more = '{"z": 1}' WHERE id = 1""")
        pipeline.run("cdc")
        assert (1, printed('{"z": 1}')) in json_of(lake, "docs", "id", "more")
        sql.execute("UPDATE docs SET body = 'null' WHERE id = 1")
        pipeline.run("verify", code=1)
        pipeline.run("verify", "--repair")
        assert (1, "null") in json_of(lake, "docs", "id", "body")
        sql.execute("UPDATE docs SET body = NULL WHERE id = 1")
        pipeline.run("verify", code=1)
        InProcess(database, lake).run("cdc")
        assert columns_of(lake, kind, "docs")[1:3] == [text, text]
        assert (11, '{"a": 1.50, "b": 2}') in lake.rows("docs", "id", "body")


@pytest.mark.parametrize("kind", ["duckdb", "databricks"])
def test_json_in_histories(
    kind: str, database: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    one, two, three, pair = (
        ('{"a": 1.0}', '{"a": 2}', '{"a": 3}', '{"a": 2, "b": 1.0}')
        if kind == "duckdb"
        else ('{"a":1}', '{"a":2}', '{"a":3}', '{"a":2,"b":1}')
    )
    own = "JSON" if kind == "duckdb" else "variant"
    lake = lake_of(kind, tmp_path, request)
    rules = [
        {"match": "docs", "json": "variant", "history": ["log", "scd2"], "deletes": "soft"},
        {"match": "heap", "json": "variant", "history": ["log"]},
    ]
    pipeline = InProcess(database, lake, SOURCES__PG_REPLICATION__TABLES=json.dumps(rules))
    big = "(SELECT jsonb_agg(md5(i::text)) FROM generate_series(1, 300) AS i)"
    with psycopg.connect(database, autocommit=True) as sql:
        sql.execute("CREATE TABLE docs (id int PRIMARY KEY, body jsonb, big jsonb, n int)")
        sql.execute("ALTER TABLE docs ALTER big SET STORAGE EXTERNAL")
        sql.execute("CREATE TABLE heap (body jsonb); ALTER TABLE heap REPLICA IDENTITY FULL")
        sql.execute("""INSERT INTO heap VALUES ('{"b": 1.0, "a": 2}'), ('{"b": 1.0, "a": 2}')""")
        sql.execute(
            f"""INSERT INTO docs VALUES (1, '{{"a": 1.0}}', {big}, 0), (2, NULL, NULL, 0)"""
        )
        pipeline.run("snapshot")
        sql.execute("UPDATE docs SET n = 1; DELETE FROM docs WHERE id = 2")
        sql.execute("""UPDATE docs SET body = '{"a": 2}'""")
        sql.execute("UPDATE heap SET body = '[]' WHERE ctid = (SELECT min(ctid) FROM heap)")
        pipeline.run("cdc")
        pipeline.run("snapshot")  # the difference is empty
        pipeline.run("verify")
        sql.execute("""UPDATE docs SET body = '{"a": 3}'""")
        pipeline.run("snapshot")
        pipeline.run("verify")
    for table in ("docs", "docs_history", "docs_scd2"):
        assert columns_of(lake, kind, table)[1:3] == [own, own]
    order = ("_sort_by", "_pg_change_type", "id", "body")
    images = [row[1:] for row in sorted(json_of(lake, "docs_history", *order))]
    assert [image for image in images if image[1] == 1] == [
        ("insert", 1, one),
        ("update_preimage", 1, one),
        ("update_postimage", 1, one),
        ("update_preimage", 1, one),
        ("update_postimage", 1, two),
        ("update_preimage", 1, two),
        ("update_postimage", 1, three),
    ]
    assert ("delete", 2, None) in images
    bigs = {row for row in json_of(lake, "docs_history", "id", "big") if row[0] == 1}
    assert len(bigs) == 1
    assert None not in {row[1] for row in bigs}
    now = [
        row[:2] for row in json_of(lake, "docs_scd2", "id", "body", "__END_AT") if row[2] is None
    ]
    assert now == [(1, three)]
    heap = sorted(json_of(lake, "heap_history", "_pg_change_type", "body"))
    assert heap == [
        ("insert", pair),
        ("insert", pair),
        ("update_postimage", "[]"),
        ("update_preimage", pair),
    ]


@pytest.mark.parametrize("kind", ["duckdb", "delta", "databricks"])
def test_a_dropped_column_of_an_own_type_keeps_its_values(
    kind: str, database: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    lake = lake_of(kind, tmp_path, request)
    rule = {"match": "*", "arrays": "array"} | ({"json": "variant"} if kind != "delta" else {})
    pipeline = InProcess(database, lake, SOURCES__PG_REPLICATION__TABLES=json.dumps([rule]))
    with psycopg.connect(database, autocommit=True) as sql:
        sql.execute("CREATE TABLE t (id int PRIMARY KEY, tags int[], doc jsonb)")
        sql.execute("""INSERT INTO t VALUES (1, '{1,2}', '{"a": 1}')""")
        pipeline.run("snapshot")
        before = lake.rows("t", "id", "tags", "doc")
        assert None not in before[0]
        sql.execute("ALTER TABLE t DROP COLUMN tags, DROP COLUMN doc")
        sql.execute("INSERT INTO t VALUES (2)")
        pipeline.run("cdc")
    assert sorted(lake.rows("t", "id", "tags", "doc")) == [*before, (2, None, None)]


@pytest.mark.parametrize(
    ("kind", "one_transaction"),
    [("duckdb", "false"), ("databricks", "false"), ("databricks", "true")],
)
def test_kept_rows_and_histories_where_the_rule_for_json_changes(
    kind: str,
    one_transaction: str,
    database: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    lake = lake_of(kind, tmp_path, request)
    rows = {1: '{"a":  1}', 2: '{"a": 1, "a": 2}', 3: "[1.50]", 4: '"text"'}
    rule = {"match": "docs", "history": ["log", "scd2"], "deletes": "soft"}
    together = {}
    if kind == "databricks":
        together["DESTINATION__DATABRICKS__MULTI_TABLE_TRANSACTION"] = one_transaction

    def pipeline(**more: str) -> InProcess:
        rules = json.dumps([rule | more])
        return InProcess(database, lake, SOURCES__PG_REPLICATION__TABLES=rules, **together)

    with psycopg.connect(database, autocommit=True) as sql:
        sql.execute("CREATE TABLE docs (id int PRIMARY KEY, body json)")
        with sql.cursor() as cursor:
            cursor.executemany("INSERT INTO docs VALUES (%s, %s)", rows.items())
        pipeline().run("snapshot")
        sql.execute("DELETE FROM docs WHERE id > 1")
        pipeline().run("cdc")
        pipeline(json="variant").run("cdc")
        assert columns_of(lake, kind, "docs")[1] in ("variant", "JSON")
        expected = rows if kind == "duckdb" else {**rows, 1: '{"a":1}', 2: None}
        assert dict(json_of(lake, "docs", "id", "body")) == expected
        sql.execute("UPDATE docs SET body = '{}' WHERE id = 1")
        pipeline(json="variant").run("cdc")
        pipeline(json="variant").run("verify")
        pipeline().run("cdc")
        assert columns_of(lake, kind, "docs")[1] in ("string", "VARCHAR")
        assert (4, '"text"') in lake.rows("docs", "id", "body")
        pipeline().run("verify")
    assert [row for row in lake.rows("docs_scd2", "id", "__END_AT") if row[1] is None] == [
        (1, None)
    ]
