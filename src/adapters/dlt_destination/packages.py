"""dlt's pipeline as this library uses it: fresh for every run, one load package for every batch.

State and schema come from the destination when a pipeline is opened, so nothing depends on local
files. The checkpoint is state of dlt's source, written inside the resource, so that it lands in the
package of the data that it speaks for. Source: dlt documentation, "State", "Load packages".
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from adapters.dlt_destination import verbatim
from adapters.dlt_destination.columns import dlt_columns
from adapters.dlt_destination.dlt_runtime import import_dlt, silence

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    import pyarrow as pa

    from adapters.dlt_destination.manifest import Manifest
    from adapters.dlt_destination.settings import PipelineSettings

#: Name of dlt's source and schema, and of the checkpoint in the source's state.
SOURCE = "wal2delta"
CHECKPOINT = "checkpoint"


class Packages:
    """One dlt pipeline, in step with its destination from the start."""

    def __init__(self, settings: PipelineSettings, factory: Any, folder: Path) -> None:
        self._dlt = import_dlt()
        factory.caps_params["naming_convention"] = verbatim.__name__
        self._pipeline = self._dlt.pipeline(
            pipeline_name=settings.pipeline_name,
            dataset_name=settings.dataset_name,
            destination=factory,
            pipelines_dir=str(folder),
        )
        silence(self._pipeline)
        self._pipeline.sync_destination()
        # `run` would ask for the state once more.
        self._pipeline._state_restored = True
        self._schema = self._pipeline.schemas.get(SOURCE) or self._new_schema()

    def _new_schema(self) -> Any:
        normalizers = {
            "names": verbatim.__name__,
            "json": {"module": "dlt.common.normalizers.json.relational"},
        }
        return self._dlt.Schema(SOURCE, normalizers)

    def client(self) -> Any:
        """dlt's job client of the dataset, to be opened."""
        return self._pipeline._get_destination_clients(self._schema)[0]

    def checkpoint(self) -> Mapping[str, Any] | None:
        state: Mapping[str, Any] = self._pipeline.state
        found: Mapping[str, Any] | None = state.get("sources", {}).get(SOURCE, {}).get(CHECKPOINT)
        return found

    def describe(
        self,
        table: str,
        fields: list[pa.Field],
        hints: Mapping[str, Any],
        *,
        exact: bool = False,
    ) -> str:
        """Tell dlt's schema of a table; columns that it has and `fields` has not stay, unless the
        table is to have these `exact` ones: dlt would add the others to it again.

        Returns the table's name there: its own, unless dlt could not make a file name of it.
        """
        from dlt.common.schema.utils import new_table

        name = _file_name(table)
        known = self._schema.tables.get(name)
        names = {field.name.casefold() for field in fields}
        kept = {
            column: hints_of
            for column, hints_of in (known or {}).get("columns", {}).items()
            if not exact and column.casefold() not in names
        }
        columns = {**dlt_columns(fields), **kept}
        plain_table = new_table(
            name, write_disposition="append", columns=list(columns.values()), resource=name
        )
        wanted = {**plain_table, **hints, "x-normalizer": {"seen-data": True}}
        if known != wanted:
            self._schema.tables[name] = wanted
        return name

    def rename_table(self, old: str, new: str) -> None:
        tables = self._schema.tables
        old, new = _file_name(old), _file_name(new)
        if old in tables and new not in tables:
            tables[new] = {**tables.pop(old), "name": new, "resource": new}

    def rename_column(self, table: str, old: str, new: str) -> None:
        columns = self._schema.tables.get(_file_name(table), {}).get("columns", {})
        if old in columns and new not in columns:
            columns[new] = {**columns.pop(old), "name": new}

    def run(self, manifests: Mapping[str, Manifest], checkpoint: Mapping[str, Any]) -> None:
        """Load one package: a manifest for each table, by dlt's names, and the checkpoint.

        Returns once dlt has noted the package in `_dlt_loads`; raises whatever dlt does.
        """
        resources = [self._table(name, manifest) for name, manifest in manifests.items()]
        resources.append(self._state(checkpoint))
        source = self._dlt.sources.DltSource(self._schema, SOURCE, resources)
        info = self._pipeline.run(source)
        info.raise_on_failed_jobs()
        self._schema = self._pipeline.schemas[SOURCE]
        self._forget(info.loads_ids)

    def _forget(self, load_ids: Iterable[str]) -> None:
        """What dlt keeps of a package that is loaded, and the settings that it looked up for it: a
        run that follows has thousands."""
        from dlt.common.configuration.utils import get_resolved_traces

        storage = self._pipeline._get_load_storage()
        for load_id in load_ids:
            storage.delete_loaded_package(load_id)
        get_resolved_traces().clear()

    def _table(self, name: str, manifest: Manifest) -> Any:
        def files() -> Iterator[Any]:
            path = str(manifest.path)
            yield self._dlt.mark.with_file_import(path, "jsonl", items_count=manifest.rows)

        return self._dlt.resource(files, name=name, table_name=name, write_disposition="append")

    def _state(self, checkpoint: Mapping[str, Any]) -> Any:
        def state() -> Iterator[Any]:
            self._dlt.current.source_state()[CHECKPOINT] = checkpoint
            yield from ()

        # No table is called so: discovery leaves out what begins with `_dlt`.
        return self._dlt.resource(state, name=f"_dlt_{CHECKPOINT}")


def _file_name(table: str) -> str:
    """The table's name where dlt can make a file name of it, else a stable stand-in."""
    from dlt.common.storages import FileStorage
    from pathvalidate.error import ValidationError

    try:
        FileStorage.validate_file_name_component(table)
    except ValidationError:
        return f"table-{hashlib.sha256(table.encode()).hexdigest()[:16]}"
    return table
