"""Replay recorded changes: bring an empty destination to a checkpoint, then stream from there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cdc_core.fold.row_layout import loaded_schema
from cdc_core.tables.history_of_rows import difference, free_number, reserved
from cdc_core.values.errors import SettingsError
from cdc_core.values.history import Moment
from cdc_core.values.merges import LoadBatch, Replacement

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import pyarrow as pa

    from cdc_core.ports.destination import Destination
    from cdc_core.use_cases.stream_changes import StreamChanges, StreamReport
    from cdc_core.values.checkpoint import Checkpoint, TableState


@dataclass(frozen=True)
class ReplayChanges:
    """`rows` returns what a target table held at the checkpoint. `stream` reads the recording.

    `place` names the destination, for messages.
    """

    destination: Destination
    stream: StreamChanges
    checkpoint: Checkpoint
    rows: Callable[[str], Iterable[pa.Table]]
    place: str

    def run(self) -> StreamReport:
        """Replay into the destination, which must be empty or hold an earlier replay.

        Raises `SettingsError` if it holds anything else, and whatever the recorded run would raise.
        """
        with self.destination as destination:
            self._clear(destination)
            begun = [self._begin(destination, each) for each in self.checkpoint.tables.values()]
            replacements = tuple(replacement for _, replacement in begun)
            checkpoint = self.checkpoint.with_table(*(state for state, _ in begun))
            destination.load(LoadBatch(replacements=replacements), checkpoint)
        return self.stream.run()

    def _clear(self, destination: Destination) -> None:
        found = destination.read_checkpoint()
        if found is not None and found.source.is_replay:
            destination.drop()
        elif found is not None or destination.tables():
            raise SettingsError(
                f"{self.place} holds tables that no replay made",
                "replay into another place: --dataset-name=replay",
            )

    def _begin(self, destination: Destination, state: TableState) -> tuple[TableState, Replacement]:
        """Store the rows of a table; return its state, and the replacement that names them. Its
        history begins with these rows."""
        name = f"replay-{state.oid}"
        destination.write(name, state.target_table, self._rows(state))
        at = Moment(self.checkpoint.lsn, self.checkpoint.committed_at or 0)
        first = free_number(state, destination)
        replacement = Replacement(
            state.target_table,
            (name,),
            state.target_key,
            soft_deletes=at if state.soft_deletes else None,
            history=difference(state, at, destination, first),
        )
        return reserved(state, first) if state.log else state, replacement

    def _rows(self, state: TableState) -> Iterator[pa.Table]:
        schema = loaded_schema(state.target_table)
        yield schema.empty_table()
        for rows in self.rows(state.target):
            yield rows.cast(schema)
