"""Receipts of runs on a SQL warehouse: one compound statement each.

Every statement in it can be sent twice. Source: Databricks SQL reference, "SQL scripting",
"BEGIN END compound statement", "MERGE INTO", "VALUES clause".
"""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from adapters.dlt_destination.dlt.errors import root_cause
from adapters.dlt_destination.sql.dialect import SPARK
from cdc_core.values.runs import (
    RUN_TABLES_SCHEMA,
    RUN_TABLES_TABLE,
    RUNS_SCHEMA,
    RUNS_TABLE,
    receipts_as_rows,
    receipts_of_rows,
    run_tables_as_rows,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import pyarrow as pa

    from cdc_core.values.runs import RunReceipt, RunTable

#: A receipt is not worth a longer wait for a warehouse that is away.
SECONDS_AWAY = 10.0
#: One run in `FORGET_EVERY` deletes old receipts, with two more statements in the compound.
FORGET_EVERY = 16

_SCHEMAS = {RUN_TABLES_TABLE: RUN_TABLES_SCHEMA, RUNS_TABLE: RUNS_SCHEMA}
_NOT_FOUND = re.compile(r"\[TABLE_OR_VIEW_NOT_FOUND\b")
_NO_SCRIPTS = re.compile(r"\[PARSE_SYNTAX_ERROR\b|SQL_SCRIPT|\[UNSUPPORTED_FEATURE\b")


class WarehouseRunLog:
    """`client` is dlt's open client, which this log may use for nothing else. `missing`: the tables
    are probably not there yet."""

    def __init__(self, client: Any, *, missing: bool) -> None:
        self._sql = client.sql_client
        self._missing = missing

    def write_receipt(
        self, receipt: RunReceipt, tables: Sequence[RunTable], forget_before: datetime | None
    ) -> None:
        policy = self._sql.retry_policy
        away = min(policy.seconds_away, SECONDS_AWAY)
        self._sql.retry_policy = replace(policy, seconds_away=away)
        # The tables first: a run that is in `_cdc_runs` is complete.
        statements = [self._merge(RUNS_TABLE, receipts_as_rows([receipt]))]
        if tables:
            statements.insert(0, self._merge(RUN_TABLES_TABLE, run_tables_as_rows(tables)))
        if forget_before is not None and _is_due(receipt):
            statements += self._forgetting(forget_before)
        try:
            if self._missing:
                statements[:0] = self._creation()
            self._send(statements)
        except Exception as error:
            if self._missing or not _NOT_FOUND.search(str(root_cause(error))):
                raise
            self._send([*self._creation(), *statements])

    def receipts(self, limit: int) -> list[RunReceipt]:
        query = (
            f"SELECT {_names(RUNS_SCHEMA)} FROM {self._name(RUNS_TABLE)} "
            f"ORDER BY ended_at DESC, seq DESC LIMIT {limit}"
        )
        try:
            with self._sql.execute_query(query) as cursor:
                found = list(cursor.iter_arrow(max(1, limit)))
        except Exception as error:
            if _NOT_FOUND.search(str(root_cause(error))):
                return []
            raise
        return [receipt for chunk in found for receipt in receipts_of_rows(chunk)]

    def _send(self, statements: Sequence[str]) -> None:
        """Send one compound statement; a warehouse without SQL scripting gets them one by one."""
        if len(statements) == 1:
            self._sql.execute_sql(statements[0])
            return
        body = "".join(f"{statement};\n" for statement in statements)
        try:
            self._sql.execute_sql(f"BEGIN\n{body}END;")
        except Exception as error:
            if not _NO_SCRIPTS.search(str(root_cause(error))):
                raise
            for statement in statements:
                self._sql.execute_sql(statement)

    def _creation(self) -> list[str]:
        return [
            f"CREATE TABLE IF NOT EXISTS {self._name(table)} ({SPARK.definitions(schema)})"
            for table, schema in _SCHEMAS.items()
        ]

    def _merge(self, table: str, rows: pa.Table) -> str:
        schema = _SCHEMAS[table]
        key = [name for name in ("run_id", "seq", "table_name") if name in schema.names]
        same = " AND ".join(f"t.{name} = s.{name}" for name in key)
        values = ", ".join(f"s.{SPARK.quote(name)}" for name in schema.names)
        return (
            f"MERGE INTO {self._name(table)} AS t USING ({_query(rows)}) AS s ON {same} "
            f"WHEN NOT MATCHED THEN INSERT ({_names(schema)}) VALUES ({values})"
        )

    def _forgetting(self, before: datetime) -> list[str]:
        runs, tables = self._name(RUNS_TABLE), self._name(RUN_TABLES_TABLE)
        old = f"ended_at < {_literal(before)}"
        same = "r.run_id = t.run_id AND r.seq = t.seq"
        of_old_runs = f"EXISTS (SELECT 1 FROM {runs} AS r WHERE {same} AND r.{old})"
        return [
            f"DELETE FROM {tables} AS t WHERE {of_old_runs}",
            f"DELETE FROM {runs} WHERE {old}",
        ]

    def _name(self, table: str) -> str:
        return f"{self._sql.fully_qualified_dataset_name()}.{SPARK.quote(table)}"


def _is_due(receipt: RunReceipt) -> bool:
    """Whether this run deletes old receipts. Run IDs are random, in hexadecimal."""
    return int(receipt.run_id[-2:], 16) % FORGET_EVERY == 0


def _query(rows: pa.Table) -> str:
    """Return a query for the rows, with their types."""
    names = rows.schema.names
    values = ", ".join(
        f"({', '.join(_literal(row[name]) for name in names)})" for row in rows.to_pylist()
    )
    return f"SELECT {SPARK.casts(rows.schema)} FROM VALUES {values} AS v({_names(rows.schema)})"


def _literal(value: Any) -> str:
    match value:
        case None:
            return "NULL"
        case str():
            return SPARK.literal(value)
        case datetime():
            return f"TIMESTAMP'{value:%Y-%m-%d %H:%M:%S.%f}+00:00'"
        case float():
            return f"{value!r}D"
        case _:
            return str(value)


def _names(fields: Iterable[pa.Field]) -> str:
    return ", ".join(SPARK.quote(field.name) for field in fields)
