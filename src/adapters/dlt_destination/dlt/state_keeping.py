"""dlt's state in the dataset, over months: the newest state is found, old ones are deleted.

dlt writes a state with every package that changes it, and derives load ids from the clock. The
state with the highest load id is the newest. Source: dlt, `dlt.common.storages.load_package`,
`dlt.pipeline.state_sync`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Every `KEPT` versions of the state, versions older than that are deleted.
KEPT = 50


class NewestState:
    """A mixin for job clients: new load ids are higher than the newest in the dataset, even if the
    clock has been set back."""

    def get_stored_state(self, pipeline_name: str) -> Any:
        from dlt.common.time import increasing_precise_time as clock

        info = super().get_stored_state(pipeline_name)  # type: ignore[misc]
        if info is not None:
            clock._last = max(clock._last, float(info._dlt_load_id))
        return info


class StateInTables(NewestState):
    """A mixin for SQL job clients."""

    def complete_load(self, load_id: str) -> None:
        super().complete_load(load_id)  # type: ignore[misc]
        state = _state_of_package()
        if state is not None:
            sql_client = self.sql_client  # type: ignore[attr-defined]
            table = sql_client.make_qualified_table_name(self.schema.state_table_name)  # type: ignore[attr-defined]
            delete_old_states(sql_client, table, state["pipeline_name"], state["version"])


def delete_old_states(sql_client: Any, table: str, pipeline_name: str, version: int) -> None:
    """Delete old versions from the table of states, if it is time for that. `version` is the
    newest."""
    if version % KEPT == 0:
        sql_client.execute_sql(
            f"DELETE FROM {table} WHERE pipeline_name = %s AND version < %s",
            pipeline_name,
            version - KEPT,
        )


class StateInFiles(NewestState):
    """A mixin for the filesystem's job client. dlt keeps the latest hundred states, but all
    loads."""

    def complete_load(self, load_id: str) -> None:
        super().complete_load(load_id)  # type: ignore[misc]
        state = _state_of_package()
        if state is not None and state["version"] % KEPT == 0:
            client: Any = self
            loads = sorted(client.list_table_files(client.schema.loads_table_name))
            for path in loads[:-KEPT]:
                client.fs_client.rm_file(path)

    def _write_to_json_file(self, filepath: str, data: Mapping[str, Any]) -> None:
        """Write all or nothing: a run that is killed never leaves half a local file under this
        name."""
        client: Any = self
        if not client.is_local_filesystem:
            super()._write_to_json_file(filepath, data)  # type: ignore[misc]
            return
        partial = os.path.join(client.dataset_path, f".partial-{os.path.basename(filepath)}")  # noqa: PTH118, PTH119
        super()._write_to_json_file(partial, data)  # type: ignore[misc]
        client.fs_client.makedirs(os.path.dirname(filepath), exist_ok=True)  # noqa: PTH120
        os.replace(partial, filepath)  # noqa: PTH105


def _state_of_package() -> Mapping[str, Any] | None:
    """Return the state in the current package; None if it has not changed."""
    from dlt.common.storages.load_package import load_package_state

    state: Mapping[str, Any] | None = load_package_state()["state"].get("pipeline_state")
    return state
