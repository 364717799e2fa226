"""The contract of receipts on the local warehouse, and the statements that they take."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from adapters.dlt_destination.databricks import run_log
from cdc_core.values.errors import DestinationUnavailable
from cdc_core.values.runs import RUN_TABLES_TABLE, RunTable
from tests.contracts.run_log_contract import (
    BARE,
    EMPTY_BATCH,
    FULL,
    RunLogContract,
    checkpoint,
    tables_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from cdc_core.ports.destination import Destination
    from tests.integration.warehouse.client import Warehouse


class TestDatabricks(RunLogContract):
    @pytest.fixture
    def opened(self, opened: Callable[[], Destination]) -> Callable[[], Destination]:
        return opened

    @pytest.fixture
    def run_tables(self, warehouse: Warehouse) -> Callable[[], list[RunTable]]:
        def read() -> list[RunTable]:
            rows = warehouse.read_table("bronze", RUN_TABLES_TABLE).to_pylist()
            return [RunTable(**row) for row in rows]

        return read

    def test_a_receipt_is_one_statement(
        self, opened: Callable[[], Destination], warehouse: Warehouse
    ) -> None:
        with opened() as destination:
            destination.load(EMPTY_BATCH, checkpoint(1))
            destination.write_receipt(FULL, tables_of(FULL))
            for receipt, tables in ((BARE, []), (replace(BARE, seq=1), tables_of(FULL))):
                warehouse.clear_log()
                destination.write_receipt(receipt, tables)
                assert len(warehouse.statements()) == 1

    def test_a_statement_that_is_sent_twice_counts_once(
        self, opened: Callable[[], Destination], warehouse: Warehouse
    ) -> None:
        with opened() as destination:
            destination.load(EMPTY_BATCH, checkpoint(1))
            for _ in range(2):
                destination.write_receipt(FULL, tables_of(FULL))
            assert list(destination.receipts(10)) == [FULL]
        assert len(warehouse.read_table("bronze", RUN_TABLES_TABLE)) == 2

    def test_a_warehouse_without_scripts_gets_single_statements(
        self, opened: Callable[[], Destination], warehouse: Warehouse
    ) -> None:
        warehouse.add_fault(r"^BEGIN\n", "error", error_class="PARSE_SYNTAX_ERROR", times=10)
        with opened() as destination:
            destination.load(EMPTY_BATCH, checkpoint(1))
            destination.write_receipt(FULL, tables_of(FULL))
            assert list(destination.receipts(10)) == [FULL]

    @pytest.mark.needs_warehouse("No answer")
    def test_a_warehouse_that_is_away_does_not_hold_the_run(
        self,
        opened: Callable[[], Destination],
        warehouse: Warehouse,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(run_log, "SECONDS_AWAY", 0.5)
        with opened() as destination:
            destination.load(EMPTY_BATCH, checkpoint(1))
            warehouse.add_fault("MERGE INTO", "http", status=503, times=1000)
            began = time.monotonic()
            with pytest.raises(DestinationUnavailable):
                destination.write_receipt(FULL, [])
            assert time.monotonic() - began < 60
