"""The container, as an embedding service uses it: fakes in place of every port."""

from __future__ import annotations

import logging
from dataclasses import fields
from types import SimpleNamespace

import pyarrow as pa
import pytest
from pydantic import BaseModel

from adapters.dlt_destination.delta.section import Settings as DeltaSettings
from adapters.fakes import (
    InMemoryDestination,
    InMemoryMonitor,
    InMemoryPostgres,
    InMemorySource,
    Lake,
)
from entrypoints.cli import commands
from entrypoints.container import Container, source_settings
from entrypoints.settings import Settings, load_settings
from entrypoints.settings.model import SECTIONS, SourceSettings
from tests.unit.entrypoints.conftest import DSN


@pytest.fixture
def settings(monkeypatch):
    monkeypatch.setenv("SOURCES__PG_REPLICATION__CREDENTIALS", DSN)
    return load_settings({"pipeline.destination": "duckdb"})


@pytest.fixture
def world(settings):
    postgres, lake = InMemoryPostgres(), Lake()
    container = Container.from_settings(settings)
    source = InMemorySource(postgres)
    for port in ("change_source", "snapshot_source", "catalog", "source_inspector"):
        getattr(container, port).override(source)
    container.source_monitor.override(InMemoryMonitor(postgres))
    container.destination.override(InMemoryDestination(lake))
    return SimpleNamespace(postgres=postgres, lake=lake, container=container)


def test_use_cases_run_on_overridden_ports(world):
    orders = world.postgres.create_table("orders", {"id": pa.int64(), "note": pa.string()})
    with world.postgres.transaction() as transaction:
        transaction.insert(orders, id=1, note="first")
    assert world.container.take_snapshot().run().rows == 1
    with world.postgres.transaction() as transaction:
        transaction.insert(orders, id=2, note="second")
    assert world.container.stream_changes().run().changes == 1
    assert len(world.lake.rows("orders")) == 2
    assert world.container.show_status().run().problem == ""
    world.container.shutdown_resources()


def test_a_run_that_is_asked_to_stop_before_it_begins_ends_well(world):
    world.container.take_snapshot().run()
    assert commands.stream_changes(world.container, lambda: True) == 0


def test_commands_log_their_outcome(world, caplog):
    orders = world.postgres.create_table("orders", {"id": pa.int64()})
    with caplog.at_level(logging.INFO, "pgbronze"):
        assert commands.take_snapshot(world.container, []) == 0
        with world.postgres.transaction() as transaction:
            transaction.insert(orders, id=7)
        assert commands.stream_changes(world.container) == 0
    assert "snapshot done: 1 tables, 0 rows" in caplog.text
    assert "cdc done: 1 changes of 1 transactions" in caplog.text


def test_settings_reach_the_source(settings):
    assert source_settings(settings).conninfo == DSN
    assert DSN not in repr(source_settings(settings))


def test_the_source_adapter_gets_every_field_that_it_names_alike(monkeypatch):
    """Its own fields alone: the connection string, and limits that are no settings."""
    monkeypatch.setenv("SOURCES__PG_REPLICATION__CREDENTIALS", DSN)
    monkeypatch.setenv("PIPELINE__DESTINATION", "duckdb")
    given = {"slot_name": "s", "parallelism": 7, "failover": True, "batch_max_rows": 3}
    for key, value in given.items():
        monkeypatch.setenv(f"SOURCES__PG_REPLICATION__{key.upper()}", str(value))
    found = source_settings(load_settings())
    assert {key: getattr(found, key) for key in given} == given
    own = {field.name for field in fields(found)} - {*SourceSettings.model_fields}
    assert own == {
        "conninfo",
        "read_again",
        "redact",
        "connect_timeout_seconds",
        "lock_timeout_seconds",
        "statement_timeout_seconds",
        "text_format",
    }


@pytest.mark.parametrize(("mask", "text"), [("hash", True), ("last4", True), ("null", False)])
def test_the_slot_sends_text_if_a_mask_needs_it(mask, text, monkeypatch):
    monkeypatch.setenv("SOURCES__PG_REPLICATION__CREDENTIALS", DSN)
    monkeypatch.setenv("PIPELINE__DESTINATION", "duckdb")
    rules = f'[{{"match": "a", "history": []}}, {{"match": "b", "mask": {{"c": "{mask}"}}}}]'
    monkeypatch.setenv("SOURCES__PG_REPLICATION__TABLES", rules)
    assert source_settings(load_settings()).text_format is text


def test_every_setting_has_a_description():
    for section in SECTIONS:
        model = Settings
        for part in section.split("."):
            model = model.model_fields[part].annotation
        for name, field in model.model_fields.items():
            nested = isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
            assert nested or field.description, f"{section}.{name}"


def test_every_key_of_the_filesystem_reaches_dlt(tmp_path):
    """Of settings given as objects, of which dlt's own configuration knows nothing."""
    filesystem = {
        "bucket_url": str(tmp_path),
        "kwargs": {"auto_mkdir": True},
        "client_kwargs": {"endpoint_url": "http://here"},
        "deltalake_storage_options": {"timeout": "7s"},
    }
    settings = Settings(pipeline={"destination": "delta"}, destination={"filesystem": filesystem})
    assert set(filesystem) == set(DeltaSettings.model_fields) - {"credentials"}
    with Container.from_settings(settings).destination() as destination:
        config = destination._with_dlt().client().config
        assert config.bucket_url == f"file://{tmp_path}"
        del filesystem["bucket_url"]
        assert {key: config[key] for key in filesystem} == filesystem


@pytest.mark.parametrize("destination", ["duckdb", "delta"])
def test_real_parts_are_made_without_connecting(destination, settings, tmp_path):
    chosen = {"pipeline.destination": destination}
    container = Container.from_settings(load_settings(chosen))
    for port in ("change_source", "source_monitor", "snapshot_source", "catalog", "destination"):
        assert getattr(container, port)() is not None
    container.shutdown_resources()
