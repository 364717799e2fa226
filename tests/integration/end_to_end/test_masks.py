"""Masks and excluded columns, from PostgreSQL to the lake: exact hashes, and no value elsewhere."""

from __future__ import annotations

import hmac
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pyarrow.parquet as pq
import pytest

from tests.support import hard_cases, oracle, type_matrix
from tests.support.lakes import lake_of
from tests.support.pipeline import InProcess, Pipeline

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.lakes import Lake

KEY = "hidden mask key"
#: No rule lets any of these out. Each column has a marker of its own.
NUMBER = 7_316_204_958_117
TABLES = f"""
CREATE TYPE mood AS ENUM ('calm', 'angry');
CREATE TABLE people (
  ssn text PRIMARY KEY, id int NOT NULL, email text, phone bigint, iban varchar(40), born date,
  salary numeric(10,2), tags text[], body jsonb, mood mood, seen timestamptz, raw bytea,
  notes text
);
INSERT INTO people SELECT
  'MARKER-ssn-' || n, n, 'MARKER-email-' || n, {NUMBER}, 'MARKER-iban-' || n,
  CASE n WHEN 1 THEN 'infinity'::date ELSE '1917-11-07' END,
  CASE n WHEN 2 THEN 'NaN' ELSE 1234567.89 END, ARRAY['MARKER-tag', 'b'],
  '{{"MARKER-json": 1}}', 'calm', 'infinity', '\\x4d41524b4552',
  repeat('MARKER-long-', 500)
FROM generate_series(1, 20) n;
CREATE TABLE heap (id int, email text);
ALTER TABLE heap REPLICA IDENTITY FULL;
INSERT INTO heap VALUES (1, 'MARKER-heap'), (1, 'MARKER-heap'), (2, NULL);
"""
RULES: list[dict[str, Any]] = [
    {
        "match": "people",
        "exclude_columns": ["email", "bo*"],
        "mask": {
            "ssn": "hash", "phone": "null", "iban": "last4", "salary": "hash", "tags": "hash",
            "mood": "hash", "seen": "hash", "raw": "hash", "notes": "last4",
        },
    },
    {"match": "heap", "mask": {"email": "hash"}},
]  # fmt: skip
CHANGES = f"""
UPDATE people SET email = 'MARKER-email-new', phone = phone + 1 WHERE id = 3;
UPDATE people SET ssn = 'MARKER-ssn-moved' WHERE id = 4;
UPDATE people SET iban = 'MARKER-iban-new', mood = 'angry' WHERE id = 5;
DELETE FROM people WHERE id = 6;
INSERT INTO people (ssn, id, email, phone, salary, born)
  SELECT 'MARKER-late-' || n, n, 'MARKER-email-late', {NUMBER}, 'NaN', '-infinity'
  FROM generate_series(100, 160) n;
UPDATE heap SET email = 'MARKER-heap-new' WHERE id = 2;
DELETE FROM heap WHERE ctid = (SELECT min(ctid) FROM heap WHERE id = 1);
"""
MARKERS = (
    b"MARKER-",
    str(NUMBER).encode(),
    NUMBER.to_bytes(8, "little"),
    b"1234567.89",
    b"1917-11",
)


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that gets a copy of every file that the process removes."""
    copies = tmp_path / "copies"
    copies.mkdir()
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.setenv("HOME", str(tmp_path))
    removals = {name: getattr(os, name) for name in ("unlink", "remove", "replace", "rename")}
    rmtree = shutil.rmtree

    def keep(path: Any) -> None:
        try:
            file = Path(os.fsdecode(path))
        except TypeError:
            return  # a file descriptor
        inside = tmp_path in file.absolute().parents and copies not in file.absolute().parents
        for one in [file] if file.is_file() else file.rglob("*") if file.is_dir() else ():
            if inside and one.is_file():
                shutil.copyfile(one, copies / f"{len(list(copies.iterdir()))}-{one.name}")

    def keeping(function: Any) -> Any:
        def removing(path: Any, *arguments: Any, **options: Any) -> Any:
            if not options.get("dir_fd"):
                keep(path)
            return function(path, *arguments, **options)

        return removing

    for name, function in removals.items():
        monkeypatch.setattr(os, name, keeping(function))
    monkeypatch.setattr(shutil, "rmtree", keeping(rmtree))
    yield tmp_path
    monkeypatch.undo()


def found_in(folder: Path, lake: Lake, tables: list[str]) -> list[str]:
    """Where a marker is: in the bytes of files, in what Parquet files hold, and in the tables."""
    found = []
    for file in folder.rglob("*"):
        if not file.is_file():
            continue
        content = file.read_bytes()
        if content[:4] == content[-4:] == b"PAR1":
            content += repr(pq.ParquetFile(file).read().to_pydict()).encode()
        found += [f"{marker!r} in {file}" for marker in MARKERS if marker in content]
    for table in tables:
        content = repr(lake.read(table).to_pydict()).encode()
        found += [f"{marker!r} in table {table}" for marker in MARKERS if marker in content]
    return found


def hashed(text: object) -> str | None:
    return (
        None if text is None else hmac.new(KEY.encode(), str(text).encode(), "sha256").hexdigest()
    )


def starred(text: str | None) -> str | None:
    return text and "*" * max(len(text) - 4, 0) + text[-4:]


def assert_masked(sql: psycopg.Connection, lake: Lake) -> None:
    """The tables are what the rules make of PostgreSQL's own text."""
    columns = ["ssn", "iban", "salary", "tags", "mood", "seen", "raw", "notes"]
    wanted = [
        (row[0], *(starred(v) if c in ("iban", "notes") else hashed(v)
                   for c, v in zip(columns, row[1:], strict=True)))
        for row in sql.execute(
            f"SELECT id, {', '.join(f'{name}::text' for name in columns)} FROM people"
        )
    ]  # fmt: skip
    assert sorted(lake.rows("people", "id", *columns)) == sorted(wanted)
    people = lake.read("people")
    assert {"email", "born"}.isdisjoint(people.column_names)
    assert set(people.column("phone").to_pylist()) == {None}
    assert str(people.schema.field("phone").type) == "int64"
    heap = [(row[0], hashed(row[1])) for row in sql.execute("SELECT id, email FROM heap")]
    assert sorted(lake.rows("heap", "id", "email"), key=repr) == sorted(heap, key=repr)


