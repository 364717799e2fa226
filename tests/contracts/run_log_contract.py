"""What every destination promises about the receipts of runs."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from cdc_core.values.merges import LoadBatch
from cdc_core.values.runs import RUN_TABLES_TABLE, RUNS_TABLE, RunReceipt, RunTable
from tests.contracts.destination_contract import EMPTY_BATCH, ORDERS, checkpoint, keyed
from tests.contracts.opened_destination import OpenedDestination

if TYPE_CHECKING:
    from collections.abc import Callable

    from cdc_core.ports.destination import Destination

NOW = dt.datetime(2030, 5, 6, 7, 8, 9, 123456, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)

#: Every column with a value that could be lost: 64 bits, a fraction, quotes, a backslash.
FULL = RunReceipt(
    run_id="00f0", seq=0, command="cdc", started_at=NOW - DAY, ended_at=NOW, exit_code=3,
    error="it's \"so\" \\ 100 %s; run: ä", from_lsn=1, to_lsn=2**62, source_lsn=2**62 + 1,
    transactions=5, inserts=6, updates=7, deletes=8, truncates=9, rows_read=10, bytes_read=2**40,
    tables=2, batches=3, statements=4, lag_bytes=2**41, lag_seconds=0.1, retained_wal_bytes=2**42,
    peak_memory_bytes=2**35, version="1.2.3",
)  # fmt: skip
#: Every column that may be NULL is.
BARE = replace(
    FULL, run_id="00f1", ended_at=NOW + DAY, exit_code=None, error=None, from_lsn=None,
    to_lsn=None, source_lsn=None, lag_bytes=None, lag_seconds=None, retained_wal_bytes=None,
    peak_memory_bytes=None,
)  # fmt: skip


def tables_of(receipt: RunReceipt) -> list[RunTable]:
    return [
        RunTable(receipt.run_id, receipt.seq, "public.it's", "it's", 1, 2, 3, 4, 5),
        RunTable(receipt.run_id, receipt.seq, "public.b", None, 0, 0, 0, 0, 2**40),
    ]


class RunLogContract(OpenedDestination):
    """Tests of the port. A subclass also reads run tables."""

    @pytest.fixture
    def run_tables(self) -> Callable[[], list[RunTable]]:
        """A function that reads `_cdc_run_tables`."""
        raise NotImplementedError

    def test_receipts_come_back_as_they_were_newest_first(
        self, opened: Callable[[], Destination], run_tables: Callable[[], list[RunTable]]
    ) -> None:
        later = replace(BARE, seq=1)
        with opened() as destination:
            destination.load(EMPTY_BATCH, checkpoint(1))
            assert list(destination.receipts(10)) == []
            destination.write_receipt(FULL, tables_of(FULL))
            destination.write_receipt(BARE, [])
            destination.write_receipt(later, tables_of(later))
        with opened() as destination:
            assert list(destination.receipts(10)) == [later, BARE, FULL]
            assert list(destination.receipts(2)) == [later, BARE]
        by_name = sorted([*tables_of(FULL), *tables_of(later)], key=repr)
        assert sorted(run_tables(), key=repr) == by_name

    def test_without_a_dataset_nothing_is_written(self, opened: Callable[[], Destination]) -> None:
        with opened() as destination:
            destination.write_receipt(FULL, tables_of(FULL))
            assert list(destination.receipts(10)) == []
        with opened() as destination:
            assert destination.read_checkpoint() is None
            assert list(destination.receipts(10)) == []

    def test_old_receipts_are_deleted_with_their_tables(
        self, opened: Callable[[], Destination], run_tables: Callable[[], list[RunTable]]
    ) -> None:
        """Of a run that still goes on, only the rows that are old."""
        old = [replace(FULL, seq=seq, ended_at=NOW - 90 * DAY) for seq in range(2)]
        new = replace(FULL, seq=2)
        last = replace(BARE, run_id="0100")
        with opened() as destination:
            destination.load(EMPTY_BATCH, checkpoint(1))
            for receipt in (*old, new):
                destination.write_receipt(receipt, tables_of(receipt))
            destination.write_receipt(last, tables_of(last), forget_before=NOW - 89 * DAY)
            assert list(destination.receipts(10)) == [last, new]
        assert {(row.run_id, row.seq) for row in run_tables()} == {("00f0", 2), ("0100", 0)}

    def test_they_are_no_tables_of_the_source(self, opened: Callable[[], Destination]) -> None:
        with opened() as destination:
            rows = [{"id": 1, "_cdc_lsn": 1}]
            destination.load(LoadBatch(merges=(keyed(ORDERS, rows),)), checkpoint(1))
            destination.write_receipt(FULL, tables_of(FULL))
            assert dict(destination.tables()) == {"orders": 1}
            assert {RUNS_TABLE, RUN_TABLES_TABLE} <= {*destination.naming.reserved}
        with opened() as destination:
            assert dict(destination.tables()) == {"orders": 1}

    def test_a_reset_drops_them(self, opened: Callable[[], Destination]) -> None:
        with opened() as destination:
            destination.load(EMPTY_BATCH, checkpoint(1))
            destination.write_receipt(FULL, tables_of(FULL))
            destination.drop()
        with opened() as destination:
            assert list(destination.receipts(10)) == []
