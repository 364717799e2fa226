"""Bad settings and arguments: each one line that names what is wrong, exit 2, and no secret."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import pytest

from entrypoints.cli.main import main
from tests.unit.entrypoints.conftest import DSN, PASSWORD

if TYPE_CHECKING:
    from pathlib import Path

SOURCE = "SOURCES__PG_REPLICATION__"
DATABRICKS = "DESTINATION__DATABRICKS__CREDENTIALS__"
SECRET = f"u:{PASSWORD}"

#: variable, value, and what the line must say beside the key.
BAD_VALUES = [
    # connection strings
    ("CREDENTIALS", "", "is empty"),
    ("CREDENTIALS", "   ", "is empty"),
    ("CREDENTIALS", f"mysql://{SECRET}@h/db", "must begin with postgresql://"),
    ("CREDENTIALS", f"postgresq://{SECRET}@h/db", "must begin with postgresql://"),
    ("CREDENTIALS", f"postgresql://{SECRET}@x@h/db", "percent-encoded"),
    ("CREDENTIALS", f"postgresql://{SECRET}/x@h/db", "percent-encoded"),
    ("CREDENTIALS", f"postgresql://{SECRET}#x@h/db", "percent-encoded"),
    ("CREDENTIALS", f"postgresql://{SECRET}?x@h/db", "query part"),
    ("CREDENTIALS", f"postgresql://{SECRET}%zz@h/db", "write %25 for %"),
    ("CREDENTIALS", f"postgresql://{SECRET}%00@h/db", "write %25 for %"),
    ("CREDENTIALS", f"postgresql://{SECRET} @h/db", "percent-encoded"),
    ("CREDENTIALS", f"postgresql://{SECRET}@h:54x2/db", "port that is not a number"),
    ("CREDENTIALS", f"postgresql://{SECRET}@h:0/db", "port that is not a number"),
    ("CREDENTIALS", f"postgresql://{SECRET}@h:65536/db", "port that is not a number"),
    ("CREDENTIALS", f"postgresql://{SECRET}@[::1/db", "closing bracket"),
    ("CREDENTIALS", f"postgresql://{SECRET}@h/db?sslmod=require", "did you mean 'sslmode'"),
    ("CREDENTIALS", f"postgresql://{SECRET}@h/db?sslmode=yes", "sslmode that is not one of"),
    ("CREDENTIALS", f"postgresql://{SECRET}@h/db?sslmode", "key=value pairs"),
    ("CREDENTIALS", f"postgresql://{SECRET}@h/db?replication=database", "replication"),
    ("CREDENTIALS", f"postgresql://{SECRET}@h/db?connect_timeout=soon", "connect_timeout"),
    ("CREDENTIALS", f"postgresql://{SECRET}@h,i/db?load_balance_hosts=random", "load_balance"),
    ("CREDENTIALS", f"host=h pasword={PASSWORD}", "did you mean 'password'"),
    ("CREDENTIALS", f"host=h password='{PASSWORD}", "key=value pairs"),
    ("CREDENTIALS", f"h shop app {PASSWORD}", "key=value pairs"),
    ("CREDENTIALS", f"host=h port=five password={PASSWORD}", "port that is not a number"),
    ("CREDENTIALS", f"postgresql://{SECRET}@h/db?colour=red", "unknown parameter: 'colour'"),
    ("CREDENTIALS", f"postgresql://u:12?{PASSWORD}=b@h/db", "one that libpq does not know"),
    ("CREDENTIALS", f'{{"database": "d", "colour": "{PASSWORD}"}}', "unknown parameter: 'colour'"),
    ("CREDENTIALS", f'{{"database": "d", "password": ["{PASSWORD}"]}}', "value of password"),
    ("CREDENTIALS", f'{{"database": "d", "password": "{PASSWORD}}}', "not a JSON object"),
    ("CREDENTIALS", f'{{"password": "{PASSWORD}"}}', "names no database"),
    # names
    ("SLOT_NAME", "My-Slot", "lower-case letters"),
    ("SLOT_NAME", "", "lower-case letters"),
    ("SLOT_NAME", "s" * 64, "1 to 63"),
    ("SLOT_NAME", "schön", "lower-case letters"),
    ("PUB_NAME", "", "1 to 63 bytes"),
    ("PUB_NAME", "é" * 32, "1 to 63 bytes"),
    ("PLUGIN_NAME", "wal2json", "not one of 'pgoutput'"),
    ("SCHEMAS", "", "at least one"),
    ("SCHEMAS", "public,public", "twice"),
    ("SCHEMAS", "public,,app", "empty name"),
    ("SCHEMAS", '["public"', "must be a list of names"),
    ("SCHEMAS", "[1, 2]", "must be a list of names"),
    ("INCLUDE", "[]", "at least one"),
    ("EXCLUDE", '[""]', "empty name"),
    # choices and numbers
    ("SNAPSHOT_READER", "fast", "not one of 'copy', 'spark', 'sql_database'"),
    ("PARALLELISM", "many", "integer"),
    ("PARALLELISM", "0", "greater than or equal to 1"),
    ("PARALLELISM", "65", "less than or equal to 64"),
    ("BATCH_MAX_ROWS", "1.5", "integer"),
    ("BATCH_MAX_ROWS", "-1", "greater than or equal to 1"),
    ("BATCH_MAX_BYTES", "12 parsecs", "must be a size"),
    ("BATCH_MAX_BYTES", "9000000TB", "less than or equal to 1125899906842624"),
    ("BATCH_MAX_SECONDS", "0", "greater than 0"),
    ("MAX_RETAINED_WAL", "10 GBit", "must be a size"),
    ("FAILOVER", "perhaps", "valid boolean"),
    ("DLT_SCOPE", " ", "is empty"),
    ("PG_CONNECTION_STRING", "", "is empty"),
]

BAD_OTHERS = [
    ("PIPELINE__NAME", "../etc", "letters, digits"),
    ("PIPELINE__DESTINATION", "snowflake", "not one of 'databricks', 'duckdb', 'delta'"),
    ("PIPELINE__DATASET_NAME", "my-data", "must begin with a letter"),
    ("PIPELINE__DATASET_NAME", "1st", "must begin with a letter"),
    ("PIPELINE__DATASET_NAME", "lake", "destination.duckdb.credentials = 'lake.duckdb'"),
    ("PIPELINE__DATASET_NAME", "Lake", "rename the file or the dataset"),
    ("PIPELINE__DATASET_NAME", "main", "DuckDB's own"),
    ("PIPELINE__DATASET_NAME", "Information_Schema", "DuckDB's own"),
    ("PIPELINE__DATASET_NAME", "pg_catalog", "DuckDB's own"),
    ("PIPELINE__DATASET_NAME", "temp", "DuckDB's own"),
    ("PIPELINE__DATASET_NAME", "system", "DuckDB's own"),
    ("PIPELINE__SCHEMA_CHANGES", "ignore", "not one of 'evolve', 'freeze'"),
    ("DESTINATION__DUCKDB__CREDENTIALS", "", "is empty"),
    ("DESTINATION__DUCKDB__CREDENTIALS", "no/such/folder/lake.duckdb", "folder does not exist"),
    ("DESTINATION__DUCKDB__CREDENTIALS", ".", "is a folder"),
    ("DESTINATION__DUCKDB__CREDENTIALS", "duckdb:///.", "is a folder"),
    ("DESTINATION__DUCKDB__CREDENTIALS", ":memory:", "name a file"),
    ("DESTINATION__DUCKDB__CREDENTIALS", "duckdb:///:memory:", "is :memory:"),
    ("DESTINATION__DUCKDB__CREDENTIALS", "BRONZE.v1.duckdb", "pipeline.dataset_name = 'bronze'"),
    ("DESTINATION__DUCKDB__CREDENTIALS", "duckdb:///bronze.db", "cannot distinguish"),
    ("DESTINATION__FILESYSTEM__BUCKET_URL", " ", "is empty"),
    ("DESTINATION__DATABRICKS__KEEP_STAGED_FILES", "2", "valid boolean"),
    (f"{DATABRICKS}SERVER_HOSTNAME", "my workspace", "host name"),
    (f"{DATABRICKS}ACCESS_TOKEN", "", "is empty"),
    (f"{DATABRICKS}CLIENT_SECRET", " ", "is empty"),
    (f"{DATABRICKS}USER_AGENT_ENTRY", "", "is empty"),
    (f"{DATABRICKS}SOCKET_TIMEOUT", "0", "greater than or equal to 1"),
    (f"{DATABRICKS}SESSION_TIMEZONE", "Europe/Berlin", "must be UTC"),
    (f"{DATABRICKS}SESSION_CONFIGURATION", '{"TIMEZONE": "+02:00"}', "must be UTC"),
    (f"{DATABRICKS}SESSION_CONFIGURATION", "TIMEZONE=UTC", "not a JSON object"),
    (f"{DATABRICKS}CONNECTION_PARAMETERS", '{"catalog": "main"}', "'catalog'"),
    (f"{DATABRICKS}CONNECTION_PARAMETERS", "[1]", "valid dictionary"),
    ("DESTINATION__DATABRICKS__STAGING_VOLUME_NAME", "files", "<catalog>.<schema>.<volume>"),
    ("DESTINATION__DATABRICKS__CREATE_INDEXES", "true", "has no effect"),
    # unknown keys, by whoever sets them
    ("PIPELINE__NAM", "x", "did you mean 'name'"),
    ("PIPELINE__DATASET", "x", "did you mean 'dataset_name'"),
    (f"{SOURCE}SLOT", "x", "did you mean 'slot_name'"),
    (f"{SOURCE}TABLE", "x", "did you mean 'tables'"),
    ("DESTINATION__DUCKDB__CREDENTIAL", "x", "did you mean 'credentials'"),
    ("DESTINATION__FILESYSTEM__BUCKET", "x", "did you mean 'bucket_url'"),
    (f"{DATABRICKS}HTTPPATH", "x", "did you mean 'http_path'"),
    (f"{DATABRICKS}TOKEN", PASSWORD, "unknown setting"),
]


def _fails(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 2) -> str:
    """Run; the one line that it printed."""
    assert main(arguments) == code
    out, error = capsys.readouterr()
    assert out == ""
    assert error.endswith("\n")
    assert error.count("\n") == 1
    assert error.startswith("pgbronze: ")
    assert PASSWORD not in error
    assert PASSWORD[:7] not in error
    return error


@pytest.mark.parametrize(("name", "value", "told"), BAD_VALUES)
def test_bad_source_setting(name, value, told, capsys, monkeypatch):
    monkeypatch.setenv(f"{SOURCE}CREDENTIALS", DSN)
    monkeypatch.setenv(SOURCE + name, value)
    line = _fails(capsys, "cdc", "--destination", "duckdb")
    assert told in line
    assert f"sources.pg_replication.{name.lower()}" in line
    assert SOURCE + name in line


@pytest.mark.parametrize(("variable", "value", "told"), BAD_OTHERS)
def test_bad_setting(variable, value, told, capsys, monkeypatch):
    monkeypatch.setenv(f"{SOURCE}CREDENTIALS", DSN)
    monkeypatch.setenv("PIPELINE__DESTINATION", "duckdb")
    monkeypatch.setenv(variable, value)
    line = _fails(capsys, "status")
    assert told in line
    assert variable.lower().replace("__", ".") in line


@pytest.mark.parametrize("url", ["{file}", "{file}/lake", "file://{file}/a/b"])
def test_a_lake_that_can_be_no_folder(url, capsys, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(f"{SOURCE}CREDENTIALS", DSN)
    variable = "DESTINATION__FILESYSTEM__BUCKET_URL"
    monkeypatch.setenv(variable, url.format(file=tmp_path / "file"))
    line = _fails(capsys, "status", "--destination", "delta")
    assert "destination.filesystem.bucket_url" in line
    assert f"{tmp_path / 'file'} is no folder" in line


@pytest.mark.parametrize("key", ["schemas", "include", "exclude"])
@pytest.mark.parametrize(
    "value",
    ['{"a": 1}', "{}", "{a: 1}", "5", "true", "null", '"public"', "'public'", '[["public"]]',
     '["public", 5]', '[{"a": 1}]', '[null]', '["public"', "public, 'sales'", '[""]', "public,,b"],
)  # fmt: skip
def test_what_is_no_list_of_names_in_the_environment(key, value, capsys, monkeypatch):
    monkeypatch.setenv(f"{SOURCE}CREDENTIALS", DSN)
    monkeypatch.setenv(SOURCE + key.upper(), value)
    line = _fails(capsys, "check", "--destination", "duckdb")
    assert f"sources.pg_replication.{key}" in line
    assert "must be a list of names" in line or "holds an empty name" in line
    assert SOURCE + key.upper() in line


@pytest.mark.parametrize("key", ["schemas", "include", "exclude"])
@pytest.mark.parametrize(
    "value", ["{a = 1}", "5", "1.5", "true", "[['public']]", "['public', 5]", "[{a = 1}]", "['']",
              "'{\"a\": 1}'", "1979-05-27"],
)  # fmt: skip
def test_what_is_no_list_of_names_in_a_file(key, value, capsys, tmp_path):
    _write(tmp_path, "config.toml", f"[sources.pg_replication]\n{key} = {value}")
    line = _fails(capsys, "check", "--destination", "duckdb")
    assert f"sources.pg_replication.{key}" in line
    assert "must be a list of names" in line or "holds an empty name" in line


BAD_FILES = [
    ("[pipeline\nname = 'x'", "config.toml is not valid TOML at line 1"),
    ("[pipeline]\nname = x", "line 2"),
    ("pipeline = 'pgbronze'", "pipeline must be a section"),
    ("sources = 5", "sources must be a section"),
    ("[sources]\npg_replication = 'x'", "sources.pg_replication must be a section"),
    ("[destination]\nduckdb = 'lake.duckdb'", "destination.duckdb must be a section"),
    ("[pipeline]\nname = 5", "pipeline.name = 5 should be a valid string"),
    ("[pipeline]\nname = ['a']", "pipeline.name"),
    ("[pipeline]\nnmae = 'a'", "did you mean 'name'"),
    ("[sources.pg_replication]\nparallelism = true", "parallelism = True must be a number"),
    ("[sources.pg_replication]\nbatch_max_bytes = true", "must be a number"),
    ("[sources.pg_replication]\nschemas = [1]", "schemas must be a list of names"),
    ("[sources.pg_replication]\nslot_name = 1.5", "slot_name = 1.5 should be a valid string"),
    (f"[sources.pg_replication]\ncredentials = ['{PASSWORD}']", "must be a string"),
    (
        f"[sources.pg_replication.credentials]\npasswort = '{PASSWORD}'\ndatabase = 'd'",
        "did you mean 'password'",
    ),
    (f"[sources.pg_replication.credentials]\npassword = '{PASSWORD}'", "names no database"),
    ("[sources.pg_replication.credentials]\ndatabase = 'd'\nquery = 5", "query that is neither"),
    (
        f"[sources.pg_replication.credentials]\ndatabase = 'd'\nquery = ['{PASSWORD}']",
        "sources.pg_replication.credentials has a query that is neither",
    ),
    (
        "[sources.pg_replication.credentials]\ndatabase = 'd'\nquery = {colour = 'red'}",
        "sources.pg_replication.credentials has an unknown parameter: 'colour'",
    ),
    (
        "[sources.pg_replication.credentials]\ndatabase = 'd'\nquery = {sslmode = true}",
        "value of sslmode that is neither text nor a number",
    ),
    ("[destination.databricks]\ncredentials = 'x'", "destination.databricks.credentials"),
]


@pytest.mark.parametrize(("text", "told"), BAD_FILES)
def test_bad_file(text, told, capsys, tmp_path):
    _write(tmp_path, "config.toml", text)
    line = _fails(capsys, "snapshot", "--destination", "duckdb")
    assert told in line
    assert "config.toml" in line


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("require", "has a query that is neither"),
        ("sslmode", "has a query that is neither"),
        ('{"sslmode": "require"', "has a query that is not a JSON object"),
        ('["sslmode"]', "has a query that is neither"),
        ('{"colour": "red"}', "unknown parameter: 'colour'"),
        ('{"sslmod": "require"}', "did you mean 'sslmode'"),
        ('{"sslmode": {"x": 1}}', "value of sslmode"),
        ("sslmode=", "sslmode that is not one of"),
        ("colour=red", "unknown parameter: 'colour'"),
        ("?sslmode=require", "did you mean 'sslmode'"),
    ],
)
def test_bad_query_beside_separate_keys(query, told, capsys, monkeypatch):
    monkeypatch.setenv(f"{SOURCE}CREDENTIALS__DATABASE", "shop")
    monkeypatch.setenv(f"{SOURCE}CREDENTIALS__PASSWORD", PASSWORD)
    monkeypatch.setenv(f"{SOURCE}CREDENTIALS__QUERY", query)
    line = _fails(capsys, "cdc", "--destination", "duckdb")
    assert told in line
    assert "sources.pg_replication.credentials" in line
    assert f"the environment variable {SOURCE}CREDENTIALS__DATABASE and others" in line


def test_bad_encoding(capsys, tmp_path):
    (tmp_path / ".dlt").mkdir()
    (tmp_path / ".dlt" / "secrets.toml").write_bytes(b"x = '\xff'")
    assert "secrets.toml is not UTF-8" in _fails(capsys, "status")


MISSING = [
    ({}, "sources.pg_replication.credentials is missing", f"{SOURCE}CREDENTIALS"),
    ({"CREDENTIALS": DSN}, "server_hostname is missing", f"{DATABRICKS}SERVER_HOSTNAME"),
    ({"SERVER_HOSTNAME": "h"}, "http_path is missing", f"{DATABRICKS}HTTP_PATH"),
    ({"HTTP_PATH": "/sql/1"}, "catalog is missing", f"{DATABRICKS}CATALOG"),
    ({"CATALOG": "main"}, "access_token is missing", f"{DATABRICKS}ACCESS_TOKEN"),
    ({"CLIENT_ID": "a"}, "client_secret is missing", f"{DATABRICKS}CLIENT_SECRET"),
]


@pytest.mark.parametrize("given", range(len(MISSING)))
def test_missing_setting_is_named_one_after_the_other(given, capsys, monkeypatch):
    for values, _, _ in MISSING[: given + 1]:
        for name, value in values.items():
            monkeypatch.setenv((SOURCE if name == "CREDENTIALS" else DATABRICKS) + name, value)
    line = _fails(capsys, "cdc")
    assert MISSING[given][1] in line
    assert MISSING[given][2] in line


BAD_ARGUMENTS = [
    ("cdcc", "unknown command 'cdcc'; did you mean 'cdc'?"),
    ("frobnicate", "unknown command 'frobnicate'; one of: demo"),
    ("--follow", "--follow"),
    ("cdc --folow", "--folow"),
    ("cdc --foll", "--foll"),
    ("cdc now", "now"),
    ("cdc --destination", "--destination"),
    ("cdc --destination duck", "unknown --destination 'duck'; did you mean 'duckdb'?"),
    ("snapshot --tables", "--tables"),
    ("cdc --destination duckdb --destination=delta", "--destination: given twice"),
    ("simulate", "INSERTS, UPDATES, DELETES"),
    ("simulate 1 2", "DELETES"),
    ("simulate 1 2 x", "'x' is not a number"),
    ("runs --limit 0", "'0' is not a number of 1 or more"),
    ("simulate 1 -2 3", "-2"),
    ("simulate 1 2 3 4", "4"),
    ("slot", "ACTION"),
    ("slot delete", "unknown action 'delete'; one of: show, create, drop"),
    ("status --yaml", "--yaml"),
    ("cleanup --force", "--force"),
    ("demo --destination delta", "DuckDB file, not delta"),
]


@pytest.mark.parametrize(("arguments", "told"), BAD_ARGUMENTS)
def test_bad_arguments(arguments, told, capsys):
    assert told in _fails(capsys, *arguments.split())


@pytest.mark.parametrize("level", ["LOUD", "10"])
def test_bad_log_level(level, capsys, monkeypatch):
    monkeypatch.setenv("LOG_LEVEL", level)
    assert "DEBUG, INFO, WARNING, ERROR" in _fails(capsys, "status")


def test_nothing_is_dropped_unasked(capsys, monkeypatch):
    monkeypatch.setenv(f"{SOURCE}CREDENTIALS", DSN)
    monkeypatch.setattr("sys.stdin", None)
    assert main(["cleanup", "--destination", "duckdb"]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("pgbronze: cleanup asks first")
    assert "--yes" in line


def _write(folder: Path, name: str, text: str) -> None:
    (folder / ".dlt").mkdir(exist_ok=True)
    (folder / ".dlt" / name).write_text(textwrap.dedent(text))