@pytest.mark.parametrize("reader", ["copy", "sql_database"])
@pytest.mark.parametrize("kind", ["duckdb", "delta", "databricks"])
def test_nothing_unmasked_is_written(
    kind: str, reader: str, database: str, written: Path, request: pytest.FixtureRequest
) -> None:
    if reader == "sql_database" and kind != "duckdb":
        pytest.skip("the reader does not depend on the destination")
    place = written / "lake"
    place.mkdir()
    lake = lake_of(kind, place, request)
    pipeline = InProcess(
        database,
        lake,
        SOURCES__PG_REPLICATION__TABLES=json.dumps(RULES),
        SOURCES__PG_REPLICATION__MASK_KEY=KEY,
        SOURCES__PG_REPLICATION__SNAPSHOT_READER=reader,
        LOG_LEVEL="DEBUG",
    )
    tables = ["people", "heap"] + ["_dlt_pipeline_state"] * (kind != "delta")
    output = []
    with psycopg.connect(database, autocommit=True) as sql:
        sql.execute("SET extra_float_digits = 1; SET TimeZone = 'UTC'")
        sql.execute(TABLES)
        output.append(pipeline.run("snapshot"))
        assert_masked(sql, lake)
        sql.execute(CHANGES)
        output.append(pipeline.run("cdc"))
        assert_masked(sql, lake)
        output.append(pipeline.run("verify"))
        sql.execute("DELETE FROM people WHERE id = 7; UPDATE people SET iban = 'MARKER-x'")
        output.append(pipeline.run("verify", "--json", code=1))
        output.append(pipeline.run("verify", "--repair"))
        assert_masked(sql, lake)
        output.append(pipeline.run("cdc"))
        output.append(pipeline.run("status"))
        output.append(pipeline.run("check"))
        output.append(pipeline.run("plan"))
    assert found_in(written, lake, tables) == []
    assert [marker for marker in MARKERS for text in output if marker in text.encode()] == []
    assert KEY not in "".join(output)
    held = [file for file in written.rglob("*") if file.is_file()]
    assert [file for file in held if KEY.encode() in file.read_bytes()] == []


