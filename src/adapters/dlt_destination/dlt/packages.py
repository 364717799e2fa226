"""dlt's pipeline as this library uses it: new for every run, with one load package per batch.

A pipeline reads its state and schema from the destination when it is opened, so nothing depends on
local files. A package carries the checkpoint as the state of dlt's source; it is loaded after the
tables have been written. Source: dlt documentation, "State", "Load packages".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from adapters.dlt_destination.dlt import naming_convention
from adapters.dlt_destination.dlt.runtime import import_dlt, silence
from adapters.dlt_destination.dlt.stored_state import (
    CHECKPOINT,
    SOURCE,
    checkpoint_in,
    note_checkpoint,
    with_tables,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from adapters.dlt_destination.settings import PipelineSettings


class Packages:
    """One dlt pipeline, synchronized with its destination when it is opened."""

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
        # Otherwise the first `run` reads the state again.
        self._pipeline._state_restored = True
        self._schema = self._pipeline.schemas.get(SOURCE) or self._new_schema()

    def _new_schema(self) -> Any:
        normalizers = {
            "names": naming_convention.__name__,
            "json": {"module": "dlt.common.normalizers.json.relational"},
        }
        return self._dlt.Schema(SOURCE, normalizers)

    def client(self) -> Any:
        """Return dlt's job client of the dataset, not yet opened. dlt looks up its settings
        once."""
        if self._config is None:
            client = self._pipeline._get_destination_clients(self._schema)[0]
            self._config = client.config
            return client
        return self._factory.client(self._schema, self._config)

    def checkpoint(self) -> Mapping[str, Any] | None:
        found = self._stored()
        return None if found is None else with_tables(found)

    @property
    def begins(self) -> bool:
        return self._stored() is None

    def _stored(self) -> Mapping[str, Any] | None:
        return checkpoint_in(self._pipeline.state)

    def store(self, checkpoint: Mapping[str, Any]) -> None:
        """Load one package with the checkpoint, which makes the checkpoint durable.

        Returns after dlt has recorded the package in `_dlt_loads`. Raises dlt's exceptions.
        """
        source = self._dlt.sources.DltSource(self._schema, SOURCE, [self._state(checkpoint)])
        info = self._pipeline.run(source)
        info.raise_on_failed_jobs()
        self._schema = self._pipeline.schemas[SOURCE]
        self._forget(info.loads_ids)

    def _forget(self, load_ids: Iterable[str]) -> None:
        """Delete what dlt keeps of a loaded package, and its record of the settings that it looked
        up: a long run loads thousands of packages."""
        from dlt.common.configuration.utils import get_resolved_traces

        storage = self._pipeline._get_load_storage()
        for load_id in load_ids:
            storage.delete_loaded_package(load_id)
        get_resolved_traces().clear()

    def _state(self, checkpoint: Mapping[str, Any]) -> Any:
        def state() -> Iterator[Any]:
            note_checkpoint(self._dlt.current.source_state(), checkpoint)
            yield from ()

        return self._dlt.resource(state, name=f"_dlt_{CHECKPOINT}")
