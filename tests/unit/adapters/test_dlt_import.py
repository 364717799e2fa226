"""The guarded import, against simulations of what Databricks puts in its way, each in a process."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.delta_live_tables import STUB, WAYS, in_the_way

PROOF = """
from adapters.dlt_import import import_dlt
module = import_dlt()
import dlt
assert dlt is module and hasattr(dlt, "pipeline"), dlt
assert "site-packages" in dlt.__file__, dlt.__file__
from dlt.destinations import duckdb
"""

#: A service that embeds the library, whose first import of dlt is the library's own.
EMBEDDED = """
from pathlib import Path
from adapters.dlt_destination.duckdb.factory import duckdb_destination
from adapters.dlt_destination.settings import PipelineSettings
with duckdb_destination(PipelineSettings("p", "bronze", Path({0!r})), {0!r} + "/l") as destination:
    assert destination.read_checkpoint() is None
"""

#: The same with dlt's own reader of tables, of a server that is not there.
READER = """
from adapters.pgoutput.session.settings import SourceSettings
from adapters.pgoutput.snapshot.sql_database import SqlDatabaseSnapshotSource
from cdc_core.values.errors import SourceUnavailable
source = SqlDatabaseSnapshotSource(SourceSettings(conninfo="host=127.0.0.1 port=9"))
try:
    with source.begin(create_slot=False): raise AssertionError
except SourceUnavailable:
    from dlt.sources.sql_database import sql_table
"""

#: What is left as it was, and what is not used again.
AFTERWARDS = {
    "hook first": "assert hook in sys.meta_path",
    "hook not first": "assert sys.meta_path[:2] == before[:2], sys.meta_path",
    "hook marked by what it says of itself": "assert hook in sys.meta_path",
    "hook served its module already": "assert dlt is not first and served == ['dlt']",
    "stub first on the path": "assert sys.path[0].endswith('stubs')",
    "stub imported already": "assert dlt is not first",
    "hook and stub together": "assert hook in sys.meta_path and sys.path[0].endswith('stubs')",
}


def _run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120
    )


@pytest.mark.parametrize("way", WAYS)
def test_the_right_dlt_is_imported(way, tmp_path):
    # Not in the working folder, which is on the search path by itself.
    done = _run(in_the_way(way, tmp_path) + PROOF + AFTERWARDS[way])
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("use", [EMBEDDED, READER], ids=["destination", "reader"])
def test_the_right_dlt_is_imported_without_an_explicit_import(use, tmp_path):
    way = in_the_way("hook and stub together", tmp_path)
    done = _run(way + use.format(str(tmp_path)) + PROOF)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("before", "afterwards"), [("", ""), ("import dlt; first = dlt", "assert dlt is first")]
)
def test_where_nothing_is_in_the_way(before, afterwards):
    done = _run(before + PROOF + afterwards)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("other", ["import_dlt()", "import dlt"])
def test_threads_that_import_at_the_same_time(other):
    code = f"""
import sys, threading
from concurrent.futures import ThreadPoolExecutor
from adapters.dlt_import import import_dlt
start = threading.Barrier(4)
def imported(number):
    start.wait()
    if number % 2:
        return import_dlt()
    {other}
    return sys.modules["dlt"]
with ThreadPoolExecutor(4) as pool:
    found = list(pool.map(imported, range(4)))
assert all(module is found[0] and hasattr(module, "pipeline") for module in found), found
"""
    done = _run(code)
    assert done.returncode == 0, done.stderr


def test_the_wrong_one_alone_is_refused(tmp_path):
    (tmp_path / "dlt.py").write_text(STUB)
    code = f"""
import importlib.metadata as metadata, sys
def missing(name): raise metadata.PackageNotFoundError(name)
from adapters import dlt_import
dlt_import.distribution = missing
sys.path.insert(0, {str(tmp_path)!r})
try:
    dlt_import.import_dlt()
except dlt_import.SettingsError as error:
    print(error)
"""
    assert "Delta Live Tables" in _run(code).stdout
