"""The page's Lakeflow pipeline: Spark's own declarative pipelines accept it, column by column.

A dry run resolves every flow against the log, and writes nothing: only tables of formats that Spark
can merge into could be written, and it brings none.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import pytest
from pyspark.errors.exceptions.connect import SparkConnectGrpcException

from cdc_core.values.history import LOG_FIELDS
from tests.support.pages import python_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pyspark.sql import SparkSession

    from tests.support.spark import Sessions

pytestmark = pytest.mark.spark

COLUMNS = (
    "id INT, name STRING, price DECIMAL(9,2), _pg_change_type STRING, _pg_lsn BIGINT, "
    "_pg_xid BIGINT, _timestamp TIMESTAMP, _sort_by BIGINT"
)


@pytest.fixture
def log(spark: Sessions) -> Iterator[SparkSession]:
    """A Spark with the log of a table, as pgbronze lays it out."""
    session = spark.connect
    at = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    session.sql("CREATE SCHEMA bronze")
    rows = session.createDataFrame([(1, "tea", None, "insert", 1, None, at, 1)], COLUMNS)
    assert rows.columns[-5:] == [field.name for field in LOG_FIELDS]
    rows.write.saveAsTable("bronze.products_history")
    yield session
    session.sql("DROP SCHEMA bronze CASCADE")


def dry_run(session: SparkSession, code: str, storage: Path) -> list[str]:
    """The events of a run that validates a pipeline and executes nothing."""
    from pyspark.pipelines.graph_element_registry import graph_element_registration_context
    from pyspark.pipelines.spark_connect_graph_element_registry import (
        SparkConnectGraphElementRegistry,
    )
    from pyspark.pipelines.spark_connect_pipeline import create_dataflow_graph, start_run

    graph = create_dataflow_graph(session, None, "default", {})
    registry = SparkConnectGraphElementRegistry(session, graph)
    module: dict[str, Any] = {"spark": session}
    with graph_element_registration_context(registry):
        exec(compile(code, "page.py", "exec"), module)
    found = start_run(
        session, graph, full_refresh=[], full_refresh_all=False, refresh=[], dry=True,
        storage=storage.as_uri(),
    )  # fmt: skip
    return [
        result["pipeline_event_result"].event.message
        for result in found
        if "pipeline_event_result" in result
    ]


def test_the_pages_flow_fits_the_log(log: SparkSession, tmp_path: Path) -> None:
    code = python_of("how-to/history.md").replace("main.bronze.", "bronze.")
    assert "COMPLETED" in dry_run(log, code, tmp_path)[-1]


@pytest.mark.parametrize("word", ["id", "_sort_by", "_pg_change_type", "_pg_xid"])
def test_a_flow_that_does_not_fit_the_log_is_refused(
    log: SparkSession, tmp_path: Path, word: str
) -> None:
    code = python_of("how-to/history.md").replace("main.bronze.", "bronze.")
    wrong = code.replace(f'"{word}', '"no_such_column')
    assert wrong != code
    with pytest.raises(SparkConnectGrpcException, match="no_such_column"):
        dry_run(log, wrong, tmp_path)
