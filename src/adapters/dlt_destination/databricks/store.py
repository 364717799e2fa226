"""Delta tables of Databricks, by the statements of a SQL warehouse or of a Spark session.

A merge is one MERGE statement over its staged file, a full load one INSERT OVERWRITE or CREATE OR
REPLACE TABLE, so that a reader sees a table before or after. Sources: Databricks SQL reference,
"MERGE INTO", "INSERT", "CREATE TABLE [USING]", "ALTER TABLE"; "Use liquid clustering for tables".
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import re
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from adapters.dlt_destination.columns import (
    JSON,
    alters,
    plain,
    replaced_fields,
    row_fields,
    widens,
    with_columns,
)
from adapters.dlt_destination.databricks import variants
from adapters.dlt_destination.databricks.carry_over import what_others_put_on
from adapters.dlt_destination.databricks.engines import WarehouseEngine
from adapters.dlt_destination.databricks.errors import error_for
from adapters.dlt_destination.databricks.multi_table_transaction import (
    CATALOG_COMMITS,
    READ_FILES,
    MultiTableTransaction,
    lacks_catalog_commits,
    lacks_transactions,
)
from adapters.dlt_destination.databricks.refusals import refusal_of
from adapters.dlt_destination.databricks.retry import transient
from adapters.dlt_destination.databricks.run_log import WarehouseRunLog
from adapters.dlt_destination.databricks.sessions import Sessions
from adapters.dlt_destination.databricks.unity_names import (
    FORBIDDEN_BY_CATALOG,
    TablesByName,
    column_needs_mapping,
    table_name,
)
from adapters.dlt_destination.dlt.errors import root_cause
from adapters.dlt_destination.dlt.state_keeping import StateInTables
from adapters.dlt_destination.files.bounded_chunks import SCAN_BYTES, SCAN_ROWS, gathered
from adapters.dlt_destination.files.written_files import RowsInFiles
from adapters.dlt_destination.sql import history_sql, merge_sql
from adapters.dlt_destination.sql.dialect import SPARK
from adapters.dlt_destination.store import PROBE_COLUMN, probe_name
from adapters.dlt_destination.table_steps import (
    StagedCells,
    StagedHistory,
    StagedMerge,
    Step,
    staged_schema,
)
from cdc_core.values.history import LogAppend
from cdc_core.values.merges import (
    DELETED_AT_COLUMN,
    DELETED_AT_FIELD,
    UNREPRESENTABLE_SCHEMA,
    UNREPRESENTABLE_TABLE,
    KeyedMerge,
    MultisetMerge,
    Replacement,
)
from cdc_core.values.naming import FORBIDDEN_IN_TABLES, TableNaming
from cdc_core.values.runs import RUNS_TABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from adapters.dlt_destination.databricks.engines import Engine
    from adapters.dlt_destination.databricks.retry import RetryPolicy
    from adapters.dlt_destination.databricks.volume_staging import VolumeStaging
    from adapters.dlt_destination.run import Run
    from adapters.dlt_destination.store import Refusal
    from cdc_core.values.errors import CdcError
    from cdc_core.values.merges import Rename, TargetTable
    from cdc_core.values.runs import RunReceipt, RunTable
    from cdc_core.values.table_rules import ClusterBy

#: Rows per fetch: the connector combines them in memory, however large they are.
FETCH_ROWS = 2048

#: Tables that one statement counts: this bounds the length of the statement.
TABLES_PER_COUNT = 100

#: Limits for clustering columns: their number and their position.
CLUSTERED_COLUMNS = 4
STATISTICS_COLUMNS = 32

#: Up to this number of columns are moved one by one; beyond it the table is replaced.
MOVED_COLUMNS = 20

#: A table's columns with their SQL types, in order.
Described = list[tuple[str, str]]

_PROPERTIES = {"delta.enableDeletionVectors": "true"}
_COLUMN_MAPPING = {"delta.columnMapping.mode": "name"}
_TIMESTAMP_NTZ = {"delta.feature.timestampNtz": "supported"}
#: A table that is created with such a column has the feature. Source: Databricks documentation,
#: "Variant type support".
_VARIANT = {"delta.feature.variantType-preview": "supported"}

_NOT_FOUND = re.compile(r"\[(?:TABLE_OR_VIEW|SCHEMA)_NOT_FOUND\b")
_EXISTS = re.compile(r"\[TABLE_OR_VIEW_ALREADY_EXISTS\b")

_log = logging.getLogger(__name__)


class DatabricksStore(RowsInFiles):
    """`settings` are those of dlt's Databricks factory, including credentials. `pipeline` is the
    pipeline's name, which is part of the names of staged files."""

    kind = "databricks"
    section = "destination.databricks"
    naming = TableNaming(FORBIDDEN_IN_TABLES + FORBIDDEN_BY_CATALOG)

    def __init__(
        self,
        settings: Mapping[str, Any],
        pipeline: str,
        retry_policy: RetryPolicy,
        engine: Engine | None = None,
        *,
        in_one_transaction: bool = False,
        credentials: Callable[[], Mapping[str, Any]] | None = None,
    ) -> None:
        """`engine` is by default a warehouse. `credentials` reads dlt's keys again, if they can
        change during a run."""
        self._settings = settings
        self._pipeline = pipeline
        self._read_credentials = credentials
        self._logged_in = False
        self._engine = engine or WarehouseEngine()
        self.sessions = Sessions(retry_policy, self._credentials, self._engine.connect)
        #: The statements of a batch, if it is one transaction.
        self.block = MultiTableTransaction() if in_one_transaction else None
        #: Columns from `information_schema`, read once in this run, and from DESCRIBE since then.
        self._shown: TablesByName[pa.Schema] | None = None
        self._described: TablesByName[Described | None] = TablesByName()
        self._asking = threading.Lock()

    def factory(self, run: Run) -> Any:
        from adapters.dlt_destination.databricks.client import WarehouseClient
        from adapters.dlt_destination.dlt.load_jobs import state_factory

        self._engine.require_reachable(self._settings["credentials"])
        return state_factory(
            "databricks",
            self,
            run,
            (StateInTables, WarehouseClient),
            destination_name="databricks",
            **{**self._settings, "credentials": self.sessions.login().credentials},
        )

    def _credentials(self) -> Any:
        """Return the credentials read at the start of the run; for a later login, read them
        again."""
        if self._logged_in and self._read_credentials is not None:
            self._settings = {**self._settings, "credentials": dict(self._read_credentials())}
        self._logged_in = True
        return self._engine.credentials(self._settings["credentials"])

    def close(self) -> None:
        if self.block is not None:
            self.block.clear()
        self.sessions.close()
        self._shown = None
        self._described.clear()

    # Reading definitions and rows.

    def column_type(self, column: pa.Field, *, variant: bool = False) -> str:
        return "VARIANT" if variant else SPARK.sql_type(column.type)

    def columns(self, client: Any) -> TablesByName[pa.Schema]:
        """Return columns from `information_schema`, which lags behind definitions; tables that this
        run has defined or described are up to date."""
        found = TablesByName(self._showing(client))
        for table, described in self._described.items():
            if described is not None:
                found[table] = _schema(described)
            elif table in found:
                del found[table]
        return found

    def _showing(self, client: Any) -> TablesByName[pa.Schema]:
        with self._asking:
            if self._shown is None:
                self._shown = self._asked(client)
            return self._shown

    def _asked(self, client: Any) -> TablesByName[pa.Schema]:
        sql = client.sql_client
        catalog = sql.catalog_name()
        rows = sql.execute_sql(
            "SELECT c.table_name, c.column_name, c.full_data_type "
            f"FROM {catalog}.information_schema.columns AS c "
            f"JOIN {catalog}.information_schema.tables AS t "
            "ON t.table_schema = c.table_schema AND t.table_name = c.table_name "
            "WHERE c.table_schema = %s AND t.table_type IN ('MANAGED', 'EXTERNAL') "
            "ORDER BY c.table_name, c.ordinal_position",
            sql.dataset_name.lower(),
        )
        found: dict[str, list[tuple[str, str]]] = {}
        for table, column, sql_type in rows or ():
            if not table.startswith("_dlt"):
                found.setdefault(table, []).append((column, sql_type))
        return TablesByName({table: _schema(columns) for table, columns in found.items()})

    def current(self, client: Any, table: str) -> pa.Schema | None:
        """Use DESCRIBE, which is up to date at once; the result is cached until the next
        definition."""
        described = self._describe(client, table)
        return None if described is None else _schema(described)

    def _describe(self, client: Any, table: str) -> Described | None:
        """Return the columns and their SQL types."""
        if table not in self._described:
            try:
                rows = client.sql_client.execute_sql(f"DESCRIBE TABLE {_name(client, table)}") or ()
            except Exception as error:
                if not _NOT_FOUND.search(str(root_cause(error))):
                    raise
                self._described[table] = None
            else:
                # A heading precedes everything after the columns.
                columns = itertools.takewhile(lambda row: row[0] and row[0][0] != "#", rows)
                self._described[table] = [(column, kind) for column, kind, *_ in columns]
        return self._described[table]

    def _known(self, client: Any, table: str) -> pa.Schema | None:
        """Return a table's columns. They can be outdated if this run has defined nothing there."""
        if table in self._described:
            return self.current(client, table)
        return self._showing(client).get(table)

    def count(self, client: Any, tables: Sequence[str]) -> dict[str, int]:
        found: TablesByName[int] = TablesByName()
        for start in range(0, len(tables), TABLES_PER_COUNT):
            group = tables[start : start + TABLES_PER_COUNT]
            counts = " UNION ALL ".join(
                f"SELECT {number} AS number, COUNT(*) AS found FROM {_name(client, table)}"
                for number, table in enumerate(group)
            )
            for number, count in client.sql_client.execute_sql(counts):
                found[group[number]] = count
        return found

    def greatest(self, client: Any, table: str, column: str) -> int | None:
        query = f"SELECT MAX({SPARK.quote(column)}) FROM {_name(client, table)}"
        ((found,),) = client.sql_client.execute_sql(query)
        return None if found is None else int(found)

    def scan(self, client: Any, table: str, columns: Sequence[str]) -> Iterator[pa.Table]:
        held = self.current(client, table)
        assert held is not None
        texts = [name for name in columns if held.field(name).type == JSON]
        schema = pa.schema([variants.as_text(held.field(name)) for name in columns])
        names = ", ".join(variants.readable(held.field(name)) for name in columns)
        query = f"SELECT {names} FROM {_name(client, table)}"
        with client.sql_client.execute_query(query) as cursor:
            for chunk in gathered(cursor.iter_arrow(FETCH_ROWS), SCAN_ROWS, SCAN_BYTES):
                found = chunk.rename_columns(list(columns)).cast(schema)
                for name in texts:
                    place = schema.get_field_index(name)
                    found = found.set_column(
                        place, schema.field(place), variants.canonical(found[name])
                    )
                yield found

    # Definitions. Each statement can be sent twice.

    def create(
        self, client: Any, table: str, fields: Sequence[pa.Field], cluster_by: ClusterBy
    ) -> None:
        if not client.is_storage_initialized():
            client.initialize_storage()
        self._define(
            client,
            table,
            f"CREATE TABLE IF NOT EXISTS {_name(client, table)} ({_definitions(fields)}) "
            f"{self._layout(fields, cluster_by)}",
        )

    def add_columns(self, client: Any, table: str, fields: Sequence[pa.Field]) -> None:
        """Add columns before those that this library adds, or at their own place among these."""
        self._enable(client, table, fields)
        held = self.current(client, table)
        order = with_columns([] if held is None else held.names, fields)
        names = [field.name for field in fields]

        def place(name: str) -> str:
            position = order.index(name)
            return f"AFTER {SPARK.quote(order[position - 1])}" if position else "FIRST"

        added = ", ".join(
            f"{SPARK.quote(field.name)} {SPARK.sql_type(field.type)} {place(field.name)}"
            for field in fields
        )
        self._alter(
            client,
            table,
            f"ADD COLUMNS ({added})",
            lambda held: set(names) <= set(held.names),
        )

    def widen(self, client: Any, table: str, fields: Sequence[pa.Field]) -> None:
        self._enable(client, table, fields, {"delta.enableTypeWidening": "true"})
        for field in fields:
            column = f"{SPARK.quote(field.name)} TYPE {SPARK.sql_type(field.type)}"
            self._define(client, table, f"ALTER TABLE {_name(client, table)} ALTER COLUMN {column}")

    def rename_column(self, client: Any, table: str, old: str, new: str) -> None:
        self._set_properties(client, table, _COLUMN_MAPPING)
        names = f"{SPARK.quote(old)} TO {SPARK.quote(new)}"
        self._alter(
            client,
            table,
            f"RENAME COLUMN {names}",
            lambda held: new in held.names,
        )

    def rename_table(self, client: Any, old: str, new: str) -> None:
        self._described.pop(table_name(new), None)
        try:
            statement = f"ALTER TABLE {_name(client, old)} RENAME TO {_name(client, new)}"
            self._define(client, old, statement)
        except Exception:
            if self.current(client, old) is not None or self.current(client, new) is None:
                raise

    def rename_cells(self, client: Any, rename: Rename) -> None:
        cells = _name(client, UNREPRESENTABLE_TABLE)
        self._run(client, merge_sql.renaming_cells(SPARK, rename, cells))

    def forget_cells(self, client: Any, table: str) -> None:
        cells = _name(client, UNREPRESENTABLE_TABLE)
        self._run(client, f"DELETE FROM {cells} WHERE {merge_sql.cells_of(SPARK, table)}")

    def _enable(
        self,
        client: Any,
        table: str,
        fields: Iterable[pa.Field],
        more: Mapping[str, str] | None = None,
    ) -> None:
        """Set the properties that such columns need; only new tables have them already."""
        fields = list(fields)
        properties = {**(more or {}), **_features(fields)}
        if any(field.type == JSON for field in fields):
            properties |= _VARIANT
        if properties:
            self._set_properties(client, table, properties)

    def _layout(
        self,
        fields: Sequence[pa.Field],
        cluster_by: ClusterBy,
        more: Mapping[str, str] | None = None,
        comment: str = "",
    ) -> str:
        """Return the clauses of a new table's definition: clustering, comment, properties."""
        properties = {**(more or {}), **_PROPERTIES, **_features(fields)}
        if self.block is not None:
            properties |= CATALOG_COMMITS
        cluster = _clustering(fields, cluster_by)
        said = f"COMMENT {SPARK.literal(comment)} " if comment else ""
        return f"{cluster}{said}TBLPROPERTIES ({_pairs(properties)})"

    def _set_properties(self, client: Any, table: str, properties: Mapping[str, str]) -> None:
        statement = f"ALTER TABLE {_name(client, table)} SET TBLPROPERTIES ({_pairs(properties)})"
        self._define(client, table, statement)

    def _alter(
        self, client: Any, table: str, change: str, is_done: Callable[[pa.Schema], bool]
    ) -> None:
        """Alter the table. A retry after success fails; `is_done` detects that case."""
        try:
            self._define(client, table, f"ALTER TABLE {_name(client, table)} {change}")
        except Exception:
            held = self.current(client, table)
            if held is None or not is_done(held):
                raise

    def _define(self, client: Any, table: str, statement: str) -> None:
        try:
            self._run(client, statement)
        finally:
            self._described.pop(table_name(table), None)

    # Rows.

    def durable_files(self, client: Any) -> dict[str, list[str]]:
        return self._volume(client, staging=False).stored()

    def store_files(self, client: Any, files: Sequence[Path]) -> None:
        self._volume(client, staging=False).store(files)

    def remove_files(self, client: Any, names: Collection[str]) -> None:
        self._volume(client, staging=False).forget(names)

    def sweep(self, client: Any, needed: Collection[str]) -> None:
        for volume in self._volumes(client):
            volume.sweep(needed)

    def apply(self, client: Any, table: str, steps: Sequence[Step]) -> None:
        for step in steps:
            files: Sequence[Path]
            stored: Sequence[str]
            if isinstance(step, Replacement):
                files, stored = self.files_of(client, step.written)
            else:
                files, stored = step.paths, ()
            volume = self._volume(client, staging=not isinstance(step, Replacement))
            if not (files or stored):
                self._apply(client, table, step, "")
            elif self.block is None:
                with volume.staged(files, stored=stored) as rows:
                    self._apply(client, table, step, rows)
            else:
                rows = self.block.enter(volume.staged(files, READ_FILES, stored))
                self._apply(client, table, step, rows)

    def commit(self, client: Any) -> None:
        """Run the batch's transaction. If its tables lack the property for transactions, set it
        first."""
        assert self.block is not None
        statement, values = self.block.text()
        try:
            client.sql_client.execute_sql(statement, *values)
        except Exception as error:
            if not lacks_catalog_commits(error):
                raise
            own = (client.schema.state_table_name, client.schema.loads_table_name)
            for table in (*sorted(self.block.tables), *own):
                self._set_properties(client, table, CATALOG_COMMITS)
            client.sql_client.execute_sql(statement, *values)
        self.block.clear()

    def _apply(self, client: Any, table: str, step: Step, files: str) -> None:
        match step:
            case Replacement():
                staged = variants.comparable(
                    _typed(row_fields(step.target), files), row_fields(step.target), step.target
                )
                self._difference(client, step, staged)
                self._replace(client, table, step, files)
            case StagedHistory(part, paths):
                staged = _typed(staged_schema(part), files) if paths else ""
                looks_up = isinstance(part, LogAppend) and part.unchanged_columns
                held = self.current(client, table) if looks_up else None
                columns = [] if held is None else held.names
                name = self._reading(client, part.table)
                merge = history_sql.step_merge(SPARK, part, staged, name, columns)
                self._write_history(client, merge)
            case StagedMerge(KeyedMerge() as merge):
                staged = variants.comparable(
                    _typed(merge.rows.schema, files), merge.rows.schema, merge.target
                )
                self._difference(client, merge, staged)
                self._write(client, table, self._merge(client, table, step, files))
            case _:
                self._write(client, table, self._merge(client, table, step, files))

    def _difference(self, client: Any, step: Replacement | KeyedMerge, rows: str) -> None:
        relation = self._reading(client, step.target)
        for merge in history_sql.difference_merges(SPARK, step, rows, relation):
            self._write_history(client, merge)

    def _write_history(self, client: Any, merge: history_sql.HistoryMerge) -> None:
        target = _name(client, merge.name)
        self._write(client, merge.name, merge.rules.statement(SPARK, merge.source, target))

    def _write(self, client: Any, table: str, statement: str) -> None:
        """Run the statement now, or add it to the batch's transaction."""
        if self.block is None:
            self._run(client, statement)
        else:
            self.block.add(statement, table=table)

    def _reading(self, client: Any, target: TargetTable) -> Callable[[str], str]:
        """Return what gives the relations to read a table or its history from."""
        return partial(self._relation if target.variants else _name, client)

    def _relation(self, client: Any, table: str) -> str:
        """Return a table to read from, with JSON as text: a VARIANT cannot be compared."""
        held = self.current(client, table)
        if held is None or JSON not in held.types:
            return _name(client, table)
        return f"(SELECT {', '.join(map(variants.readable, held))} FROM {_name(client, table)})"

    def _merge(self, client: Any, table: str, step: StagedMerge | StagedCells, files: str) -> str:
        target = _name(client, table)
        read = target
        if isinstance(step, StagedMerge):
            read = self._reading(client, step.merge.target)(table)
        match step:
            case StagedMerge(KeyedMerge() as merge):
                staged = _typed(merge.rows.schema, files)
                rules = merge_sql.keyed_rules(SPARK, merge)
                source = merge_sql.keyed_source(SPARK, merge, staged, read)
            case StagedMerge(MultisetMerge() as merge):
                staged = variants.comparable(
                    _typed(merge.rows.schema, files), merge.rows.schema, merge.target
                )
                rules = merge_sql.multiset_rules(SPARK, merge)
                source = merge_sql.multiset_source(SPARK, merge, staged, read)
            case StagedCells():
                rules = merge_sql.cells_rules(SPARK)
                source = merge_sql.cells_source(SPARK, _typed(UNREPRESENTABLE_SCHEMA, files))
        return rules.statement(SPARK, source, target)

    # Replacing a whole table.

    def make_fit(self, client: Any, replacement: Replacement) -> None:
        held = self._known(client, replacement.target.name)
        if held is None or _fits(held, replacement):
            return  # a table that is not listed yet is handled when it is created
        self._made_to_fit(client, replacement)

    def _replace(self, client: Any, table: str, step: Replacement, files: str) -> None:
        """Overwrite the rows. The table keeps everything that users added; their columns get their
        defaults. A table that cannot be altered to fit is replaced as a whole."""
        target, new = _name(client, table), replaced_fields(step)
        names = ", ".join(SPARK.quote(field.name) for field in new)
        rows = f"SELECT * FROM {_typed(row_fields(step.target), files)} AS f"
        held = self._known(client, table)
        if step.soft_deletes is not None:
            held = self.current(client, table)
            texts = held and pa.schema([variants.as_text(field) for field in held])
            rows = _with_kept(step, rows, self._relation(client, table), texts)
        if step.target.variants:
            parsed = variants.parsed(new, strict=step.soft_deletes is None)
            rows = f"SELECT {parsed} FROM ({rows}) AS p"
        if held is None:
            if self._made(client, table, step, rows):
                return
            held = self.current(client, table)
            assert held is not None
        if not (_fits(held, step) or self._made_to_fit(client, step)):
            self._replace_whole(client, table, step, rows)
            return
        self._write(client, table, f"INSERT OVERWRITE {target} ({names}) {rows}")
        surplus = self._surplus(client, table, step)
        self._cluster(client, table, step, surplus)
        for name in surplus:
            self._set_properties(client, table, _COLUMN_MAPPING)
            self._alter(
                client,
                table,
                f"DROP COLUMN {SPARK.quote(name)}",
                lambda left, name=name: name not in left.names,  # type: ignore[misc]
            )

    def _cluster(
        self, client: Any, table: str, step: Replacement, surplus: Collection[str]
    ) -> None:
        """Cluster the table as its rule says. Without a rule it keeps the clustering that somebody
        may have chosen, unless that needs a surplus column, which could not be dropped then."""
        if not (step.target.cluster_by or self._clustered(client, table, surplus)):
            return
        fields = replaced_fields(step)
        layout = _clustering(fields, step.target.cluster_by or step.key) or "CLUSTER BY NONE"
        self._define(client, table, f"ALTER TABLE {_name(client, table)} {layout}")

    def _clustered(self, client: Any, table: str, columns: Collection[str]) -> set[str]:
        """Return those of the columns by which the table is clustered."""
        if not columns:
            return set()
        rows = client.sql_client.execute_sql(f"DESCRIBE TABLE {_name(client, table)}") or ()
        behind = itertools.dropwhile(lambda row: row[0] != "# Clustering Information", rows)
        return {name for name, *_ in behind} & {*columns}

    def _made(self, client: Any, table: str, step: Replacement, rows: str) -> bool:
        """Create a table that is not listed, with its rows if that can be one statement. Returns
        False if it exists: listed late, or created by a statement whose answer was lost."""
        target, fields = _name(client, table), replaced_fields(step)
        layout = self._layout(fields, step.target.cluster_by or step.key)
        in_block = self.block is not None
        content = f"({_definitions(fields)}) {layout}" if in_block else f"{layout} AS {rows}"
        try:
            self._define(client, table, f"CREATE TABLE {target} {content}")
        except Exception as error:
            if not _EXISTS.search(str(root_cause(error))):
                raise
            return False
        self._described[table] = [(f.name, SPARK.sql_type(f.type)) for f in fields]
        return not in_block

    def _made_to_fit(self, client: Any, step: Replacement) -> bool:
        """Add, widen and move columns until the table fits; False if that is not enough."""
        table = step.target.name
        old = self.current(client, table)
        if old is None:
            return False
        held = {f.name: plain(f.type) for f in old}
        fields = replaced_fields(step)
        missing = [field for field in fields if field.name not in held]
        narrow = [f for f in fields if f.name in held and not _holds(held[f.name], plain(f.type))]
        clashes = {name.lower() for name in old.names} & {field.name.lower() for field in missing}
        if clashes or (step.gone is None and not all(map(step.has, old.names))):
            return False
        if not all(alters(held[field.name], plain(field.type)) for field in narrow):
            return False
        moves = list(_moves(old.names, [f.name for f in fields if f.name in held]))
        if len(moves) > MOVED_COLUMNS:
            return False
        for name, before in moves:
            place = f"AFTER {SPARK.quote(before)}" if before else "FIRST"
            column = f"ALTER COLUMN {SPARK.quote(name)} {place}"
            self._define(client, table, f"ALTER TABLE {_name(client, table)} {column}")
        if missing:
            self.add_columns(client, table, missing)
        if narrow:
            self.widen(client, table, narrow)
        return True

    def _surplus(self, client: Any, table: str, step: Replacement) -> list[str]:
        """Return our own columns that the table must lose."""
        if not step.gone:
            return []
        held = self._known(client, table)
        names = [] if held is None else held.names
        return [name for name in names if name in step.gone and not step.has(name)]

    def _replace_whole(self, client: Any, table: str, step: Replacement, rows: str) -> None:
        described = self._describe(client, table)
        assert described is not None
        carried = what_others_put_on(client, table, described, step.has, step.keeps)
        if carried.columns:
            rows = f"SELECT *, {', '.join(carried.columns)} FROM ({rows}) AS r"
        cluster_by = step.target.cluster_by or step.key
        layout = self._layout(
            replaced_fields(step), cluster_by, carried.properties, carried.comment
        )
        name = _name(client, table)
        self._define(client, table, f"CREATE OR REPLACE TABLE {name} {layout} AS {rows}")
        for what, change in carried.alterations:
            try:
                self._define(client, table, f"ALTER TABLE {name} {change}")
            except Exception as error:
                if transient(root_cause(error)):
                    raise
                carried.lost.append(what)
        if carried.lost:
            _log.warning(
                "table %s was replaced, since a column's type changed; what others had put on it "
                "and could not be kept: %s",
                table,
                ", ".join(carried.lost),
            )

    # Receipts of runs.

    @property
    def statements(self) -> int:
        return self.sessions.sent

    def write_receipt(
        self,
        client: Any,
        receipt: RunReceipt,
        tables: Sequence[RunTable],
        forget_before: datetime | None,
    ) -> None:
        missing = self._shown is not None and RUNS_TABLE not in self._shown
        WarehouseRunLog(client).write_receipt(receipt, tables, forget_before, missing=missing)

    def receipts(self, client: Any, limit: int) -> Sequence[RunReceipt]:
        return WarehouseRunLog(client).receipts(limit)

    # Write test, datasets, volumes, errors.

    def try_writing(self, client: Any, file: Path) -> None:
        """Uses both volumes: snapshots use one, batches of changes the other."""
        there, volumes = self._datasets(client), self.volumes(client).keys()
        table = _name(client, probe_name())
        try:
            if not client.is_storage_initialized():
                client.initialize_storage()
            self._run(client, f"CREATE TABLE {table} ({PROBE_COLUMN} BIGINT)")
            for volume in self._volumes(client):
                with volume.staged([file]) as rows:
                    self._run(
                        client,
                        f"MERGE INTO {table} AS t USING (SELECT {PROBE_COLUMN} FROM {rows}) AS s "
                        f"ON t.{PROBE_COLUMN} = s.{PROBE_COLUMN} "
                        f"WHEN NOT MATCHED THEN INSERT ({PROBE_COLUMN}) VALUES (s.{PROBE_COLUMN})",
                    )
        except BaseException:
            with contextlib.suppress(Exception):  # the first error is the cause
                self._drop_what_was_made(client, table, there, volumes)
            raise
        self._drop_what_was_made(client, table, there, volumes)

    def _drop_what_was_made(
        self, client: Any, table: str, there: Collection[str], volumes: Collection[str]
    ) -> None:
        """Drop the table, and the volumes and datasets that did not exist before."""
        made = [name for name in self._datasets(client) if name not in there]
        if client.sql_client.dataset_name.lower() not in made:
            self._run(client, f"DROP TABLE IF EXISTS {table}")
        for volume in self._volumes(client):
            if volume.dataset not in made and volume.name not in volumes:
                volume.drop()
        for dataset in made:
            self._drop_dataset(client, dataset)

    def _datasets(self, client: Any) -> list[str]:
        """Return which of the dataset and its staging dataset exist."""
        sql = client.sql_client
        rows = sql.execute_sql(
            f"SELECT schema_name FROM {sql.catalog_name()}.information_schema.schemata "
            "WHERE schema_name IN (%s, %s) ORDER BY schema_name",
            sql.dataset_name.lower(),
            sql.staging_dataset_name.lower(),
        )
        return [name for (name,) in rows or ()]

    def _drop_dataset(self, client: Any, dataset: str) -> None:
        name = f"{client.sql_client.catalog_name()}.{SPARK.quote(dataset)}"
        self._run(client, f"DROP SCHEMA IF EXISTS {name} CASCADE")

    def drop(self, client: Any) -> list[str]:
        there = self._datasets(client)
        for dataset in there:
            self._drop_dataset(client, dataset)
        return [f"dataset {dataset!r} with its volumes" for dataset in there]

    def volumes(self, client: Any) -> Mapping[str, Sequence[str]]:
        found = {volume.name: volume.files() for volume in self._volumes(client)}
        return {name: files for name, files in found.items() if files is not None}

    def refusal(self, error: BaseException) -> Refusal | None:
        return refusal_of(error)

    def failure(self, error: BaseException, where: str) -> CdcError:
        lacking = None if self.block is None else lacks_transactions(root_cause(error))
        return lacking or error_for(error, where)

    def _volume(self, client: Any, *, staging: bool) -> VolumeStaging:
        from adapters.dlt_destination.databricks.volume_staging import VolumeStaging

        return VolumeStaging(client, self.sessions, self._pipeline, staging=staging)

    def _volumes(self, client: Any) -> list[VolumeStaging]:
        both = (self._volume(client, staging=staging) for staging in (False, True))
        return list({volume.name: volume for volume in both}.values())

    def _run(self, client: Any, statement: str) -> None:
        client.sql_client.execute_sql(statement)


