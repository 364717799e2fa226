"""The destination contract on the local warehouse."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import pytest

from tests.contracts.destination_contract import DestinationContract
from tests.contracts.history_contract import HistoryContract
from tests.contracts.json_contract import JsonContract
from tests.contracts.soft_delete_contract import SoftDeleteContract

if TYPE_CHECKING:
    from collections.abc import Callable

    from cdc_core.ports.destination import Destination


class TestDatabricks(DestinationContract):
    volumes_at_first: ClassVar = {}

    @pytest.fixture
    def opened(self, opened: Callable[[], Destination]) -> Callable[[], Destination]:
        return opened


class TestDatabricksHistory(HistoryContract):
    opened = TestDatabricks.opened


class TestDatabricksSoftDeletes(SoftDeleteContract):
    opened = TestDatabricks.opened


class TestDatabricksJson(JsonContract):
    opened = TestDatabricks.opened
