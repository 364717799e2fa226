"""Every case by the name that asks for it: its own, with dashes. The docs have this order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.scenarios import (
    changes,
    databricks,
    delta,
    fixed_cost,
    growth,
    history,
    latency,
    small_tables,
    spark,
    tables,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from benchmarks.bench import Bench
    from benchmarks.figures import CaseResult

CASES: Mapping[str, Callable[[Bench], CaseResult]] = {
    "inserts": changes.inserts,
    "backlog": changes.backlog,
    "hot-updates": changes.hot_updates,
    "tiny-transactions": changes.tiny_transactions,
    "mixed": changes.mixed,
    "wide-rows": changes.wide_rows,
    "long-texts": changes.long_texts,
    "many-tables": changes.many_tables,
    "giant-transaction": changes.giant_transaction,
    "giant-transaction-twice": changes.giant_transaction_twice,
    "history-inserts": history.history_inserts,
    "history-updates": history.history_updates,
    "snapshot": tables.snapshot,
    "delta-inserts": delta.delta_inserts,
    "delta-snapshot": delta.delta_snapshot,
    "delta-merge": delta.delta_merge,
    "spark": spark.spark,
    "databricks-inserts": databricks.databricks_inserts,
    "databricks-hot-updates": databricks.databricks_hot_updates,
    "latency": latency.latency,
    "latency-under-load": latency.latency_under_load,
    "fixed-cost": fixed_cost.fixed_cost,
    "small-tables": small_tables.small_tables,
    "growth-cdc": growth.growth_of_cdc,
    "growth-snapshot": growth.growth_of_snapshot,
}
