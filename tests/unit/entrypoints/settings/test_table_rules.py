"""Rules for single tables in the settings: where they come from, and how errors name them."""

import json

import pytest

from adapters.dlt_destination.databricks import section as databricks
from cdc_core.values.errors import SettingsError
from cdc_core.values.table_rules import Rule
from entrypoints.cli import parameters
from entrypoints.settings import load_settings

DSN = "postgresql://user:password@host/db"
VARIABLE = "SOURCES__PG_REPLICATION__TABLES"


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))


def loaded(rules, destination="duckdb", **overrides):
    text = rules if isinstance(rules, str) else json.dumps(rules)
    environ = {
        "PIPELINE__DESTINATION": destination,
        "SOURCES__PG_REPLICATION__CREDENTIALS": DSN,
        VARIABLE: text,
    }
    return load_settings(overrides, environ=environ)


def test_rules_of_a_file(tmp_path):
    (tmp_path / ".dlt").mkdir()
    (tmp_path / ".dlt" / "config.toml").write_text(
        """
        [[sources.pg_replication.tables]]
        match = "public.*"
        history = ["log", "scd2"]
        deletes = "soft"

        [[sources.pg_replication.tables]]
        match = ["public.orders", "lines"]
        exclude_columns = ["ssn", "tmp_*"]
        mask = { email = "hash", phone = "null", iban = "last4" }
        json = "variant"
        arrays = "array"
        cluster_by = ["customer_id"]
        """
    )
    environ = {"SOURCES__PG_REPLICATION__CREDENTIALS": DSN, "PIPELINE__DESTINATION": "duckdb"}
    rules = [rule.value() for rule in load_settings(environ=environ).source.tables]
    assert rules == [
        Rule(("public.*",), history=("log", "scd2"), deletes="soft"),
        Rule(
            ("public.orders", "lines"),
            exclude_columns=("ssn", "tmp_*"),
            mask={"email": "hash", "phone": "null", "iban": "last4"},
            json="variant",
            arrays="array",
            cluster_by=("customer_id",),
        ),
    ]


def test_rules_of_the_command_line(monkeypatch):
    monkeypatch.setenv("SOURCES__PG_REPLICATION__CREDENTIALS", DSN)
    monkeypatch.setenv("PIPELINE__DESTINATION", "duckdb")
    rules = '[{"match": "public.orders", "cluster_by": "auto"}]'
    chosen, rest = parameters.split([f"--table-rules={rules}", "--all"], "pgbronze")
    assert rest == ["--all"]
    settings = parameters.settings(parameters.given(chosen))
    assert [rule.value() for rule in settings.source.tables] == [
        Rule(("public.orders",), cluster_by="auto")
    ]


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        (
            [{"match": "a"}, {"match": "s.t", "histroy": []}],
            ["rule 2", "s.t", "histroy", "history"],
        ),
        ([{"match": "s.t", "history": ["logs"]}], ["rule 1", "s.t", "history", "logs", "scd2"]),
        ([{"match": "s.t", "history": "log"}], ["rule 1", "s.t", "history", "list"]),
        ([{"match": "s.t", "deletes": "keep"}], ["rule 1", "s.t", "deletes", "hard", "soft"]),
        ([{"match": "s.t", "mask": {"mail": "md5"}}], ["rule 1", "s.t", "mail", "md5", "last4"]),
        ([{"match": "s.t", "mask": ["mail"]}], ["rule 1", "s.t", "mask", "table"]),
        ([{"match": "s.t", "json": "text"}], ["rule 1", "s.t", "json", "text", "variant"]),
        ([{"match": "s.t", "arrays": "list"}], ["rule 1", "s.t", "arrays", "list", "array"]),
        ([{"match": "s.t", "cluster_by": "id"}], ["rule 1", "s.t", "cluster_by", "auto"]),
        ([{"match": "s.t", "cluster_by": list("abcde")}], ["rule 1", "s.t", "cluster_by", "four"]),
        ([{"match": "s.t", "exclude_columns": "id"}], ["rule 1", "s.t", "exclude_columns", "list"]),
        (
            [{"match": "s.t", "exclude_columns": ["a"], "include_columns": ["b"]}],
            ["rule 1", "s.t", "exclude_columns", "include_columns"],
        ),
        ([{"history": ["log"]}], ["rule 1", "match", "missing"]),
        ([{"match": []}], ["rule 1", "match", "at least one"]),
        (["s.t"], ["rule 1", "must be a table"]),
        ("{", [VARIABLE, "JSON array"]),
        ('{"match": "s.t"}', [VARIABLE, "JSON array"]),
    ],
)
def test_a_wrong_rule_is_named(rules, words):
    with pytest.raises(SettingsError) as refused:
        loaded(rules)
    assert [word for word in words if word not in str(refused.value)] == []
    assert VARIABLE in str(refused.value) or "both" in str(refused.value)


def test_a_destination_without_variant():
    rules = [{"match": "s.t", "json": "variant"}]
    assert loaded(rules).source.tables
    with pytest.raises(SettingsError, match=r"rule 1 .*s\.t.*variant.*delta"):
        loaded(rules, "delta")


def test_variant_of_databricks_does_not_keep_the_text():
    rules = [{"match": "s.t", "json": "variant"}, {"match": "s.u", "json": "string"}]
    settings = loaded(rules)
    for section, first in ((settings.section, "variant"), (databricks.Settings, "canonical")):
        keeps_text = section.variant_keeps_text
        found = [rule.value(keeps_text=keeps_text).json for rule in settings.source.tables]
        assert found == [first, "string"]


def test_the_mask_key_is_a_secret():
    settings = loaded([], **{"sources.pg_replication.mask_key": "hidden-key"})
    assert settings.source.mask_key.get_secret_value() == "hidden-key"
    assert "hidden-key" not in repr(settings)
    assert "hidden-key" in settings.secret_values()
    with pytest.raises(SettingsError, match=r"mask_key.*is empty.*MASK_KEY"):
        loaded([], **{"sources.pg_replication.mask_key": " "})


def test_the_mask_key_of_a_secret_scope():
    class Scope:
        def get(self, key):
            return {
                "sources.pg_replication.credentials": DSN,
                "sources.pg_replication.mask_key": "from the scope",
            }[key]

    environ = {
        "PIPELINE__DESTINATION": "duckdb",
        "SOURCES__PG_REPLICATION__MASK_KEY_SECRET": "mask",
    }
    settings = load_settings(environ=environ, scope=lambda _: Scope())
    assert settings.source.mask_key.get_secret_value() == "from the scope"
