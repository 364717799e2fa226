"""Receipts of runs in Delta tables: a commit for each of the two tables."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from adapters.dlt_destination.delta.folders import location, open_table
from adapters.dlt_destination.delta.upkeep import PROPERTIES, keep_up
from adapters.dlt_destination.dlt.filesystem_client import storage_options
from adapters.dlt_destination.sql.dialect import DUCKDB
from cdc_core.values.runs import (
    RUN_TABLES_TABLE,
    RUNS_TABLE,
    receipts_as_rows,
    receipts_of_rows,
    run_tables_as_rows,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    import pyarrow as pa

    from cdc_core.values.runs import RunReceipt, RunTable

#: Runs whose tables one statement deletes.
RUNS_AT_ONCE = 200


class DeltaRunLog:
    """`client` is dlt's open client."""

    def __init__(self, client: Any) -> None:
        self._client = client

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
            location(self._client, table),
            rows,
            mode="append",
            configuration=PROPERTIES,
            storage_options=storage_options(self._client),
        )
        if (delta := self._open(table)) is not None:
            keep_up(delta, before=delta.version() - 1)

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
        from deltalake.exceptions import TableNotFoundError

        with suppress(TableNotFoundError):
            return open_table(self._client, table)
        return None
