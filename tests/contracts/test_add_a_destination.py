"""The destination of the page `docs/how-to/add-a-destination.md` keeps the contract."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from adapters.dlt_destination.settings import PipelineSettings
from tests.contracts.destination_contract import DestinationContract
from tests.contracts.history_contract import HistoryContract

if TYPE_CHECKING:
    from collections.abc import Callable

    from cdc_core.ports.destination import Destination

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "add-a-destination.md"
#: The page promises no more.
LINES = 150


def code() -> str:
    return "\n".join(re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL))


def test_the_code_is_short() -> None:
    lines = [line for line in code().splitlines() if line.strip() and "import " not in line]
    assert len(lines) <= LINES


@pytest.fixture(scope="module")
def module() -> dict[str, Any]:
    found: dict[str, Any] = {}
    exec(compile(code(), str(PAGE), "exec"), found)
    return found


class TestParquet(DestinationContract):
    @pytest.fixture
    def opened(self, tmp_path: Path, module: dict[str, Any]) -> Callable[[], Destination]:
        settings = PipelineSettings("pgbronze", "bronze", tmp_path / "work")
        section = {"bucket_url": str(tmp_path / "lake")}
        return lambda: module["from_section"](settings, section, dict)


class TestParquetHistory(HistoryContract):
    opened = TestParquet.opened
