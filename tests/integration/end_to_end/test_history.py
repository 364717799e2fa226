"""History at a real PostgreSQL: triggers record every change, runs are killed, images are equal.

uv run pytest tests/integration/end_to_end/test_history.py --history-transactions 10000
"""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.support.audit import RULES, TABLES, AuditedWork
from tests.support.lakes import LocalLake
from tests.support.pipeline import Pipeline

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("adapters.dlt_destination.sql.history_sql")


@pytest.mark.parametrize("kind", ["duckdb"])
def test_every_image_is_the_one_that_the_database_recorded(
    database: str, tmp_path: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    transactions = request.config.getoption("--history-transactions")
    lake, chance = LocalLake(kind, tmp_path), random.Random(3)
    pipeline = Pipeline(database, lake, SOURCES__PG_REPLICATION__TABLES=RULES)
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(TABLES)
        work = AuditedWork(connection, seed=3)
        work.run(30)
        work.copies.clear()
        work.begin()
        pipeline.call("snapshot")
        left = transactions
        while left > 0:
            size = min(left, max(40, transactions // 40))
            left -= size
            work.run(size)
            began = time.monotonic()
            for _ in range(2):
                # An import takes a second; the kill comes at any moment after it.
                pipeline.killed("cdc", after=chance.uniform(0.8, 3.5))
            if chance.random() < 0.5 or not left:
                pipeline.call("cdc")
            assert time.monotonic() - began < 120
        pipeline.call("cdc")
        work.assert_history(lake)
        pipeline.call("verify")
