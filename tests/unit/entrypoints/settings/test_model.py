"""Settings that are right: dlt's order of providers, every form of a value."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from psycopg.conninfo import conninfo_to_dict

from adapters.dlt_destination.databricks.section import CLIENT_SECRET
from entrypoints.settings import connection_string
from entrypoints.settings.environment import log_level
from entrypoints.settings.load import databricks_scope, load_settings
from entrypoints.settings.model import CREDENTIALS, Settings

ENVIRON = {
    "SOURCES__PG_REPLICATION__CREDENTIALS": "postgresql://app:s3cret@db/shop",
    "PIPELINE__DESTINATION": "duckdb",
}


def _files(tmp_path, secrets="", config="", folder=".dlt"):
    (tmp_path / folder).mkdir(exist_ok=True)
    (tmp_path / folder / "secrets.toml").write_text(secrets)
    (tmp_path / folder / "config.toml").write_text(config)


def test_defaults_are_those_of_the_contract():
    settings = load_settings(environ=ENVIRON)
    assert settings.pipeline.name == "pgbronze"
    assert settings.pipeline.dataset_name == "bronze"
    assert settings.source.slot_name == "dlt_cdc_slot"
    assert settings.source.pub_name == "dlt_cdc_pub"
    assert settings.source.schemas == ("public",)
    assert settings.source.include == ("*",)
    assert settings.source.exclude == ()
    assert settings.destination.duckdb.credentials == "lake.duckdb"
    assert settings.destination.filesystem.bucket_url == "./lakehouse"


def test_order_is_command_line_environment_secrets_config_global(tmp_path):
    _files(
        tmp_path,
        "[sources.pg_replication]\nslot_name = 'secrets'\npub_name = 'secrets'",
        "[sources.pg_replication]\nslot_name = 'config'\npub_name = 'config'\nparallelism = 3",
    )
    _files(tmp_path, "", "[sources.pg_replication]\nparallelism = 9\nfailover = true", "global")
    environ = {**ENVIRON, "SOURCES__PG_REPLICATION__SLOT_NAME": "environment"}
    environ["DLT_PROJECT_DIR"] = str(tmp_path)
    source = load_settings({"pipeline.destination": "delta"}, environ=environ).source
    assert (source.slot_name, source.pub_name) == ("environment", "secrets")
    assert (source.parallelism, source.failover) == (3, True)
    assert load_settings({"pipeline.name": "x"}, environ=environ).pipeline.name == "x"


def test_the_same_key_may_be_a_section_in_one_file_and_a_value_in_another(tmp_path):
    _files(
        tmp_path,
        "[sources.pg_replication]\ncredentials = 'postgresql://a:b@h/first'",
        "[sources.pg_replication.credentials]\ndatabase = 'second'\nhost = 'x'",
    )
    environ = {"DLT_PROJECT_DIR": str(tmp_path), "PIPELINE__DESTINATION": "duckdb"}
    assert load_settings(environ=environ).source.dsn == "postgresql://a:b@h/first"


def test_other_sections_are_left_alone(tmp_path):
    _files(
        tmp_path,
        "[sources.github]\naccess_token = 'x'\n[destination.bigquery]\nlocation = 'EU'",
        "[runtime]\nlog_level = 'WARNING'\n[load]\nworkers = 2\n[normalize]\nx = 1",
    )
    load_settings(environ={**ENVIRON, "DLT_PROJECT_DIR": str(tmp_path), "RUNTIME__X": "1"})


@pytest.mark.parametrize("text", ['["public", "billing"]', "public,billing", "public, billing"])
def test_lists_in_the_environment(text):
    settings = load_settings(environ={**ENVIRON, "SOURCES__PG_REPLICATION__SCHEMAS": text})
    assert settings.source.schemas == ("public", "billing")


@pytest.mark.parametrize(
    ("text", "size"),
    [("10GB", 10 << 30), ("512MB", 512 << 20), ("64 kB", 64 << 10), ("1tb", 1 << 40), ("7", 7)],
)
def test_sizes(text, size):
    environ = {**ENVIRON, "SOURCES__PG_REPLICATION__MAX_RETAINED_WAL": text}
    assert load_settings(environ=environ).source.max_retained_wal == size


@pytest.mark.parametrize("text", ["", " ", "info"])
def test_an_empty_log_level_is_none(text):
    assert log_level({"LOG_LEVEL": text}) == "INFO"


def test_databricks_takes_every_key_of_dlt():
    from dlt.destinations.impl.databricks.configuration import DatabricksCredentials as Dlts

    from adapters.dlt_destination.databricks.section import Credentials

    assert set(Credentials.model_fields) == set(Dlts.get_resolvable_fields())


def test_tables_in_the_environment_are_json_or_one_variable_a_key():
    prefix = "DESTINATION__DATABRICKS__CREDENTIALS__"
    environ = {
        **ENVIRON,
        prefix + "HTTP_HEADERS": '{"X-Team": "lake"}',
        prefix + "SESSION_CONFIGURATION": '{"timezone": "utc", "QUERY_TAGS": "a:b"}',
        prefix + "CONNECTION_PARAMETERS___TLS_TRUSTED_CA_FILE": "/etc/ca.pem",
    }
    credentials = load_settings(environ=environ).destination.databricks.credentials
    assert credentials.for_dlt() == {
        "http_headers": {"X-Team": "lake"},
        "session_configuration": {"timezone": "utc", "QUERY_TAGS": "a:b"},
        "connection_parameters": {"_tls_trusted_ca_file": "/etc/ca.pem"},
    }


def test_databricks_host_may_be_pasted_as_address():
    environ = {
        **ENVIRON,
        "PIPELINE__DESTINATION": "databricks",
        "DESTINATION__DATABRICKS__CREDENTIALS__SERVER_HOSTNAME": "https://x.databricks.com/",
        "DESTINATION__DATABRICKS__CREDENTIALS__HTTP_PATH": "/sql/1.0/warehouses/a",
        "DESTINATION__DATABRICKS__CREDENTIALS__CATALOG": "main",
        "DESTINATION__DATABRICKS__CREDENTIALS__ACCESS_TOKEN": "dapi-123",
    }
    settings = load_settings(environ=environ)
    assert settings.destination.databricks.credentials.for_dlt() == {
        "server_hostname": "x.databricks.com",
        "http_path": "/sql/1.0/warehouses/a",
        "catalog": "main",
        "access_token": "dapi-123",
    }
    assert settings.secret_values() == {"s3cret", "dapi-123"}


def test_nothing_shows_a_secret(tmp_path):
    environ = {**ENVIRON, "DESTINATION__DATABRICKS__CREDENTIALS__ACCESS_TOKEN": "dapi-123"}
    shown = repr(load_settings(environ=environ)) + str(load_settings(environ=environ))
    assert "s3cret" not in shown
    assert "dapi-123" not in shown


class _Scope:
    def __init__(self, settings):
        source = settings.source
        self.asked = (source.dlt_scope, source.pg_connection_string)

    def get(self, key):
        if key == CLIENT_SECRET:
            return "pr1ncipal"
        assert key == CREDENTIALS
        return f"postgresql://app:s3cret@{self.asked[0]}/{self.asked[1]}"


def test_scope_that_is_named_holds_the_credentials():
    overrides = {
        "sources.pg_replication.dlt_scope": "team",
        "sources.pg_replication.pg_connection_string": "shop",
    }
    settings = load_settings(overrides, environ=ENVIRON, scope=_Scope)
    assert settings.source.dsn == "postgresql://app:s3cret@team/shop"


def test_on_databricks_the_scope_is_asked_when_nothing_else_is_set(monkeypatch):
    monkeypatch.setattr("entrypoints.settings.load.databricks_scope", _Scope)
    environ = {"PIPELINE__DESTINATION": "duckdb", "DATABRICKS_RUNTIME_VERSION": "client.4"}
    dsn = load_settings(environ=environ).source.dsn
    assert dsn == "postgresql://app:s3cret@dlt_scope/pg_connection_string"
    assert load_settings(environ={**ENVIRON, **environ}).source.dsn.endswith("@db/shop")


def test_a_service_principals_secret_is_in_the_scope_too(monkeypatch):
    monkeypatch.setattr("entrypoints.settings.load.databricks_scope", _Scope)
    overrides = {
        "destination.databricks.credentials.client_id": "abc",
        "destination.databricks.client_secret_key": "principal",
    }
    settings = load_settings(overrides, environ=ENVIRON)
    assert settings.destination.databricks.credentials.for_dlt()["client_secret"] == "pr1ncipal"
    assert "pr1ncipal" in settings.secret_values()
    assert settings.source.dsn.endswith("@db/shop")


def test_the_scope_has_the_keys_that_the_settings_name():
    keys = {CREDENTIALS: "pg_connection_string"}
    assert databricks_scope(Settings()).keys == keys
    named = {"destination": {"databricks": {"client_secret_key": "principal"}}}
    found = databricks_scope(Settings.model_validate(named))
    assert found.keys == {**keys, CLIENT_SECRET: "principal"}


#: What libpq reads from each must be what we read.
STRINGS = [
    "postgresql://app:s3cret@db:5433/shop",
    "postgres://app@db/shop?sslmode=verify-full&sslrootcert=/etc/ca.pem",
    "postgresql://app:p%40ss%2F@db/shop",
    "postgresql:///shop?host=/run/postgresql",
    "postgresql://one:5432,two:5433/shop?target_session_attrs=read-write",
    "postgresql://[::1]:5432/shop",
    "postgresql://%2Frun%2Fpg/shop",
    "postgresql://db/shop?options=-c%20search_path%3Dapp&application_name=x",
    "postgresql://",
    "host=db port=5432 dbname=shop user=app password='it''s' ".replace("''", "\\'"),
    "host = db dbname=shop password = 'a b\\\\c'",
    "host=db sslmode=verify-ca options='-c geqo=off' dbname=''",
]


@pytest.mark.parametrize("text", STRINGS)
def test_connection_strings_are_read_as_libpq_reads_them(text):
    assert connection_string.parameters(connection_string.checked(text)) == {
        key: value for key, value in conninfo_to_dict(text).items() if value is not None
    }


def test_every_keyword_of_libpq_is_known():
    from psycopg import pq

    theirs = {option.keyword.decode() for option in pq.Conninfo.get_defaults()}
    assert theirs <= connection_string.KEYWORDS | {"requiressl", "authtype", "tty"}


def test_a_service_file_is_named_by_the_environment_only():
    with pytest.raises(ValueError, match="unknown parameter"):
        connection_string.checked("host=db servicefile=/etc/pg_service.conf")


def test_driver_in_the_scheme_is_dropped():
    assert connection_string.checked("postgresql+psycopg2://a@b/c") == "postgresql://a@b/c"


#: Each beside separate keys in the environment.
QUERIES = [
    {"__QUERY": '{"sslmode": "require"}'},
    {"__QUERY": "sslmode=require"},
    {"__QUERY__SSLMODE": "require"},
    {"__SSLMODE": "require"},
]


@pytest.mark.parametrize("query", QUERIES)
def test_no_sslmode_is_lost_in_the_environment(query):
    name = "SOURCES__PG_REPLICATION__CREDENTIALS"
    environ = {
        f"{name}__HOST": "db",
        f"{name}__DATABASE": "shop",
        "PIPELINE__DESTINATION": "duckdb",
    }
    environ |= {name + key: value for key, value in query.items()}
    dsn = load_settings(environ=environ).source.dsn
    assert conninfo_to_dict(dsn) == {"host": "db", "dbname": "shop", "sslmode": "require"}


@pytest.mark.parametrize(
    "query",
    [
        'query = {sslmode = "require"}',
        'query = "sslmode=require"',
        '[sources.pg_replication.credentials.query]\nsslmode = "require"',
        'sslmode = "require"',
    ],
)
def test_no_sslmode_is_lost_in_a_file(query, tmp_path):
    keys = '[sources.pg_replication.credentials]\nhost = "db"\ndatabase = "shop"\n'
    _files(tmp_path, keys + query)
    environ = {"DLT_PROJECT_DIR": str(tmp_path), "PIPELINE__DESTINATION": "duckdb"}
    dsn = load_settings(environ=environ).source.dsn
    assert conninfo_to_dict(dsn) == {"host": "db", "dbname": "shop", "sslmode": "require"}


@pytest.mark.parametrize(
    "query", [{"sslmode": "require"}, '{"sslmode": "require"}', "sslmode=require"]
)
@pytest.mark.parametrize("written", [dict, json.dumps])
def test_table_of_keys(query, written):
    table = {
        "drivername": "postgresql",
        "username": "app",
        "password": "it's \\ odd",
        "host": "db",
        "port": 5432,
        "database": "shop",
        "query": query,
    }
    assert conninfo_to_dict(connection_string.checked(written(table))) == {
        "user": "app",
        "password": "it's \\ odd",
        "host": "db",
        "port": "5432",
        "dbname": "shop",
        "sslmode": "require",
    }


def test_settings_errors_and_help_import_nothing_heavy():
    code = (
        "import sys; from entrypoints.cli.main import main\n"
        "for arguments in (['--help'], ['cdc', '--help'], ['cdc', '--bad'], ['status']):\n"
        "    main(arguments)\n"
        "heavy = {'dlt', 'pyarrow', 'numpy', 'psycopg', 'duckdb', 'sqlalchemy', 'databricks',\n"
        "         'deltalake', 'dependency_injector'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "[]"


def test_a_rotated_secret_is_found_where_the_first_one_was(tmp_path):
    """By a run that has begun; the command line and the environment count as before."""
    secrets = tmp_path / ".dlt" / "secrets.toml"
    secrets.parent.mkdir()
    text = '[destination.databricks.credentials]\nhttp_path = "/sql"\naccess_token = "{}"\n'
    secrets.write_text(text.format("first"))
    overrides = {
        "destination.databricks.credentials.server_hostname": "host.example.com",
        "destination.databricks.credentials.catalog": "main",
    }
    settings = load_settings(overrides, needs_source=False)
    secrets.write_text(text.format("second"))
    keys = settings.read_again("destination").destination.databricks.credentials.for_dlt()
    assert keys["access_token"] == "second"
    assert keys["server_hostname"] == "host.example.com"
    assert settings.destination.databricks.credentials.for_dlt()["access_token"] == "first"


def test_settings_that_no_provider_gave_stay():
    made = Settings()
    assert made.read_again("destination") is made


def test_a_rotated_secret_is_read_from_the_scope_again():
    found = {"value": "first"}

    class Scope(_Scope):
        def get(self, key):
            return found["value"] if key == CLIENT_SECRET else super().get(key)

    overrides = {
        "destination.databricks.credentials.server_hostname": "host.example.com",
        "destination.databricks.credentials.http_path": "/sql",
        "destination.databricks.credentials.catalog": "main",
        "destination.databricks.credentials.client_id": "principal",
        "destination.databricks.client_secret_key": "secret",
    }
    settings = load_settings(overrides, environ=ENVIRON, scope=Scope)
    found["value"] = "second"
    assert (
        settings.read_again("destination").destination.databricks.credentials.for_dlt()[
            "client_secret"
        ]
        == "second"
    )


def test_the_sources_secret_is_read_from_the_scope_again():
    """Of the source alone: what the destination needs may be gone by then."""
    found = {"value": "postgresql://app:first@db/shop"}

    class Scope(_Scope):
        def get(self, key):
            return found["value"] if key == CREDENTIALS else super().get(key)

    environ = {"PIPELINE__DESTINATION": "duckdb"}
    settings = load_settings(environ=environ, scope=Scope)
    found["value"] = "postgresql://app:second@db/shop"
    environ["PIPELINE__DESTINATION"] = "databricks"
    assert settings.source.dsn == "postgresql://app:first@db/shop"
    assert settings.read_again("source").source.dsn == "postgresql://app:second@db/shop"


@pytest.mark.parametrize("text", ['["aws", "rds", "a, b"]', ["aws", "rds", "a, b"]])
def test_a_password_command_is_a_list(text):
    settings = load_settings({"sources.pg_replication.password_command": text}, environ=ENVIRON)
    assert settings.source.password_command == ("aws", "rds", "a, b")