def _name(client: Any, table: str) -> str:
    return f"{client.sql_client.fully_qualified_dataset_name()}.{SPARK.quote(table_name(table))}"


def _definitions(fields: Iterable[pa.Field]) -> str:
    return ", ".join(f"{SPARK.quote(f.name)} {SPARK.sql_type(f.type)}" for f in fields)


def _schema(columns: Described) -> pa.Schema:
    """Return the Arrow schema. A column whose type this library never writes gets the type
    `null`."""
    return pa.schema(
        [pa.field(name, SPARK.arrow_type(kind) or pa.null()) for name, kind in columns]
    )


def _features(fields: Iterable[pa.Field]) -> dict[str, str]:
    """Return the properties that a table needs for such columns."""
    found: dict[str, str] = {}
    for field in fields:
        if column_needs_mapping(field.name):
            found |= _COLUMN_MAPPING
        if field.type == pa.timestamp("us"):
            found |= _TIMESTAMP_NTZ
    return found


def _holds(held: pa.DataType, wanted: pa.DataType) -> bool:
    """Whether a column can stay as it is. A wider integer or float is sufficient."""
    if held == wanted:
        return True
    return not pa.types.is_decimal(held) and widens(wanted, held)


def _fits(held: pa.Schema, step: Replacement) -> bool:
    """Whether a table can be overwritten without changing its definition."""
    fields = {field.name: plain(field.type) for field in replaced_fields(step)}
    names = [name for name in held.names if name in fields]
    return (
        names == list(fields)
        and all(_holds(plain(held.field(name).type), kind) for name, kind in fields.items())
        and (step.gone is not None or len(names) == len(held))
    )


