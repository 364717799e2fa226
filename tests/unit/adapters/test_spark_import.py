"""What a user pays for importing the Spark adapter."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROBE = """
import sys
import adapters.spark, adapters.spark_session, adapters.spark.snapshot_source
import adapters.dlt_destination.databricks.engines
print(sorted({{name.partition(".")[0] for name in sys.modules}} & {{"pyspark", "dlt"}}))
adapters.spark.open_snapshot
{more}
print("pyspark" in sys.modules)
"""


@pytest.mark.parametrize(
    ("more", "there"), [("", False), ("adapters.spark.PostgresSnapshot", True)]
)
def test_pyspark_is_imported_by_its_users_alone(more: str, there: bool) -> None:
    command = [sys.executable, "-c", PROBE.format(more=more)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert printed.split("\n")[:2] == ["[]", str(there)]


def test_other_names_are_none_of_its() -> None:
    import adapters.spark

    with pytest.raises(AttributeError, match="no attribute 'Other'"):
        adapters.spark.Other  # noqa: B018
