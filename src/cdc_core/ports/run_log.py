"""The receipts of runs, in two tables of the dataset next to the data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from cdc_core.values.runs import RunReceipt, RunTable


class RunLog(Protocol):
    """`_cdc_runs` and `_cdc_run_tables`. They are no tables of the source, and no other method of
    the destination lists them."""

    @property
    def statements(self) -> int:
        """Return how many statements were sent so far; tables without SQL count their commits."""
        ...

    def write_receipt(
        self,
        receipt: RunReceipt,
        tables: Sequence[RunTable],
        *,
        forget_before: datetime | None = None,
    ) -> None:
        """Append a receipt with its tables, and create both tables if they are missing.

        Does nothing without a dataset: a run that loaded nothing creates none. A receipt that is
        sent twice is stored once. Receipts whose `ended_at` is before `forget_before` are deleted,
        at once or by a later call. Raises as `load` does.
        """
        ...

    def receipts(self, limit: int) -> Sequence[RunReceipt]:
        """Return the last receipts, the newest first; none before the first."""
        ...
