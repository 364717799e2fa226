"""The destination contract on each destination of the register that works with its defaults.

One that needs a server has tests of its own: `tests/integration/databricks/test_contract.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from adapters.dlt_destination.register import DESTINATIONS, build, section_models
from adapters.dlt_destination.settings import PipelineSettings
from adapters.fakes import InMemoryDestination, Lake
from cdc_core.values.errors import SettingsError
from tests.contracts.destination_contract import DestinationContract
from tests.contracts.history_contract import HistoryContract
from tests.contracts.json_contract import JsonContract
from tests.contracts.soft_delete_contract import SoftDeleteContract

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from adapters.dlt_destination.section import Section
    from cdc_core.ports.destination import Destination


def _working_by_default() -> Iterator[tuple[str, Section]]:
    models = section_models()
    for name, entry in DESTINATIONS.items():
        section = models[entry.section]()
        try:
            section.check("bronze", {})
        except SettingsError:
            continue
        yield name, section


LOCAL = dict(_working_by_default())
WITH_JSON = [name for name, section in LOCAL.items() if section.no_variant is None]


def test_a_destination_that_needs_a_server_has_its_own_tests() -> None:
    assert DESTINATIONS.keys() - LOCAL.keys() == {"databricks"}


class TestDestination(DestinationContract):
    @pytest.fixture(params=LOCAL)
    def opened(
        self, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> Callable[[], Destination]:
        place = tmp_path / "lake house"
        place.mkdir()
        monkeypatch.chdir(place)
        pipeline = PipelineSettings("pgbronze", "bronze", tmp_path / "work")
        keys = LOCAL[request.param].for_dlt()
        return lambda: build(request.param, pipeline, keys, lambda: keys)


class TestHistory(HistoryContract):
    opened = TestDestination.opened


class TestSoftDeletes(SoftDeleteContract):
    opened = TestDestination.opened


@pytest.mark.parametrize("opened", WITH_JSON, indirect=True)
class TestJson(JsonContract):
    opened = TestDestination.opened


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


class TestInMemorySoftDeletes(SoftDeleteContract):
    opened = TestInMemory.opened
