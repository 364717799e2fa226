"""Replacing the content of a table on Databricks, for a full load.

The table is overwritten, so that it keeps what users added to it. One that cannot be altered to fit
is replaced as a whole. Sources: Databricks SQL reference, "INSERT", "CREATE TABLE [USING]", "ALTER
TABLE".
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from adapters.dlt_destination.columns import alters, plain, replaced_fields, row_fields, widens
from adapters.dlt_destination.databricks import variants
from adapters.dlt_destination.databricks.carry_over import what_others_put_on
from adapters.dlt_destination.databricks.definitions import (
    COLUMN_MAPPING,
    clustered_by,
    clustering,
    qualified,
)
from adapters.dlt_destination.databricks.merges import comparable_table, typed
from adapters.dlt_destination.databricks.retry import transient
from adapters.dlt_destination.dlt.errors import root_cause
from adapters.dlt_destination.sql import merge_sql
from adapters.dlt_destination.sql.dialect import SPARK
from cdc_core.values.merges import DELETED_AT_COLUMN, DELETED_AT_FIELD

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from adapters.dlt_destination.databricks.definitions import Definitions
    from cdc_core.values.merges import Replacement

#: Up to this number of columns are moved one by one; beyond it the table is replaced.
MOVED_COLUMNS = 20

_EXISTS = re.compile(r"\[TABLE_OR_VIEW_ALREADY_EXISTS\b")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TableReplacement:
    """One replacement. `write` runs a statement on the table, now or in the batch's transaction:
    `in_transaction`."""

    definitions: Definitions
    client: Any
    step: Replacement
    write: Callable[[str], None]
    in_transaction: bool

    @property
    def _table(self) -> str:
        return self.step.target.name

    def _known(self) -> pa.Schema | None:
        return self.definitions.known(self.client, self._table)

    def _current(self) -> pa.Schema | None:
        return self.definitions.current(self.client, self._table)

    def _alter(self, change: str, is_done: Callable[[pa.Schema], bool] | None = None) -> None:
        self.definitions.alter(self.client, self._table, change, is_done)

    def make_fit(self) -> None:
        held = self._known()
        if held is not None and not self._fits(held):
            self._made_to_fit()
        # Else: a table that is not listed yet is handled when it is created.

    def run(self, files: str) -> None:
        """Overwrite the rows with those of `files`. Columns that users added get their defaults."""
        try:
            self._overwrite(files)
        except Exception as error:
            if not self.definitions.was_dropped(self.client, self._table, error):
                raise
            self._overwrite(files)

    def _overwrite(self, files: str) -> None:
        step, new = self.step, replaced_fields(self.step)
        rows = f"SELECT * FROM {typed(row_fields(step.target), files)} AS f"
        held = self._known()
        if step.soft_deletes is not None:
            held = self._current()
            rows = self._with_kept(rows, held)
        if step.target.variants:
            parsed = variants.parsed(new, strict=step.soft_deletes is None)
            rows = f"SELECT {parsed} FROM ({rows}) AS p"
        if held is not None and not self._fits(held):
            held = self._current()
        if held is None:
            if self._made(rows):
                return
            held = self._current()
            assert held is not None
        if not (self._fits(held) or self._made_to_fit()):
            self._replace_whole(rows)
            return
        names = ", ".join(SPARK.quote(field.name) for field in new)
        self.write(f"INSERT OVERWRITE {qualified(self.client, self._table)} ({names}) {rows}")
        surplus = self._surplus()
        self._cluster(surplus)
        for name in surplus:
            self.definitions.set_properties(self.client, self._table, COLUMN_MAPPING)
            is_done = partial(_has_lost, name)
            self._alter(f"DROP COLUMN {SPARK.quote(name)}", is_done)

    def _with_kept(self, rows: str, held: pa.Schema | None) -> str:
        """Return the new rows, and those that a replacement with soft deletes keeps."""
        kind = SPARK.sql_type(DELETED_AT_FIELD.type)
        rows = f"SELECT f.*, CAST(NULL AS {kind}) AS {DELETED_AT_COLUMN} FROM ({rows}) AS f"
        if held is None or not self.step.keeps_rows:
            return rows
        texts = pa.schema([variants.as_text(field) for field in held])
        values = merge_sql.kept_values(SPARK, self.step, texts)
        kept = ", ".join(f"{value} AS {SPARK.quote(name)}" for name, value in values.items())
        target = comparable_table(self.definitions, self.client, self._table)
        source = merge_sql.kept_from(SPARK, self.step, texts, target, f"({rows})")
        return f"{rows} UNION ALL SELECT {kept} {source}"

    def _cluster(self, surplus: Collection[str]) -> None:
        """Cluster the table as its rule says. Without a rule it keeps the clustering that somebody
        may have chosen, unless that needs a surplus column, which could not be dropped then."""
        rule = self.step.target.cluster_by
        if rule or (surplus and clustered_by(self.client, self._table) & {*surplus}):
            chosen = clustering(replaced_fields(self.step), rule or self.step.key)
            self._alter(chosen or "CLUSTER BY NONE")

    def _made(self, rows: str) -> bool:
        """Create a table that is not listed, with its rows if that can be one statement. Returns
        False if it exists: listed late, or created by a statement whose answer was lost."""
        fields = replaced_fields(self.step)
        layout = self.definitions.layout(fields, self.step.target.cluster_by or self.step.key)
        content = f"{layout} AS {rows}"
        if self.in_transaction:
            content = f"({SPARK.definitions(fields)}) {layout}"
        try:
            self._define("CREATE TABLE", content)
        except Exception as error:
            if not _EXISTS.search(str(root_cause(error))):
                raise
            return False
        self.definitions.created(self._table, fields)
        return not self.in_transaction

    def _define(self, verb: str, content: str) -> None:
        statement = f"{verb} {qualified(self.client, self._table)} {content}"
        self.definitions.define(self.client, self._table, statement)

    def _fits(self, held: pa.Schema) -> bool:
        """Whether the table can be overwritten without changing its definition."""
        fields = {field.name: plain(field.type) for field in replaced_fields(self.step)}
        names = [name for name in held.names if name in fields]
        return (
            names == list(fields)
            and all(_holds(plain(held.field(name).type), kind) for name, kind in fields.items())
            and (self.step.gone is not None or len(names) == len(held))
        )

    def _made_to_fit(self) -> bool:
        """Add, widen and move columns until the table fits; False if that is not enough."""
        old = self._current()
        if old is None:
            return False
        held = {f.name: plain(f.type) for f in old}
        fields = replaced_fields(self.step)
        missing = [field for field in fields if field.name not in held]
        narrow = [f for f in fields if f.name in held and not _holds(held[f.name], plain(f.type))]
        clashes = {name.lower() for name in old.names} & {field.name.lower() for field in missing}
        if clashes or (self.step.gone is None and not all(map(self.step.has, old.names))):
            return False
        if not all(alters(held[field.name], plain(field.type)) for field in narrow):
            return False
        moves = list(_moves(old.names, [f.name for f in fields if f.name in held]))
        if len(moves) > MOVED_COLUMNS:
            return False
        for name, before in moves:
            place = f"AFTER {SPARK.quote(before)}" if before else "FIRST"
            self._alter(f"ALTER COLUMN {SPARK.quote(name)} {place}")
        if missing:
            self.definitions.add_columns(self.client, self._table, missing)
        if narrow:
            self.definitions.widen(self.client, self._table, narrow)
        return True

    def _surplus(self) -> list[str]:
        """Return our own columns that the table must lose."""
        gone = self.step.gone or ()
        held = self._known() if gone else None
        names = [] if held is None else held.names
        return [name for name in names if name in gone and not self.step.has(name)]

    def _replace_whole(self, rows: str) -> None:
        described = self.definitions.described(self.client, self._table)
        assert described is not None
        carried = what_others_put_on(
            self.client, self._table, described, self.step.has, self.step.keeps
        )
        if carried.columns:
            rows = f"SELECT *, {', '.join(carried.columns)} FROM ({rows}) AS r"
        layout = self.definitions.layout(
            replaced_fields(self.step),
            self.step.target.cluster_by or self.step.key,
            carried.properties,
            carried.comment,
        )
        self._define("CREATE OR REPLACE TABLE", f"{layout} AS {rows}")
        for what, change in carried.alterations:
            try:
                self._alter(change)
            except Exception as error:
                if transient(root_cause(error)):
                    raise
                carried.lost.append(what)
        if carried.lost:
            _log.warning(
                "table %s was replaced, since a column's type changed; what others had put on it "
                "and could not be kept: %s",
                self._table,
                ", ".join(carried.lost),
            )


def _has_lost(name: str, held: pa.Schema) -> bool:
    return name not in held.names


def _holds(held: pa.DataType, wanted: pa.DataType) -> bool:
    """Whether a column can stay as it is. A wider integer or float is sufficient."""
    if held == wanted:
        return True
    return not pa.types.is_decimal(held) and widens(wanted, held)


def _moves(held: Sequence[str], wanted: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield the columns to move, each with the column that it follows then (empty: it is first),
    until they are in the wanted order."""
    order = [name for name in held if name in wanted]
    for place, name in enumerate(wanted):
        if order[place] != name:
            order.remove(name)
            order.insert(place, name)
            yield name, wanted[place - 1] if place else ""
