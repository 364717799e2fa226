"""The guarded import, against simulations of what Databricks puts in its way, each in a process."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.delta_live_tables import STUB, WAYS, in_the_way

PROOF = """
from entrypoints.dlt_import import import_dlt
module = import_dlt()
import dlt
assert dlt is module and hasattr(dlt, "pipeline"), dlt
assert "site-packages" in dlt.__file__, dlt.__file__
from dlt.destinations import duckdb
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
def test_the_right_dlt_comes(way, tmp_path):
    # Not in the working folder, which is on the search path by itself.
    done = _run(in_the_way(way, tmp_path) + PROOF + AFTERWARDS[way])
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("before", "afterwards"), [("", ""), ("import dlt; first = dlt", "assert dlt is first")]
)
def test_where_nothing_is_in_the_way(before, afterwards):
    done = _run(before + PROOF + afterwards)
    assert done.returncode == 0, done.stderr


def test_the_wrong_one_alone_is_refused(tmp_path):
    (tmp_path / "dlt.py").write_text(STUB)
    code = f"""
import importlib.metadata as metadata, sys
def missing(name): raise metadata.PackageNotFoundError(name)
from entrypoints import dlt_import
dlt_import.distribution = missing
sys.path.insert(0, {str(tmp_path)!r})
try:
    dlt_import.import_dlt()
except dlt_import.SettingsError as error:
    print(error)
"""
    assert "Delta Live Tables" in _run(code).stdout
