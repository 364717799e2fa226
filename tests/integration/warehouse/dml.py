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

from . import column_rules, errors
from .delta_log import (
    commit,
    latest_version,
    operation_metrics,
    read_metadata,
    remove_actions,
    undo,
)
from .engine import delta_table, quote
from .queries import generate, parse, parts_of
from .session import Result
from .type_names import engine_type

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .catalog import Catalog, TableInfo
    from .engine import Engine
    from .queries import Rewriter
    from .session import Session

#: Of each row of a MERGE's source, for IDENTITY columns.
_NUMBER = "__number"


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
            info = self._catalog.info(path)
            if isinstance(tree.this, exp.Schema) or tree.args.get("by_name"):
                column_rules.refuse_given(info, targets)
            source_of = {metadata.index_of(t): f"_q.`_s{i}`" for i, t in enumerate(targets)}
            items, computed = [], []
            for index, column in enumerate(metadata.fields):
                name = quote(column["name"])
                rules = info.rules(column["name"])
                computed.append(name)
                if index in source_of:
                    value = source_of[index]
                elif "generated" in rules:
                    computed[-1] = (
                        f"CAST({rules['generated']} AS {engine_type(column['type'])}) AS {name}"
                    )
                    continue
                elif "identity" in rules:
                    start, step = rules["identity"]["next"], rules["identity"]["step"]
                    value = f"{start} + {step} * (ROW_NUMBER() OVER (ORDER BY 1) - 1)"
                else:
                    value = rules.get("default", "NULL")
                if index not in source_of:
                    value = f"CAST({value} AS {engine_type(column['type'])})"
                items.append(f"{value} AS {name}")
            names = ", ".join(f"`_s{i}`" for i in range(len(given)))
            verb = "OVERWRITE" if tree.args.get("overwrite") else "INTO"
            select = f"SELECT {', '.join(items)} FROM ({text}) AS _q({names})"
            if len(items) < len(computed):
                select = f"SELECT {', '.join(computed)} FROM ({select})"
            with self._enforced(path), self._engine.named(path) as table:
                self._engine.run(f"INSERT {verb} {table} {select}")
            count = operation_metrics(path, latest_version(path)).get("numOutputRows", 0)
            self._advance_identities(path, info, int(count))
        return _counted(num_affected_rows=count, num_inserted_rows=count)

    def _advance_identities(self, path: Path, info: TableInfo, rows: int) -> None:
        identities = [r["identity"] for r in info.columns.values() if "identity" in r]
        for identity in identities:
            identity["next"] += identity["step"] * rows
        if identities:
            self._catalog.save_info(path, info)

    @contextmanager
    def _enforced(self, path: Path) -> Iterator[None]:
        """NOT NULL and CHECK, which the engine does not know: undoes a version that breaks one."""
        before = latest_version(path)
        yield
        checks = self._catalog.info(path).checks
        fields = read_metadata(path).fields
        nulls = [f["name"] for f in fields if not f["nullable"]]
        tests = [f"count_if({quote(name)} IS NULL)" for name in nulls]
        tests += [f"count_if(NOT ({check}))" for check in checks.values()]
        if not tests:
            return
        found = self._engine.run(
            f"SELECT array({', '.join(tests)}) AS broken FROM {delta_table(path)}"
        )
        broken = found.column("broken")[0].as_py()
        first = next((number for number, rows in enumerate(broken) if rows), None)
        if first is None:
            return
        undo(path, before)
        if first < len(nulls):
            raise errors.SqlError(
                "DELTA_NOT_NULL_CONSTRAINT_VIOLATED",
                f"NOT NULL constraint violated for column: {nulls[first]}.",
            )
        name, check = list(checks.items())[first - len(nulls)]
        raise errors.SqlError(
            "DELTA_VIOLATE_CONSTRAINT_WITH_VALUES",
            f"CHECK constraint {name} {check} violated by row with values: …",
        )

    def merge(self, session: Session, tree: exp.Merge, rewriter: Rewriter) -> Result:
        tree = tree.copy()
        rewriter.refuse_comparisons(tree)
        with self._locked(session, tree.this) as path:
            before = latest_version(path)
            info = self._catalog.info(path)
            source = rewriter.unalias(tree.args["using"])
            numbered = any("identity" in rules for rules in info.columns.values())
            if numbered or not isinstance(source, exp.Table):
                # The engine would ask the source several times; like a warehouse, ask it once.
                found = self._engine.run(rewriter.query(exp.select("*").from_(source.copy())))
                if numbered:
                    numbers = pa.array(range(len(found)), pa.int64())
                    found = found.append_column(_NUMBER, numbers)
                tree.set("using", rewriter.materialized(found, source.alias))
            for clause in tree.args["whens"].expressions:
                self._complete(clause, path, info, tree.this.alias_or_name, source.alias_or_name)
            with self._enforced(path):
                self._engine.run(rewriter.query(tree))
            self._advance_identities(path, info, len(found) if numbered else 0)
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

    def _complete(
        self, clause: exp.When, path: Path, info: TableInfo, target: str, source: str
    ) -> None:
        """Add what a clause of a MERGE leaves to the table: defaults, generated values, numbers."""
        action = clause.args["then"]
        if not info.columns or not isinstance(action, (exp.Insert, exp.Update)):
            return
        types = {f["name"].lower(): engine_type(f["type"]) for f in read_metadata(path).fields}
        inserts = isinstance(action, exp.Insert)
        if inserts:
            named = [column.name.lower() for column in action.this.expressions]
            column_rules.refuse_given(info, named)
            given = dict(zip(named, map(generate, action.expression.expressions), strict=True))
        else:
            given = {
                pair.this.name.lower(): generate(pair.expression) for pair in action.expressions
            }

        def value(column: str) -> str:
            absent = "NULL" if inserts else f"{quote(target)}.{quote(column)}"
            return given.get(column.lower(), absent)

        for column, rules in info.columns.items():
            if column in given or column not in types:
                continue
            if "generated" in rules:
                text = column_rules.with_values(rules["generated"], value)
            elif inserts and "identity" in rules:
                start, step = rules["identity"]["next"], rules["identity"]["step"]
                text = f"{start} + {step} * {quote(source)}.{_NUMBER}"
            elif inserts and "default" in rules:
                text = rules["default"]
            else:
                continue
            made = parse(f"SELECT CAST({text} AS {types[column]})").expressions[0]
            place = exp.column(column, quoted=True)
            if inserts:
                action.this.append("expressions", place)
                action.expression.append("expressions", made)
            else:
                action.append("expressions", exp.EQ(this=place, expression=made))

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
                with self._enforced(path):
                    self._engine.run(self._as_merge(tree, path, where, action, rewriter))
            else:
                with self._enforced(path):
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
