"""The destination contract on every destination there is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from adapters.dlt_destination.delta.factory import delta_destination
from adapters.dlt_destination.duckdb.factory import duckdb_destination
from adapters.dlt_destination.settings import PipelineSettings
from adapters.fakes import InMemoryDestination, Lake
from tests.contracts.destination_contract import DestinationContract
from tests.contracts.history_contract import HistoryContract
from tests.contracts.json_contract import JsonContract

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cdc_core.ports.destination import Destination


class TestDuckDb(DestinationContract):
    @pytest.fixture
    def opened(self, tmp_path: Path) -> Callable[[], Destination]:
        settings = PipelineSettings("pgbronze", "bronze", tmp_path / "work")
        return lambda: duckdb_destination(settings, str(tmp_path / "lake.duckdb"))


class TestDuckDbHistory(HistoryContract):
    opened = TestDuckDb.opened


class TestDuckDbJson(JsonContract):
    opened = TestDuckDb.opened


class TestDelta(DestinationContract):
    @pytest.fixture
    def opened(self, tmp_path: Path) -> Callable[[], Destination]:
        settings = PipelineSettings("pgbronze", "bronze", tmp_path / "work")
        return lambda: delta_destination(settings, str(tmp_path / "lake house"))


class TestDeltaHistory(HistoryContract):
    opened = TestDelta.opened


class TestInMemory(DestinationContract):
    scans_at_once = True

    @pytest.fixture
    def opened(self) -> Callable[[], Destination]:
        lake = Lake()
        return lambda: InMemoryDestination(lake)


class TestInMemoryJson(JsonContract):
    opened = TestInMemory.opened


class TestInMemoryHistory(HistoryContract):
    opened = TestInMemory.opened