@pytest.mark.parametrize("kind", ["duckdb", "delta"])
def test_a_killed_run_leaves_nothing_unmasked(
    kind: str, database: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """While a transaction that is larger than memory allows arrives, and at other moments."""
    place, temporary = tmp_path / "lake", tmp_path / "temporary"
    place.mkdir()
    temporary.mkdir()
    lake = lake_of(kind, place, request)
    pipeline = Pipeline(
        database,
        lake,
        SOURCES__PG_REPLICATION__TABLES=json.dumps(RULES),
        SOURCES__PG_REPLICATION__MASK_KEY=KEY,
        SOURCES__PG_REPLICATION__BATCH_MAX_BYTES="1MB",
        TMPDIR=str(temporary),
        HOME=str(tmp_path),
    )
    with psycopg.connect(database, autocommit=True) as sql:
        sql.execute(TABLES)
        pipeline.run("snapshot")
        sql.execute(
            f"INSERT INTO people (ssn, id, email, phone, notes) SELECT 'MARKER-many-' || n, n, "
            f"'MARKER-email', {NUMBER}, repeat('MARKER-', 20) FROM generate_series(1000, 30000) n"
        )
        for after in (1.5, 2.5):
            pipeline.killed("cdc", after=after)
            assert found_in(tmp_path, lake, []) == []
        pipeline.run("cdc")
        assert_masked(sql, lake)
    assert found_in(tmp_path, lake, ["people", "heap"]) == []


def test_the_search_finds_what_is_not_masked(
    database: str, written: Path, request: pytest.FixtureRequest
) -> None:
    """Without rules every marker is found, in tables and in files, so the search above can fail."""
    place = written / "lake"
    place.mkdir()
    lake = lake_of("duckdb", place, request)
    pipeline = InProcess(database, lake)
    with psycopg.connect(database, autocommit=True) as sql:
        sql.execute(TABLES)
        pipeline.run("snapshot")
        sql.execute(CHANGES)
        pipeline.run("cdc")
    found = found_in(written, lake, ["people", "heap"])
    assert {marker for marker in MARKERS if any(repr(marker) in each for each in found)} >= {
        b"MARKER-",
        str(NUMBER).encode(),
    }
    assert any(".parquet" in each for each in found)


@pytest.mark.parametrize("kind", ["duckdb", "delta", "databricks"])
def test_rules_that_are_added_take_effect_with_the_next_run(
    kind: str, database: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    lake = lake_of(kind, tmp_path, request)
    with psycopg.connect(database, autocommit=True) as sql:
        sql.execute("SET TimeZone = 'UTC'")
        sql.execute(TABLES)
        InProcess(database, lake).run("snapshot")
        assert "MARKER-email-1" in lake.read("people").column("email").to_pylist()
        settings = {
            "SOURCES__PG_REPLICATION__TABLES": json.dumps(RULES),
            "SOURCES__PG_REPLICATION__MASK_KEY": KEY,
        }
        pipeline = InProcess(database, lake, **settings)
        told = " ".join(pipeline.run("cdc").split())
        assert "public.people: its rules changed" in told
        assert_masked(sql, lake)
        again = pipeline.run("cdc")
        assert "rules changed" not in again
        settings["SOURCES__PG_REPLICATION__MASK_KEY"] = "another"
        told = InProcess(database, lake, **settings).run("cdc")
        assert "its rules changed" in " ".join(told.split())
        assert hmac.new(b"another", b"MARKER-ssn-1", "sha256").hexdigest() in {
            row[0] for row in lake.rows("people", "ssn")
        }
        told = InProcess(database, lake).run("cdc")
        assert "its rules changed" in " ".join(told.split())
        assert "MARKER-email-1" in lake.read("people").column("email").to_pylist()


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"mask": {"nope": "null"}}, ["rule 1", "public.people", "nope"]),
        ({"exclude_columns": ["ssn"]}, ["rule 1", "public.people", "ssn", "key"]),
        ({"mask": {"ssn": "last4"}}, ["rule 1", "public.people", "ssn", "only be hashed"]),
        ({"mask": {"email": "hash"}}, ["rule 1", "public.people", "email", "mask_key"]),
    ],
)
def test_rules_that_do_not_fit_end_every_command(
    rule: dict[str, Any], words: list[str], database: str, tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    lake = lake_of("duckdb", tmp_path, request)
    with psycopg.connect(database, autocommit=True) as sql:
        sql.execute(TABLES)
        InProcess(database, lake).run("snapshot")
    rules = json.dumps([{"match": "public.people", **rule}])
    pipeline = InProcess(database, lake, SOURCES__PG_REPLICATION__TABLES=rules)
    for command in ("snapshot", "cdc", "verify", "check", "status", "plan"):
        told = " ".join(pipeline.run(command, code=2).split())
        assert [word for word in words if word not in told] == [], command


def test_a_partition_by_a_hashed_column_is_detached(
    database: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Its bounds say nothing about the destination's rows, so the table is read again."""
    lake = lake_of("duckdb", tmp_path, request)
    pipeline = InProcess(
        database,
        lake,
        SOURCES__PG_REPLICATION__TABLES='[{"match": "days", "mask": {"day": "hash"}}]',
        SOURCES__PG_REPLICATION__MASK_KEY=KEY,
    )
    with psycopg.connect(database, autocommit=True) as sql:
        columns = "id int, day int, PRIMARY KEY (id, day)"
        sql.execute(f"CREATE TABLE days ({columns}) PARTITION BY RANGE (day)".encode())
        sql.execute("CREATE TABLE days_1 PARTITION OF days FOR VALUES FROM (0) TO (10)")
        sql.execute("CREATE TABLE days_2 PARTITION OF days FOR VALUES FROM (10) TO (20)")
        sql.execute("INSERT INTO days VALUES (1, 1), (2, 11), (3, 12)")
        pipeline.run("snapshot")
        sql.execute("INSERT INTO days VALUES (4, 13); ALTER TABLE days DETACH PARTITION days_1")
        assert "reading public.days: a partition was detached" in " ".join(
            pipeline.run("cdc").split()
        )
        assert sorted(lake.rows("days", "id")) == [(2,), (3,), (4,)]
        pipeline.run("verify")


@pytest.mark.parametrize("reader", ["copy", "sql_database"])
def test_every_type_is_hashed_by_its_text(
    reader: str, database: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Every type of the contract, domains over it and arrays of it, by snapshot and every change,
    against the texts that the server's output functions print."""
    lake = lake_of("duckdb", tmp_path, request)
    pipeline = InProcess(
        database,
        lake,
        SOURCES__PG_REPLICATION__TABLES='[{"match": "*", "mask": {"*": "hash"}}]',
        SOURCES__PG_REPLICATION__MASK_KEY=KEY,
        SOURCES__PG_REPLICATION__SNAPSHOT_READER=reader,
    )
    with psycopg.connect(database, autocommit=True) as sql:
        sql.execute(type_matrix.SETUP)
        major = sql.info.server_version // 10_000
        tables = type_matrix.wide_tables(type_matrix.available(sql), major)
        for table in tables:
            sql.execute(table.create().encode())
            table.insert(sql, major, 0)
        source = oracle.Source(sql)
        pipeline.run("snapshot")
        assert_hashed(source, lake, [table.name for table in tables])
        for table in tables:
            table.insert(sql, major, 10_000)
            sql.execute(f"UPDATE {table.name} SET n = n + 1".encode())
            sql.execute(f"UPDATE {table.name} SET id = id + 50000 WHERE id % 2 = 1".encode())
            sql.execute(f"DELETE FROM {table.name} WHERE id % 3 = 0".encode())
        pipeline.run("cdc")
        assert_hashed(source, lake, [table.name for table in tables])


def assert_hashed(source: oracle.Source, lake: Lake, tables: list[str]) -> None:
    for table in tables:
        wanted = source.read(table)
        names = [column.name for column in wanted.columns]
        assert len(wanted.rows) > 2
        expected = sorted((tuple(map(hashed, row)) for row in wanted.rows), key=repr)
        assert sorted(lake.rows(table, *names), key=repr) == expected


def test_the_hard_cases_with_every_column_hashed(
    database: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Keys are hashed too. After each round every table is the hash of the source's."""
    lake = lake_of("duckdb", tmp_path, request)
    pipeline = InProcess(
        database,
        lake,
        SOURCES__PG_REPLICATION__TABLES='[{"match": "*", "mask": {"*": "hash"}}]',
        SOURCES__PG_REPLICATION__MASK_KEY=KEY,
        SOURCES__PG_REPLICATION__BATCH_MAX_ROWS="400",
    )
    wrong = []
    with (
        psycopg.connect(database, autocommit=True) as sql,
        psycopg.connect(database, autocommit=True) as reading,
    ):
        for case in hard_cases.CASES:
            sql.execute(case.setup.encode())
        pipeline.run("snapshot")
        for number in range(hard_cases.ROUNDS):
            rounds = [(c, c.rounds[number]) for c in hard_cases.CASES if number < len(c.rounds)]
            for _, one in rounds:
                for transaction in one.transactions:
                    sql.execute(transaction.encode())
            pipeline.run("cdc")
            source = oracle.Source(reading)
            for case, one in rounds:
                for table in one.tables or case.tables:
                    wanted = source.read(table)
                    names = [column.name for column in wanted.columns]
                    expected = sorted((tuple(map(hashed, row)) for row in wanted.rows), key=repr)
                    if sorted(lake.rows(table, *names), key=repr) != expected:
                        wrong.append(f"{case.title}, round {number + 1}, table {table}")
        pipeline.run("verify")
    assert wrong == []


@pytest.mark.parametrize("kind", ["duckdb", "delta", "databricks"])
def test_histories_and_marked_rows_are_masked_too(
    kind: str, database: str, written: Path, request: pytest.FixtureRequest
) -> None:
    place = written / "lake"
    place.mkdir()
    lake = lake_of(kind, place, request)
    people = {**RULES[0], "history": ["log", "scd2"], "deletes": "soft"}
    rules = json.dumps([people, {**RULES[1], "history": ["log"]}])
    pipeline = InProcess(
        database,
        lake,
        SOURCES__PG_REPLICATION__TABLES=rules,
        SOURCES__PG_REPLICATION__MASK_KEY=KEY,
    )
    with psycopg.connect(database, autocommit=True) as sql:
        sql.execute(TABLES)
        pipeline.run("snapshot")
        gone = sql.execute("SELECT ssn FROM people WHERE id = 6").fetchone()
        assert gone is not None
        sql.execute(CHANGES)
        pipeline.run("cdc")
    tables = ["people", "heap", "people_history", "people_scd2", "heap_history"]
    assert found_in(written, lake, tables) == []
    marked = {row[0] for row in lake.rows("people", "ssn", "_cdc_deleted_at") if row[1] is not None}
    assert hashed(gone[0]) in marked
    images = lake.rows("people_history", "_pg_change_type", "ssn")
    assert ("delete", hashed(gone[0])) in images
    assert ("update_postimage", hashed("MARKER-ssn-moved")) in images or (
        "insert", hashed("MARKER-ssn-moved")
    ) in images  # fmt: skip
    assert hashed("MARKER-late-100") in {row[0] for row in lake.rows("people_scd2", "ssn")}


@pytest.mark.parametrize("kind", ["duckdb", "delta", "databricks"])
def test_rows_marked_before_a_mask_do_not_show_what_it_hides(
    kind: str, database: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    lake = lake_of(kind, tmp_path, request)

    def run(command: str, **mask: str) -> None:
        rules = json.dumps([{"match": "t", "deletes": "soft", "mask": mask}])
        more = {"SOURCES__PG_REPLICATION__TABLES": rules, "SOURCES__PG_REPLICATION__MASK_KEY": KEY}
        InProcess(database, lake, **more).run(command)

    with psycopg.connect(database, autocommit=True) as sql:
        sql.execute("CREATE TABLE t (id int PRIMARY KEY, name text, born date, note text)")
        sql.execute("INSERT INTO t SELECT n, 'x', '1917-11-07', 'y' FROM generate_series(1, 3) n")
        run("snapshot")
        sql.execute("DELETE FROM t WHERE id = 1")
        run("cdc")
        sql.execute("DELETE FROM t WHERE id = 2")
        run("cdc", name="hash", born="null")
        found = lake.rows("t", "id", "name", "born", "note", "_cdc_deleted_at")
        assert sorted((*row[:4], row[4] is not None) for row in found) == [
            (1, None, None, "y", True),
            (2, None, None, "y", True),
            (3, hashed("x"), None, "y", False),
        ]
        # No destination can hash the keys of rows that the source no longer has.
        run("cdc", name="hash", born="null", id="hash")
    found = lake.rows("t", "id", "name", "_cdc_deleted_at")
    assert found == [(hashed("3"), hashed("x"), None)]
