"""Receipts of runs in Delta tables: a commit for each of the two tables."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from adapters.dlt_destination.sql.dialect import DUCKDB
from cdc_core.values.runs import (
    RUN_TABLES_TABLE,
    RUNS_TABLE,
    receipts_as_rows,
    receipts_of_rows,
    run_tables_as_rows,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    import pyarrow as pa

    from cdc_core.values.runs import RunReceipt, RunTable

#: Every `UPKEEP_EVERY` commits, the small files are compacted.
UPKEEP_EVERY = 20
#: Runs whose tables one statement deletes.
RUNS_AT_ONCE = 200


class DeltaRunLog:
    """`place` returns a table's location; `keep_up` compacts a table."""

    def __init__(
        self,
        place: Callable[[str], str],
        options: dict[str, str] | None,
        properties: Mapping[str, str],
        keep_up: Callable[[Any], None],
    ) -> None:
        self._place = place
        self._options = options
        self._properties = properties
        self._keep_up = keep_up

    def write_receipt(
        self, receipt: RunReceipt, tables: Sequence[RunTable], forget_before: datetime | None
    ) -> None:
        """The tables first: a run that is in `_cdc_runs` is complete."""
        if tables or self._open(RUN_TABLES_TABLE) is None:
            self._append(RUN_TABLES_TABLE, run_tables_as_rows(tables))
        self._append(RUNS_TABLE, receipts_as_rows([receipt]))
        if forget_before is not None:
            self._forget(forget_before)

    def receipts(self, limit: int) -> list[RunReceipt]:
        found = self._open(RUNS_TABLE)
        if found is None:
            return []
        rows = found.to_pyarrow_dataset().to_table()
        rows = rows.sort_by([("ended_at", "descending"), ("seq", "descending")])
        return receipts_of_rows(rows.slice(0, limit))

    def _append(self, table: str, rows: pa.Table) -> None:
        from deltalake import write_deltalake

        write_deltalake(
            self._place(table),
            rows,
            mode="append",
            configuration={**self._properties},
            storage_options=self._options,
        )
        delta = self._open(table)
        if delta is not None and delta.version() % UPKEEP_EVERY == UPKEEP_EVERY - 1:
            self._keep_up(delta)

    def _forget(self, before: datetime) -> None:
        import pyarrow.dataset as ds

        runs, tables = self._open(RUNS_TABLE), self._open(RUN_TABLES_TABLE)
        assert runs is not None
        # By the statistics of its files, which are read only if they have such rows.
        old = runs.to_pyarrow_dataset().to_table(["run_id", "seq"], ds.field("ended_at") < before)
        if not len(old):
            return
        # All rows of a run before an old one are old too.
        last = old.group_by("run_id").aggregate([("seq", "max")]).to_pylist()
        if tables is not None:
            for start in range(0, len(last), RUNS_AT_ONCE):
                tables.delete(
                    " OR ".join(
                        f"(run_id = {DUCKDB.literal(row['run_id'])} AND seq <= {row['seq_max']})"
                        for row in last[start : start + RUNS_AT_ONCE]
                    )
                )
        moment = before.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        runs.delete(f"ended_at < arrow_cast('{moment}', 'Timestamp(Microsecond, Some(\"UTC\"))')")

    def _open(self, table: str) -> Any:
        from deltalake import DeltaTable
        from deltalake.exceptions import TableNotFoundError

        with suppress(TableNotFoundError):
            return DeltaTable(self._place(table), storage_options=self._options)
        return None
