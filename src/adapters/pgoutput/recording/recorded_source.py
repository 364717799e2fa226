"""The ports of the source on a recording: the run that replays it needs no PostgreSQL."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

from adapters.pgoutput.changes.batch_decoding import BatchDecoding
from adapters.pgoutput.recording.catalog_answers import AnsweredCatalog, CatalogAnswers
from adapters.pgoutput.recording.recording_file import no_recording
from adapters.pgoutput.wire.query_rows import ReadRows
from adapters.pgoutput.wire.types import TypeMap
from cdc_core.ports.change_source import SlotState
from cdc_core.ports.snapshot_source import WHOLE
from cdc_core.values.changes import Unrepresentable
from cdc_core.values.checkpoint import Checkpoint, SourceIdentity
from cdc_core.values.lsn import Lsn
from cdc_core.values.masks import Hasher
from cdc_core.values.naming import FORBIDDEN_IN_TABLES

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    import pyarrow as pa

    from adapters.pgoutput.recording.recording_file import Recording
    from adapters.pgoutput.wire.message_run import MessageRun
    from cdc_core.ports.catalog import SourceTable
    from cdc_core.ports.snapshot_source import RowChunk
    from cdc_core.values.changes import ChangeBatch
    from cdc_core.values.relation import Relation, TableName
    from cdc_core.values.table_rules import ColumnRules

_log = logging.getLogger(__name__)


#: The key of the masks by hash in a replay, as the run's own is a secret.
REPLAY_MASK_KEY = "pgbronze replay, mask key"


def recorded_checkpoint(recording: Recording) -> Checkpoint:
    """The checkpoint from which the recorded changes continue, marked as that of a replay."""
    found = Checkpoint.from_state(recording.index["checkpoint"])
    mark = Hasher(REPLAY_MASK_KEY.encode()).key_mark
    tables = {
        oid: replace(state, rules=replace(state.rules, key_mark=mark))
        if state.rules.key_mark
        else state
        for oid, state in found.tables.items()
    }
    return replace(found, source=found.source.as_replay(), tables=tables)


@dataclass(frozen=True)
class RecordedRun:
    """What a run that replays a recording needs. `rows` returns what a target table held."""

    checkpoint: Checkpoint
    changes: RecordedChanges
    catalog: RecordedCatalog
    snapshots: RecordedSnapshots
    rows: Callable[[str], Iterable[pa.Table]]


def recorded_run(recording: Recording, batch_max_bytes: int) -> RecordedRun:
    """Read the index of a recording, which may come from a stranger; `SettingsError` if it lacks
    something, or names a table that no run would write."""
    index = recording.index
    try:
        checkpoint = recorded_checkpoint(recording)
        rows = {str(target): str(name) for target, name in index["rows"].items()}
        run = RecordedRun(
            checkpoint,
            RecordedChanges(recording, batch_max_bytes),
            RecordedCatalog(recording),
            RecordedSnapshots(recording),
            lambda target: recording.rows(rows[target]) if target in rows else (),
        )
        RecordedSnapshot(recording)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        kind = type(error).__name__
        raise no_recording(recording.file, f"its index cannot be read ({kind})") from None
    for state in checkpoint.tables.values():
        # Destinations make files and folders of these names.
        if not state.target or any(c in FORBIDDEN_IN_TABLES for c in state.target):
            raise no_recording(recording.file, f"it names the table {state.target!r}")
    return run


class RecordedChanges:
    """`ChangeSource` of a recording. Its slot does not move."""

    def __init__(self, recording: Recording, batch_max_bytes: int) -> None:
        index = recording.index
        self._recording = recording
        self._slot = _slot_from_json(index["slot"])
        self._until = Lsn.parse(index["until"])
        types = TypeMap().with_user_types([tuple(row) for row in index["types"]])
        keys = {oid: tuple(key) for oid, key in index["keys"]}
        numbers = {oid: dict(found) for oid, found in index["columns"]}

        def types_for(_: Collection[int]) -> TypeMap:
            return types

        self._decoding = BatchDecoding(
            types_for, lambda oid: keys.get(oid, ()), lambda _: numbers, batch_max_bytes
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def identity(self) -> SourceIdentity:
        return recorded_checkpoint(self._recording).source

    def left_timeline(self, timeline: int) -> Lsn | None:  # noqa: ARG002 - as the port has it
        return None

    def current_lsn(self) -> Lsn:
        return self._until

    def slot(self) -> SlotState:
        return self._slot

    def create_slot(self) -> Lsn:
        raise RuntimeError("a recording has its slot")

    def drop_slot(self) -> bool:
        return False

    def note_transactions(self) -> None:
        pass

    def expect_read(self) -> Lsn:
        return self._until

    def read(
        self,
        after: Lsn,
        until: Lsn,
        tables: Collection[int],
        stop: Callable[[], bool] = lambda: False,
        rules: Mapping[int, ColumnRules] | None = None,
    ) -> Iterator[ChangeBatch]:
        # From the first message on: a Relation message comes once.
        runs, decoder = _up_to(self._recording.runs(), until), self._decoding.new_decoder()
        for batch in self._decoding.batches(runs, decoder, after, tables, rules or {}):
            yield batch
            if batch.complete and stop():
                return

    def confirm(self, durable_lsn: Lsn) -> None:
        pass


class RecordedCatalog(AnsweredCatalog):
    """`Catalog` with the answers of a recording."""

    def __init__(self, recording: Recording) -> None:
        super().__init__(CatalogAnswers.from_json(recording.index["catalog"]))

    def tables(self, oids: Collection[int] | None = None) -> Sequence[SourceTable]:
        return [table for table in self.publish() if oids is None or table.relation.oid in oids]

    def settled(
        self,
        moved: Collection[int],
        attached: Collection[int],
        horizon: int,  # noqa: ARG002 - as the port has it
    ) -> frozenset[int]:
        asked = frozenset(moved), frozenset(attached)
        return self.answers.settled.get(asked, frozenset())

    def names(self, oids: Collection[int]) -> Mapping[int, TableName]:
        return {oid: name for oid, name in self.answers.names.items() if oid in oids}


class RecordedSnapshots:
    """`SnapshotSource` with the rows of a recording."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording

    @contextmanager
    def begin(self, *, create_slot: bool) -> Iterator[RecordedSnapshot]:  # noqa: ARG002
        yield RecordedSnapshot(self._recording)