def _moves(held: Sequence[str], wanted: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield the columns to move, each with the column that it follows then (empty: it is first),
    until they are in the wanted order."""
    order = [name for name in held if name in wanted]
    for place, name in enumerate(wanted):
        if order[place] != name:
            order.remove(name)
            order.insert(place, name)
            yield name, wanted[place - 1] if place else ""


def _typed(fields: Iterable[pa.Field], files: str) -> str:
    """Return the staged rows, cast to the intended types."""
    columns = ", ".join(
        f"CAST({SPARK.quote(f.name)} AS {SPARK.sql_type(f.type)}) AS {SPARK.quote(f.name)}"
        for f in fields
    )
    return f"(SELECT {columns} FROM {files})"


def _clustering(fields: Sequence[pa.Field], cluster_by: ClusterBy) -> str:
    """Return the clause that clusters a table by these columns; empty if none can be used."""
    if cluster_by == "auto":
        return "CLUSTER BY AUTO "
    by_name = {field.name: field.type for field in fields[:STATISTICS_COLUMNS]}
    clustered = [name for name in cluster_by if name in by_name and _clusters(by_name[name])]
    columns = ", ".join(SPARK.quote(name) for name in clustered[:CLUSTERED_COLUMNS])
    return f"CLUSTER BY ({columns}) " if columns else ""


def _with_kept(step: Replacement, rows: str, target: str, held: pa.Schema | None) -> str:
    """Return the new rows, and those that a replacement with soft deletes keeps."""
    kind = SPARK.sql_type(DELETED_AT_FIELD.type)
    rows = f"SELECT f.*, CAST(NULL AS {kind}) AS {DELETED_AT_COLUMN} FROM ({rows}) AS f"
    if held is None or not step.keeps_rows:
        return rows
    values = merge_sql.kept_values(SPARK, step, held)
    kept = ", ".join(f"{value} AS {SPARK.quote(name)}" for name, value in values.items())
    source = merge_sql.kept_from(SPARK, step, held, target, f"({rows})")
    return f"{rows} UNION ALL SELECT {kept} {source}"


def _clusters(arrow_type: pa.DataType) -> bool:
    """Whether Delta keeps the minimum and maximum of such a column."""
    if arrow_type == JSON or pa.types.is_boolean(arrow_type) or pa.types.is_list(arrow_type):
        return False
    return SPARK.sql_type(arrow_type) != "BINARY"


def _pairs(properties: Mapping[str, str]) -> str:
    return ", ".join(f"'{key}' = '{value}'" for key, value in properties.items())
