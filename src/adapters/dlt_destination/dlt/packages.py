"""dlt's pipeline as this library uses it: fresh for every run, one load package for every batch.

State and schema come from the destination when a pipeline is opened, so nothing depends on local
files. A package carries the checkpoint, as state of dlt's source; the tables have been written when
it is loaded. Source: dlt documentation, "State", "Load packages".
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from adapters.dlt_destination.dlt import naming_convention
from adapters.dlt_destination.dlt.runtime import import_dlt, silence

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from adapters.dlt_destination.settings import PipelineSettings

#: Name of dlt's source and schema, and of what the source's state has.
SOURCE = "pgbronze"
CHECKPOINT = "checkpoint"
PACKAGES = "packages"
#: Of a checkpoint: what grows with the tables.
TABLES = "tables"


class Packages:
    """One dlt pipeline, in step with its destination from the start."""

    def __init__(self, settings: PipelineSettings, factory: Any, folder: Path) -> None:
        self._dlt = import_dlt()
        self._factory = factory
        self._config: Any = None
        factory.caps_params["naming_convention"] = naming_convention.__name__
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
            "names": naming_convention.__name__,
            "json": {"module": "dlt.common.normalizers.json.relational"},
        }
        return self._dlt.Schema(SOURCE, normalizers)

    def client(self) -> Any:
        """dlt's job client of the dataset, to be opened. Its settings are looked up once."""
        if self._config is None:
            client = self._pipeline._get_destination_clients(self._schema)[0]
            self._config = client.config
            return client
        return self._factory.client(self._schema, self._config)

    def checkpoint(self) -> Mapping[str, Any] | None:
        found = self._stored()
        if found is None or not isinstance(found[TABLES], str):
            return found
        return {**found, TABLES: json.loads(found[TABLES])}

    @property
    def begins(self) -> bool:
        """Whether there is no checkpoint yet."""
        return self._stored() is None

    def _stored(self) -> Mapping[str, Any] | None:
        state: Mapping[str, Any] = self._pipeline.state
        found: Mapping[str, Any] | None = state.get("sources", {}).get(SOURCE, {}).get(CHECKPOINT)
        return found

    def run(self, checkpoint: Mapping[str, Any]) -> None:
        """Load one package, which makes the checkpoint count.

        Returns once dlt has noted the package in `_dlt_loads`; raises whatever dlt does.
        """
        source = self._dlt.sources.DltSource(self._schema, SOURCE, [self._state(checkpoint)])
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

    def _state(self, checkpoint: Mapping[str, Any]) -> Any:
        # As a text: dlt copies, searches and parses a state many times over, value by value.
        tables = json.dumps(checkpoint[TABLES], ensure_ascii=False, separators=(",", ":"))

        def state() -> Iterator[Any]:
            own = self._dlt.current.source_state()
            own[CHECKPOINT] = {**checkpoint, TABLES: tables}
            # dlt makes no package for a state that is the same as before.
            own[PACKAGES] = own.get(PACKAGES, 0) + 1
            yield from ()

        return self._dlt.resource(state, name=f"_dlt_{CHECKPOINT}")
