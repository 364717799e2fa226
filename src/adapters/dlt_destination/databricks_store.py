"""Delta tables of a Databricks SQL warehouse.

A merge is one MERGE statement over its staged file, a full load one INSERT OVERWRITE or CREATE OR
REPLACE TABLE, so that a reader sees a table before or after. Sources: Databricks SQL reference,
"MERGE INTO", "INSERT", "CREATE TABLE [USING]", "ALTER TABLE"; "Use liquid clustering for tables".
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from adapters.dlt_destination import kept_files, merge_sql
from adapters.dlt_destination.atomic_block import (
    CATALOG_COMMITS,
    READ_FILES,
    AtomicBlock,
    lacks_catalog_commits,
    lacks_transactions,
)
from adapters.dlt_destination.columns import all_fields, own_columns, plain, widens
from adapters.dlt_destination.dialect import SPARK
from adapters.dlt_destination.failures import root_cause
from adapters.dlt_destination.pieces import SCAN_BYTES, SCAN_ROWS, gathered
from adapters.dlt_destination.plan import (
    Run,
    StagedCells,
    StagedMerge,
    StagedReplacement,
    Step,
)
from adapters.dlt_destination.probe import PROBE_COLUMN, probe_name
from adapters.dlt_destination.state_keeping import StateInTables
from adapters.dlt_destination.unity_names import (
    FORBIDDEN_BY_CATALOG,
    TablesByName,
    column_needs_mapping,
    table_name,
)
from adapters.dlt_destination.warehouse_errors import error_for
from adapters.dlt_destination.warehouse_sessions import Sessions
from cdc_core.naming import FORBIDDEN_IN_TABLES, TableNaming
from cdc_core.staging import (
    UNREPRESENTABLE_SCHEMA,
    UNREPRESENTABLE_TABLE,
    KeyedMerge,
    MultisetMerge,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from adapters.dlt_destination.transient import Patience
    from adapters.dlt_destination.volume_staging import VolumeStaging
    from cdc_core.errors import CdcError
    from cdc_core.staging import SchemaStep, TargetTable

#: Rows asked of the connector at a time: it puts them together, however large they are.
FETCH_ROWS = 2048

#: Tables that one statement counts: none grows beyond what a warehouse takes.
TABLES_PER_COUNT = 100

#: Columns that a table may be clustered by: their number, their place, and what they may not be.
CLUSTERED_COLUMNS = 4
STATISTICS_COLUMNS = 32

_PROPERTIES = {"delta.enableDeletionVectors": "true"}
_COLUMN_MAPPING = {"delta.columnMapping.mode": "name"}


class DatabricksStore:
    """`settings` are those of dlt's Databricks factory, its credentials among them; `pipeline`
    is the pipeline's name, which staged files carry."""

    kind = "databricks"
    section = "destination.databricks"
    naming = TableNaming(FORBIDDEN_IN_TABLES + FORBIDDEN_BY_CATALOG)

    def __init__(
        self,
        settings: Mapping[str, Any],
        pipeline: str,
        patience: Patience,
        *,
        in_one_transaction: bool = False,
        credentials: Callable[[], Mapping[str, Any]] | None = None,
    ) -> None:
        """`credentials` reads dlt's keys again, where they may change during a run."""
        self._settings = settings
        self._pipeline = pipeline
        self._read_credentials = credentials
        self._logged_in = False
        self.sessions = Sessions(patience, self._credentials)
        #: What a batch does, where it is one transaction.
        self.block = AtomicBlock() if in_one_transaction else None
        self._columns: TablesByName[pa.Schema] | None = None
        self._changed: set[str] = set()
        self._asking = threading.Lock()

    def factory(self, run: Run) -> Any:
        from dlt.destinations import databricks

        from adapters.dlt_destination.jobs import state_factory
        from adapters.dlt_destination.reach import reach_warehouse
        from adapters.dlt_destination.warehouse_client import WarehouseClient

        reach_warehouse(self._settings["credentials"])
        return state_factory(
            databricks,
            self,
            run,
            (StateInTables, WarehouseClient),
            destination_name="databricks",
            **{**self._settings, "credentials": self.sessions.login().credentials},
        )

    def _credentials(self) -> Any:
        """As the settings were read when the run began; for another login as they are then."""
        from adapters.dlt_destination.warehouse_credentials import WarehouseCredentials

        if self._logged_in and self._read_credentials is not None:
            self._settings = {**self._settings, "credentials": dict(self._read_credentials())}
        self._logged_in = True
        return WarehouseCredentials.of(self._settings["credentials"])

    def close(self) -> None:
        if self.block is not None:
            self.block.clear()
        self.sessions.close()
        self._columns = None

    # What there is.

    def columns(self, client: Any) -> dict[str, pa.Schema]:
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
        fields: dict[str, list[pa.Field]] = {}
        for table, column, sql_type in rows or ():
            if not table.startswith("_dlt"):
                arrow_type = SPARK.arrow_type(sql_type) or pa.null()
                fields.setdefault(table, []).append(pa.field(column, arrow_type))
        found = {table: pa.schema(columns) for table, columns in fields.items()}
        self._columns = TablesByName(found)
        return TablesByName(found)

    def _known_columns(self, client: Any, table: str) -> pa.Schema:
        """As `columns`, asked again only for a table whose definition changed: all changes are
        ours, and one thread at a time has to do with a table."""
        name = table_name(table)
        with self._asking:
            if self._columns is None or name in self._changed:
                self._changed.clear()
                self.columns(client)
            assert self._columns is not None
            return self._columns.get(table) or pa.schema([])

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

    def scan(self, client: Any, table: str, columns: Sequence[str]) -> Iterator[pa.Table]:
        held = self._known_columns(client, table)
        schema = pa.schema([held.field(name) for name in columns])
        names = ", ".join(SPARK.quote(name) for name in columns)
        query = f"SELECT {names} FROM {_name(client, table)}"
        with client.sql_client.execute_query(query) as cursor:
            for piece in gathered(cursor.iter_arrow(FETCH_ROWS), SCAN_ROWS, SCAN_BYTES):
                yield piece.rename_columns(list(columns)).cast(schema)

    # Definitions. Each statement may be sent twice.

    def create(self, client: Any, target: TargetTable, key: Sequence[str]) -> None:
        fields = all_fields(target)
        definitions = ", ".join(f"{SPARK.quote(f.name)} {SPARK.sql_type(f.type)}" for f in fields)
        if not client.is_storage_initialized():
            client.initialize_storage()
        self._define(
            client,
            target.name,
            f"CREATE TABLE IF NOT EXISTS {_name(client, target.name)} ({definitions}) "
            f"{self._layout(fields, key)}",
        )

    def add_columns(self, client: Any, table: str, fields: Sequence[pa.Field]) -> None:
        """Behind the table's own columns, before the metadata columns."""
        self._map_names(client, table, [field.name for field in fields])
        before = own_columns(self._known_columns(client, table).names)
        names = [field.name for field in fields]
        places = [f"AFTER {SPARK.quote(name)}" for name in (*before[-1:], *names)]
        if not before:
            places.insert(0, "FIRST")
        added = ", ".join(
            f"{SPARK.quote(field.name)} {SPARK.sql_type(field.type)} {place}"
            for field, place in zip(fields, places, strict=False)
        )
        self._alter(
            client,
            table,
            f"ADD COLUMNS ({added})",
            lambda: set(names) <= set(self.columns(client)[table].names),
        )

    def widen(self, client: Any, table: str, fields: Sequence[pa.Field]) -> None:
        self._set_properties(client, table, {"delta.enableTypeWidening": "true"})
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
            lambda: new in self.columns(client)[table].names,
        )

    def rename_table(self, client: Any, old: str, new: str) -> None:
        self._changed.add(table_name(new))
        self._alter(
            client,
            old,
            f"RENAME TO {_name(client, new)}",
            lambda: new in self.columns(client),
        )

    def rename_cells(self, client: Any, rename: SchemaStep) -> None:
        cells = _name(client, UNREPRESENTABLE_TABLE)
        self._run(client, merge_sql.renaming_cells(SPARK, rename, cells))

    def _map_names(self, client: Any, table: str, names: Iterable[str]) -> None:
        if any(column_needs_mapping(name) for name in names):
            self._set_properties(client, table, _COLUMN_MAPPING)

    def _layout(self, fields: Sequence[pa.Field], key: Sequence[str]) -> str:
        """How a new table is laid out, as the clauses of its definition."""
        properties = dict(_PROPERTIES)
        if any(column_needs_mapping(field.name) for field in fields):
            properties |= _COLUMN_MAPPING
        if self.block is not None:
            properties |= CATALOG_COMMITS
        by_name = {field.name: field.type for field in fields[:STATISTICS_COLUMNS]}
        clustered = [name for name in key if name in by_name and _clusters(by_name[name])]
        columns = ", ".join(SPARK.quote(name) for name in clustered[:CLUSTERED_COLUMNS])
        cluster = f"CLUSTER BY ({columns}) " if columns else ""
        return f"{cluster}TBLPROPERTIES ({_pairs(properties)})"

    def _set_properties(self, client: Any, table: str, properties: Mapping[str, str]) -> None:
        statement = f"ALTER TABLE {_name(client, table)} SET TBLPROPERTIES ({_pairs(properties)})"
        self._define(client, table, statement)

    def _alter(self, client: Any, table: str, change: str, is_done: Callable[[], bool]) -> None:
        """A change that fails when it is sent again after it was done."""
        try:
            self._define(client, table, f"ALTER TABLE {_name(client, table)} {change}")
        except Exception:
            if not is_done():
                raise

    def _define(self, client: Any, table: str, statement: str) -> None:
        try:
            self._run(client, statement)
        finally:
            self._changed.add(table_name(table))

    # Rows.

    def fill(self, client: Any, replacement: Any, rows: Any) -> bool:  # noqa: ARG002 - takes files
        return False

    def keep(self, client: Any, name: str, files: Sequence[Path]) -> None:
        self.sessions.once("swept volumes", lambda: self._sweep(client))
        self._volume(client, staging=False).keep(files, kept_files.stems(name, len(files)))

    def kept(self, client: Any) -> Mapping[str, Sequence[str]]:
        return kept_files.by_name(self._volume(client, staging=False).kept())

    def forget_kept(self, client: Any) -> None:
        self._volume(client, staging=False).forget_kept()

    def apply(self, client: Any, table: str, steps: Sequence[Step]) -> None:
        self.sessions.once("swept volumes", lambda: self._sweep(client))
        for step in steps:
            volume = self._volume(client, staging=not isinstance(step, StagedReplacement))
            kept = step.kept if isinstance(step, StagedReplacement) else ()
            if self.block is None:
                with volume.staged(step.paths, kept=kept) as files:
                    self._run(client, self._statement(client, table, step, files))
                continue
            files = self.block.enter(volume.staged(step.paths, READ_FILES, kept))
            statement = self._statement(client, table, step, files)
            if statement.startswith("CREATE"):  # which no transaction can hold
                self._run(client, statement)
            else:
                self.block.add(statement, table=table)

    def commit(self, client: Any) -> None:
        """Run the batch's transaction; every table in it may have to be told of transactions."""
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

    def _statement(self, client: Any, table: str, step: Step, files: str) -> str:
        if isinstance(step, StagedReplacement):
            return self._replacement(client, table, step, files)
        return self._merge(_name(client, table), step, files)

    def _merge(self, target: str, step: StagedMerge | StagedCells, files: str) -> str:
        match step:
            case StagedMerge(KeyedMerge() as merge):
                staged = _typed(merge.rows.schema, files)
                rules = merge_sql.keyed_rules(SPARK, merge)
                source = merge_sql.keyed_source(SPARK, merge, staged, target)
            case StagedMerge(MultisetMerge() as merge):
                staged = _typed(merge.rows.schema, files)
                rules = merge_sql.multiset_rules(SPARK, merge)
                source = merge_sql.multiset_source(SPARK, merge, staged, target)
            case StagedCells():
                rules = merge_sql.cells_rules(SPARK)
                source = merge_sql.cells_source(SPARK, _typed(UNREPRESENTABLE_SCHEMA, files))
        return rules.statement(SPARK, source, target)

    def _replacement(self, client: Any, table: str, step: StagedReplacement, files: str) -> str:
        """The statement for the new content; columns that only the old table has stay, empty.

        A table whose columns are the same, or new, or wider, is overwritten, which keeps all that
        others set on it; one whose columns changed types or places is replaced as a whole.
        """
        target = _name(client, table)
        new = all_fields(step.target)
        old = self._known_columns(client, table)
        kept = [f for f in old if step.stays(f.name) and not pa.types.is_null(f.type)]
        fields = [*new, *kept]
        values = [SPARK.quote(f.name) for f in new]
        values += [f"CAST(NULL AS {SPARK.sql_type(f.type)}) AS {SPARK.quote(f.name)}" for f in kept]
        rows = f"SELECT {', '.join(values)} FROM {_typed(new, files)} AS f"
        if not len(old) and self.block is not None:
            self.create(client, step.target, step.key)
        elif not self._made_to_fit(client, table, old, step, fields):
            self._changed.add(table_name(table))
            layout = self._layout(fields, step.key)
            return f"CREATE OR REPLACE TABLE {target} {layout} AS {rows}"
        columns = ", ".join(SPARK.quote(field.name) for field in fields)
        return f"INSERT OVERWRITE {target} ({columns}) {rows}"

    def _made_to_fit(
        self,
        client: Any,
        table: str,
        old: pa.Schema,
        step: StagedReplacement,
        fields: Sequence[pa.Field],
    ) -> bool:
        """Add and widen columns until the table has the fields; False where that is not enough."""
        held = {f.name: plain(f.type) for f in old if not pa.types.is_null(f.type)}
        wanted = {field.name: plain(field.type) for field in fields}
        missing = [field for field in fields if field.name not in held]
        narrow = [f for f in fields if held.get(f.name, wanted[f.name]) != wanted[f.name]]
        clashes = {name.lower() for name in old.names} & {field.name.lower() for field in missing}
        surplus = step.exact and not all(step.has(name) for name in old.names)
        if not held or clashes or surplus:
            return False
        own = [field.name for field in all_fields(step.target)]
        if [name for name in own if name in held] != [name for name in held if name in own]:
            return False  # columns that only the old table has may stand anywhere
        if not all(widens(held[field.name], wanted[field.name]) for field in narrow):
            return False
        if missing:
            self.add_columns(client, table, missing)
        if narrow:
            self.widen(client, table, narrow)
        return True

    # The rest.

    def try_writing(self, client: Any, file: Path) -> None:
        """By both volumes, as snapshots and as batches of changes are brought in."""
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
            with contextlib.suppress(Exception):  # what comes first is the cause
                self._drop_what_was_made(client, table, there, volumes)
            raise
        self._drop_what_was_made(client, table, there, volumes)

    def _drop_what_was_made(
        self, client: Any, table: str, there: Collection[str], volumes: Collection[str]
    ) -> None:
        """The table, the volumes and datasets but those that were there."""
        made = [name for name in self._datasets(client) if name not in there]
        if client.sql_client.dataset_name.lower() not in made:
            self._run(client, f"DROP TABLE IF EXISTS {table}")
        for volume in self._volumes(client):
            if volume.dataset not in made and volume.name not in volumes:
                volume.drop()
        for dataset in made:
            self._drop_dataset(client, dataset)

    def _datasets(self, client: Any) -> list[str]:
        """Of the dataset and its staging dataset, those that are there."""
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

    def failure(self, error: BaseException, where: str) -> CdcError:
        lacking = None if self.block is None else lacks_transactions(root_cause(error))
        return lacking or error_for(error, where)

    def _volume(self, client: Any, *, staging: bool) -> VolumeStaging:
        from adapters.dlt_destination.volume_staging import VolumeStaging

        return VolumeStaging(client, self.sessions, self._pipeline, staging=staging)

    def _volumes(self, client: Any) -> list[VolumeStaging]:
        both = (self._volume(client, staging=staging) for staging in (False, True))
        return list({volume.name: volume for volume in both}.values())

    def _sweep(self, client: Any) -> bool:
        for volume in self._volumes(client):
            volume.sweep()
        return True

    def _run(self, client: Any, statement: str) -> None:
        client.sql_client.execute_sql(statement)


def _name(client: Any, table: str) -> str:
    return f"{client.sql_client.fully_qualified_dataset_name()}.{SPARK.quote(table_name(table))}"


def _typed(fields: Iterable[pa.Field], files: str) -> str:
    """Staged rows in the types that are meant, whatever a reader takes the files' for."""
    columns = ", ".join(
        f"CAST({SPARK.quote(f.name)} AS {SPARK.sql_type(f.type)}) AS {SPARK.quote(f.name)}"
        for f in fields
    )
    return f"(SELECT {columns} FROM {files})"


def _clusters(arrow_type: pa.DataType) -> bool:
    """Whether Delta keeps minimum and maximum of such a column."""
    return not (pa.types.is_boolean(arrow_type) or SPARK.sql_type(arrow_type) == "BINARY")


def _pairs(properties: Mapping[str, str]) -> str:
    return ", ".join(f"'{key}' = '{value}'" for key, value in properties.items())
