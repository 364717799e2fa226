"""INSERT, MERGE, DELETE, UPDATE, TRUNCATE: each one version of the Delta table, or an error.

The engine's own MERGE does the work, cardinality error included. INSERT gets its column list
filled, and a DELETE or UPDATE whose condition asks other rows, which the engine cannot plan, is run
as the MERGE that means the same.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pyarrow as pa
from sqlglot import exp

from . import errors
from .delta_log import commit, latest_version, operation_metrics, read_metadata, remove_actions
from .engine import delta_table, quote
from .queries import generate, parts_of
from .session import Result
from .type_names import sql_type

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .catalog import Catalog
    from .engine import Engine
    from .queries import Rewriter
    from .session import Session


class Dml:
    """Statements that change rows."""

    def __init__(self, catalog: Catalog, engine: Engine) -> None:
        self._catalog = catalog
        self._engine = engine

    @contextmanager
    def _locked(self, session: Session, table: exp.Expr) -> Iterator[Path]:
        target = table.find(exp.Table)
        if target is None:
            raise errors.syntax_error("a statement without a table")
        path = self._catalog.require_table(session.name(parts_of(target)))
        with self._catalog.table_lock(path):
            yield path

    def insert(self, session: Session, tree: exp.Insert, rewriter: Rewriter) -> Result:
        if tree.args.get("where") or tree.args.get("partition"):
            raise errors.unsupported("INSERT with REPLACE WHERE or PARTITION")
        with self._locked(session, tree.this) as path:
            metadata = read_metadata(path)
            query = tree.expression.copy()
            if isinstance(query, exp.Values):
                query = exp.select("*").from_(exp.Subquery(this=query, alias="_v"))
            query = rewriter.distinct_names(query)
            text = rewriter.query(query)
            given = self._engine.schema(text).names
            if isinstance(tree.this, exp.Schema):
                targets = [column.name for column in tree.this.expressions]
            elif tree.args.get("by_name"):
                targets = given
            else:
                targets = metadata.column_names
            if len(given) != len(targets):
                raise errors.SqlError(
                    "DELTA_INSERT_COLUMN_ARITY_MISMATCH",
                    f"Cannot write to the table: {len(given)} columns are given for "
                    f"{len(targets)} ({', '.join(targets)}).",
                )
            source_of = {metadata.index_of(t): f"_q.`_s{i}`" for i, t in enumerate(targets)}
            items = []
            for index, column in enumerate(metadata.fields):
                kind = sql_type(column["type"])
                value = source_of.get(index, f"CAST(NULL AS {kind})")
                items.append(f"{value} AS {quote(column['name'])}")
            names = ", ".join(f"`_s{i}`" for i in range(len(given)))
            verb = "OVERWRITE" if tree.args.get("overwrite") else "INTO"
            self._check_not_null(metadata.fields, source_of, text, names)
            with self._engine.named(path) as table:
                self._engine.run(
                    f"INSERT {verb} {table} SELECT {', '.join(items)} FROM ({text}) AS _q({names})"
                )
            count = operation_metrics(path, latest_version(path)).get("numOutputRows", 0)
        return _counted(num_affected_rows=count, num_inserted_rows=count)

    def _check_not_null(
        self,
        fields: tuple[dict[str, object], ...],
        source_of: dict[int, str],
        text: str,
        names: str,
    ) -> None:
        """The engine takes a NULL into a NOT NULL column; a warehouse does not."""
        wanted = [(i, str(f["name"])) for i, f in enumerate(fields) if not f["nullable"]]
        if not wanted:
            return
        tests = [
            f"count_if({source_of[i]} IS NULL)" if i in source_of else "count(*)" for i, _ in wanted
        ]
        found = self._engine.run(
            f"SELECT array({', '.join(tests)}) AS nulls FROM ({text}) AS _q({names})"
        )
        for (_, name), nulls in zip(wanted, found.column("nulls")[0].as_py(), strict=True):
            if nulls:
                raise errors.SqlError(
                    "DELTA_NOT_NULL_CONSTRAINT_VIOLATED",
                    f"NOT NULL constraint violated for column: {name}.",
                )

    def merge(self, session: Session, tree: exp.Merge, rewriter: Rewriter) -> Result:
        tree = tree.copy()
        with self._locked(session, tree.this) as path:
            before = latest_version(path)
            source = rewriter.unalias(tree.args["using"])
            if not isinstance(source, exp.Table):
                # The engine would ask the source several times; like a warehouse, ask it once.
                found = self._engine.run(rewriter.query(exp.select("*").from_(source.copy())))
                tree.set("using", rewriter.materialized(found, source.alias))
            self._engine.run(rewriter.query(tree))
            after = latest_version(path)
            metrics = operation_metrics(path, after) if after > before else {}
        updated = metrics.get("numTargetRowsUpdated", 0)
        deleted = metrics.get("numTargetRowsDeleted", 0)
        inserted = metrics.get("numTargetRowsInserted", 0)
        return _counted(
            num_affected_rows=updated + deleted + inserted,
            num_updated_rows=updated,
            num_deleted_rows=deleted,
            num_inserted_rows=inserted,
        )

    def delete(self, session: Session, tree: exp.Delete, rewriter: Rewriter) -> Result:
        where = tree.args.get("where")
        with self._locked(session, tree.this) as path:
            before = latest_version(path)
            if where is None:
                return self._truncate(path)
            if where.find(exp.Query):
                self._engine.run(self._as_merge(tree, path, where, "DELETE", rewriter))
            else:
                self._engine.run(rewriter.query(tree))
            after = latest_version(path)
            metrics = operation_metrics(path, after) if after > before else {}
        count = metrics.get("numTargetRowsDeleted", metrics.get("numDeletedRows", 0))
        return _counted(num_affected_rows=count)

    def update(self, session: Session, tree: exp.Update, rewriter: Rewriter) -> Result:
        where = tree.args.get("where")
        with self._locked(session, tree.this) as path:
            before = latest_version(path)
            if where is not None and where.find(exp.Query):
                sets = []
                for pair in tree.expressions:
                    value = pair.expression.copy()
                    for column in [value, *value.find_all(exp.Column)]:
                        if isinstance(column, exp.Column):
                            column.set("table", exp.to_identifier("_d"))
                            column.set("db", None)
                            column.set("catalog", None)
                    sets.append(f"_d.{quote(pair.this.name)} = {generate(value)}")
                action = "UPDATE SET " + ", ".join(sets)
                self._engine.run(self._as_merge(tree, path, where, action, rewriter))
            else:
                self._engine.run(rewriter.query(tree))
            after = latest_version(path)
            metrics = operation_metrics(path, after) if after > before else {}
        count = metrics.get("numTargetRowsUpdated", metrics.get("numUpdatedRows", 0))
        return _counted(num_affected_rows=count)

    def _as_merge(
        self,
        tree: exp.Delete | exp.Update,
        path: Path,
        where: exp.Expr,
        action: str,
        rewriter: Rewriter,
    ) -> str:
        """The rows of the condition, found by a query, joined to the table over every column."""
        if any(_nested(outer) for outer in where.find_all(exp.Subquery, exp.Exists, exp.In)):
            raise errors.SqlError(
                "DELTA_NESTED_SUBQUERY_NOT_SUPPORTED",
                "Nested subquery is not supported in the condition.",
            )
        query = exp.select("*").distinct().from_(tree.this.copy()).where(where.this.copy())
        columns = read_metadata(path).column_names
        same = " AND ".join(f"_d.{quote(c)} <=> _k.{quote(c)}" for c in columns)
        return (
            f"MERGE INTO {delta_table(path)} AS _d USING ({rewriter.query(query)}) AS _k ON {same} "
            f"WHEN MATCHED THEN {action}"
        )

    def truncate(self, session: Session, parts: list[str]) -> Result:
        path = self._catalog.require_table(session.name(parts))
        with self._catalog.table_lock(path):
            return self._truncate(path)

    def _truncate(self, path: Path) -> Result:
        commit(path, latest_version(path) + 1, "TRUNCATE", remove_actions(path))
        return Result(pa.table({"num_affected_rows": pa.array([-1], pa.int64())}), modified=-1)


def _nested(outer: exp.Expr) -> bool:
    """Whether a subquery of a condition holds a subquery in its own conditions."""
    query = outer.args.get("query") if isinstance(outer, exp.In) else outer.this
    return query is not None and any(where.find(exp.Select) for where in query.find_all(exp.Where))


def _counted(**counts: int) -> Result:
    columns = {name: pa.array([count], pa.int64()) for name, count in counts.items()}
    return Result(pa.table(columns), modified=counts["num_affected_rows"])
