"""The destination of the page `docs/how-to/add-a-destination.md` keeps the contract.

The page's code becomes a folder beside the other destinations, and one entry of the register.
Nothing else of the project is changed.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import pytest

import adapters.dlt_destination
from adapters.dlt_destination.settings import PipelineSettings
from cdc_core.values.runs import RUN_TABLES_TABLE, RunTable
from tests.contracts.destination_contract import DestinationContract
from tests.contracts.history_contract import HistoryContract
from tests.contracts.run_log_contract import RunLogContract

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cdc_core.ports.destination import Destination

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "add-a-destination.md"
#: The page promises fewer.
LINES = 150
PACKAGE = "adapters.dlt_destination.parquet"

#: A process that has the folder and the entry of the register.
PROCESS = """
import sys
import adapters.dlt_destination as package
from adapters.dlt_destination import register
folder, entry, *arguments = sys.argv[1:]
package.__path__.append(folder)
Registered = register.Registered
register.DESTINATIONS.update(eval("{" + entry + "}"))
from entrypoints.cli.main import main
sys.exit(main(arguments))
"""


def modules() -> dict[str, str]:
    """The page's modules, by their path."""
    blocks = re.findall(r"```python\n# (\S+)\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return dict(blocks)


def entry() -> str:
    """The page's line of the register."""
    found = re.search(r'"parquet": Registered\(.*\),', PAGE.read_text())
    assert found
    return found[0]


def test_the_code_is_short() -> None:
    text = "\n".join([*modules().values(), entry()])
    lines = [line for line in text.splitlines() if line.strip()]
    assert len([line for line in lines if not re.match(r"\s*(import|from) ", line)]) < LINES


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that has the page's package."""
    there = tmp_path_factory.mktemp("destinations")
    for path, code in modules().items():
        (there / path).parent.mkdir(exist_ok=True)
        (there / path).write_text(code)
    return there


@pytest.fixture(scope="module")
def factory(folder: Path) -> Iterator[Any]:
    places: list[str] = adapters.dlt_destination.__path__
    places.append(str(folder))
    yield import_module(f"{PACKAGE}.factory")
    places.remove(str(folder))
    for name in [name for name in sys.modules if name.startswith(PACKAGE)]:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["volumes", "--folder=lake"], 0, "the destination parquet has no volumes"),
        (["volumes", "--folder= "], 2, "destination.parquet.folder = ' ' is empty"),
    ],
)
def test_the_command_line_has_it(
    folder: Path, tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    command = [sys.executable, "-c", PROCESS, str(folder), entry(), *arguments]
    ran = subprocess.run(
        [*command, "--destination=parquet"],
        cwd=tmp_path,
        env={**os.environ, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == code
    assert message in ran.stdout + ran.stderr


class TestParquet(DestinationContract):
    @pytest.fixture
    def opened(self, tmp_path: Path, factory: Any) -> Callable[[], Destination]:
        settings = PipelineSettings("pgbronze", "bronze", tmp_path / "work")
        section = {"folder": str(tmp_path / "lake")}
        return lambda: factory.from_section(settings, section, dict)


class TestParquetHistory(HistoryContract):
    opened = TestParquet.opened


class TestParquetRunLog(RunLogContract):
    opened = TestParquet.opened

    @pytest.fixture
    def run_tables(self, tmp_path: Path) -> Callable[[], list[RunTable]]:
        file = tmp_path / "lake" / "bronze" / f"{RUN_TABLES_TABLE}.parquet"
        return lambda: [RunTable(**row) for row in pq.read_table(file).to_pylist()]
