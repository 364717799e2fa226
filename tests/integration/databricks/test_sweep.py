"""Every statement of whole runs meets every fault: the next run ends equal, no reader sees less."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING

import pytest

from tests.integration.databricks.sweep import (
    DEFINITIONS,
    FAULTS,
    LASTING,
    RUNS,
    UPLOAD,
    WHOLE,
    Shop,
    fault,
    sweep,
)
from tests.support.spark_engine import ENGINE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.integration.warehouse.client import Warehouse

#: Those after which the statement is sent again. The client of a session asks for the answer that
#: was lost (`drop_after`), so a fault behind that one would never strike.
PASSING = [kind for kind in FAULTS if kind not in LASTING and (kind, ENGINE) != ("delay", "spark")]
#: Of a session fewer: those for files are none.
STATEMENTS = 10 if ENGINE == "warehouse" else 5


@pytest.fixture
def shop(
    database: str, warehouse: Warehouse, tmp_path: Path, *, in_one_transaction: bool
) -> Iterator[Shop]:
    with Shop(database, warehouse, tmp_path, in_one_transaction) as shop:
        yield shop


@pytest.mark.parametrize("in_one_transaction", [False, True])
@pytest.mark.parametrize("run", RUNS)
def test_every_statement_meets_every_fault(shop: Shop, warehouse: Warehouse, run: str) -> None:
    """One after the other, until it passes: the run ends by itself, in bounded time."""
    if run != "first snapshot":
        shop.run("snapshot")
    shop.prepare(run)
    if run == "cdc":
        shop.source.execute(DEFINITIONS.encode())
    for number, kind in enumerate(PASSING, start=1):
        nth = 2 if FAULTS[kind] == UPLOAD else number  # where a statement meets a conflict
        warehouse.add_fault(nth=nth, cycle=len(PASSING) + 1, **fault(kind))
    none = contextlib.nullcontext(WHOLE)
    with none if run == "first snapshot" else shop.reading() as seen:
        warehouse.clear_log()
        shop.run(run)
        texts = {statement["text"] for statement in warehouse.statements()}
        for armed in warehouse.faults():
            places = [text for text in texts if re.match(armed["pattern"], text)]
            if armed["pattern"] == UPLOAD:
                assert armed["fired"] > 0
                continue
            assert len(places) > STATEMENTS
            assert armed["fired"] >= len(places), armed["kind"]
        warehouse.clear_faults()
        shop.assert_equal()
        shop.change()
        shop.run("cdc")
        shop.assert_equal()
        shop.assert_swept()
    assert seen == WHOLE


@pytest.mark.parametrize("in_one_transaction", [False])
@pytest.mark.parametrize("run", ["snapshot", "cdc"])
def test_a_run_that_fails_at_any_statement_is_run_again(shop: Shop, run: str) -> None:
    """In one transaction, statements are fewer; `test_transaction` fails the one that counts."""
    assert sweep(shop, run, "error") > STATEMENTS