class RecordedSnapshot:
    """A table that the recording has no rows of is empty."""

    def __init__(self, recording: Recording) -> None:
        index = recording.index
        found = index["snapshot"] or {
            "lsn": index["until"],
            "taken_at": index["checkpoint"]["committed_at"] or 0,
            "horizon": index["catalog"]["horizon"],
            "tables": [],
        }
        self._recording = recording
        self._tables = {oid: (name, unfit) for oid, name, unfit in found["tables"]}
        self.lsn = Lsn.parse(found["lsn"])
        self.taken_at: int = found["taken_at"]
        self.horizon: int = found["horizon"]

    def page_ranges(
        self,
        relation: Relation,  # noqa: ARG002 - as the port has it
        read: Collection[str] = (),  # noqa: ARG002
    ) -> Sequence[str]:
        return [WHOLE]

    def unchanged(
        self,
        relation: Relation,  # noqa: ARG002 - as the port has it
        page_range: str,  # noqa: ARG002
        rows: int,  # noqa: ARG002
        horizon: int,  # noqa: ARG002
    ) -> bool:
        return False

    def expect(self, ranges: Sequence[tuple[Relation, str]]) -> None:
        pass

    def read(
        self,
        relation: Relation,
        page_range: str = WHOLE,  # noqa: ARG002 - as the port has it
    ) -> Iterator[RowChunk]:
        if relation.oid not in self._tables:
            _log.warning(
                "%s: the run reads the whole table, but its rows are not in the file, so it stays "
                "empty; to record them: pgbronze record FILE --rows",
                relation.table,
            )
            return
        name, unfit = self._tables[relation.oid]
        first_row = 0
        for rows in self._recording.rows(name):
            end = first_row + len(rows)
            yield ReadRows(
                rows,
                tuple(
                    Unrepresentable(column, row - first_row, text)
                    for column, row, text in unfit
                    if first_row <= row < end
                ),
            )
            first_row = end

    def write_files(self, *_: object) -> None:
        """There are no workers."""


def _up_to(runs: Iterator[MessageRun], until: Lsn) -> Iterator[MessageRun]:
    for run in runs:
        yield run
        if run.reached is not None and run.reached >= until:
            return


def _slot_from_json(found: Mapping[str, object]) -> SlotState:
    slot = SlotState(**found)  # type: ignore[arg-type]
    return replace(
        slot,
        restart_lsn=None if slot.restart_lsn is None else Lsn.parse(str(slot.restart_lsn)),
        confirmed_flush_lsn=(
            None if slot.confirmed_flush_lsn is None else Lsn.parse(str(slot.confirmed_flush_lsn))
        ),
    )
