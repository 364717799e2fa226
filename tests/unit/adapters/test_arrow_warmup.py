"""When pyarrow imports pandas: before our threads, or in a process of ours not at all."""

from __future__ import annotations

import subprocess
import sys

import pytest

WITHOUT = """
import sys
from adapters.arrow_warmup import warm_up_arrow
warm_up_arrow(without_pandas=True)
import pyarrow as pa
pa.array([1, 2])
assert "pandas" not in sys.modules
import pandas
assert pa.table({"a": [1]}).to_pandas()["a"].sum() == 1
"""
BEFORE_THREADS = """
import sys
from adapters.pgoutput.changes.change_source import PgChangeSource
from adapters.pgoutput.session.settings import SourceSettings
from cdc_core.values.errors import CdcError
assert "pandas" not in sys.modules
try:
    PgChangeSource(SourceSettings("postgresql://nobody@127.0.0.1:1/x")).__enter__()
except CdcError:
    assert "pandas" in sys.modules
"""
COMMAND = """
import sys
from entrypoints.cli.main import main
main(["status"])
import pyarrow as pa
pa.array([1])
assert "pandas" not in sys.modules
"""


@pytest.mark.parametrize("script", [WITHOUT, BEFORE_THREADS])
def test_pandas(script: str) -> None:
    pytest.importorskip("pandas")
    subprocess.run([sys.executable, "-c", script], check=True)


def test_the_command_does_without(tmp_path: object) -> None:
    environment = {
        "SOURCES__PG_REPLICATION__CREDENTIALS": "postgresql://nobody@127.0.0.1:1/x",
        "PIPELINE__DESTINATION": "duckdb",
        "DESTINATION__DUCKDB__CREDENTIALS": f"{tmp_path}/lake.duckdb",
        "PATH": "",
    }
    subprocess.run([sys.executable, "-c", COMMAND], env=environment, check=True)
