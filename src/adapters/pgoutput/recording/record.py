"""Record what the next `cdc` would read: messages, catalog, slot, and rows where asked for.

Nothing changes at the source or the destination: the slot is read from a walsender that confirms
nothing, and the publication stays as it is. Every message is recorded as it arrives, undecoded, so
that one that cannot be decoded is in the file too.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from adapters.pgoutput.catalog.catalog import PgCatalog
from adapters.pgoutput.catalog.catalog_types import user_types
from adapters.pgoutput.catalog.table_queries import column_numbers, primary_key
from adapters.pgoutput.changes.change_source import PgChangeSource
from adapters.pgoutput.recording.catalog_answers import ObservedCatalog
from adapters.pgoutput.recording.masked_messages import MaskedMessages
from adapters.pgoutput.recording.masked_rows import MaskedRows, StoredAs
from adapters.pgoutput.recording.masked_values import MaskedValues
from adapters.pgoutput.recording.recording_file import new_recording
from adapters.pgoutput.session.connection import connect
from adapters.pgoutput.session.source_errors import source_errors
from adapters.pgoutput.snapshot.snapshot_source import PgSnapshotSource
from adapters.pgoutput.wire.messages import RELATION
from adapters.pgoutput.wire.types import TypeMap
from cdc_core.fold.row_layout import loaded_schema
from cdc_core.slot.continuity import continuity_break, require_checkpoint
from cdc_core.tables.catalog_with_rules import CatalogWithRules
from cdc_core.tables.follow import follow_tables
from cdc_core.values.checkpoint import TableStatus
from cdc_core.values.errors import NeverLoaded
from cdc_core.values.merges import DELETED_AT_COLUMN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from adapters.pgoutput.recording.recording_file import RecordingWriter
    from adapters.pgoutput.session.connection import Connection
    from adapters.pgoutput.session.settings import SourceSettings
    from adapters.pgoutput.wire.message_run import MessageRun
    from cdc_core.ports.change_source import SlotState
    from cdc_core.ports.destination import Destination
    from cdc_core.ports.snapshot_source import Snapshot
    from cdc_core.tables.table_rules import RuleSet
    from cdc_core.values.checkpoint import Checkpoint, ColumnState, TableState
    from cdc_core.values.fingerprint import Fingerprint
    from cdc_core.values.lsn import Lsn
    from cdc_core.values.relation import Column, Relation


@dataclass(frozen=True)
class Recorded:
    """What is in the file. `rows` is None unless rows were asked for."""

    messages: int
    tables: int
    begin: Lsn
    end: Lsn
    rows: int | None


@dataclass(frozen=True)
class Recorder:
    """`written_by` names this version. `run_settings` are kept for the run that replays."""

    settings: SourceSettings
    destination: Destination
    written_by: str
    run_settings: Mapping[str, Any]
    rules: RuleSet
    first_schema: str
    freeze_schema: bool = False
    mask: bool = False
    #: Record the destination's rows, and those of tables that the run would read whole.
    with_rows: bool = False

    def run(self, file: Path) -> Recorded:
        """Write the recording. Raises what `cdc` raises before it reads."""
        with (
            new_recording(file) as writer,
            PgChangeSource(self.settings) as source,
            closing(PgCatalog(self.settings)) as catalog,
            connect(self.settings) as session,
            self.destination,
            source_errors("recording"),
        ):
            return _Recording(self, writer, source, ObservedCatalog(catalog), session).run()


class _Recording:
    def __init__(
        self,
        recorder: Recorder,
        writer: RecordingWriter,
        source: PgChangeSource,
        catalog: ObservedCatalog,
        session: Connection,
    ) -> None:
        self._recorder, self._writer = recorder, writer
        self._source, self._catalog, self._session = source, catalog, session
        self._type_rows = user_types(session)
        self._types = TypeMap().with_user_types(self._type_rows)
        self._values = MaskedValues() if recorder.mask else None
        # The second read continues the stream of the first.
        self._masked = MaskedMessages(self._values, self._types) if self._values else None
        self._row_count = 0
        #: Relations of which there are changes.
        self._changed: set[int] = set()

    def run(self) -> Recorded:
        recorder, source = self._recorder, self._source
        checkpoint, slot = self._start()
        until = source.current_lsn()
        tables = follow_tables(
            checkpoint,
            CatalogWithRules(self._catalog, recorder.rules),
            recorder.destination,
            first_schema=recorder.first_schema,
            position=lambda: until,
            until=until,
            freeze=recorder.freeze_schema,
        )
        rows = self._destination_rows(checkpoint) if recorder.with_rows else {}
        snapshot = None
        with closing(source.open_messages(checkpoint.lsn, as_text=recorder.mask)) as reader:
            self._add_messages(reader.read(until, lambda: False))
            end = until
            # A run reads these whole at its start, and any that has changes if it must.
            whole = [
                table.relation
                for oid, table in tables.sources.items()
                if oid in tables.to_read or oid in self._changed
            ]
            if recorder.with_rows and whole:
                with PgSnapshotSource(recorder.settings).begin(create_slot=False) as opened:
                    snapshot, end = self._snapshot(opened, whole), max(until, opened.lsn)
                self._add_messages(reader.read(end, lambda: False))
        oids = sorted({*checkpoint.tables, *tables.sources})
        self._writer.finish(
            {
                "written_by": recorder.written_by,
                "server_version": self._session.info.server_version,
                "masked": recorder.mask,
                "settings": dict(recorder.run_settings),
                "checkpoint": self._masked_checkpoint(checkpoint).to_state(),
                "slot": _slot_to_json(slot),
                "until": str(until),
                "catalog": self._catalog.answers.to_json(self._mask_fingerprint),
                "types": self._type_rows,
                "keys": [[oid, list(primary_key(self._session, oid))] for oid in oids],
                "columns": [
                    [oid, list(numbers.items())]
                    for oid, numbers in column_numbers(self._session, oids).items()
                ],
                "rows": rows,
                "snapshot": snapshot,
            }
        )
        counted = self._row_count if recorder.with_rows else None
        return Recorded(self._writer.messages, len(checkpoint.tables), checkpoint.lsn, end, counted)

    def _start(self) -> tuple[Checkpoint, SlotState]:
        source, found = self._source, self._recorder.destination.read_checkpoint()
        slot = source.slot()
        if found is None and slot is None:
            raise NeverLoaded
        checkpoint, identity = require_checkpoint(found), source.identity()
        broken = continuity_break(
            checkpoint, identity, slot, source.current_lsn(), source.left_timeline
        )
        if broken is not None:
            raise broken
        assert slot is not None  # else it is a break
        return replace(checkpoint, source=identity, full_load=None, reading=None), slot

    def _add_messages(self, runs: Iterator[MessageRun]) -> None:
        runs = self._observed(runs)
        self._writer.add_messages(self._masked.masked(runs) if self._masked else runs)

    def _observed(self, runs: Iterator[MessageRun]) -> Iterator[MessageRun]:
        for run in runs:
            for at in run.offsets[:-1][run.kinds() == RELATION].tolist():
                self._changed.add(int.from_bytes(run.buffer[at + 1 : at + 5].tobytes(), "big"))
            yield run

    def _destination_rows(self, checkpoint: Checkpoint) -> dict[str, str]:
        """Record the tables that changes apply to; return their names in the file by target."""
        return {
            state.target: self._add_rows(
                "rows", loaded_schema(state.target_table), self._scan(state)
            )
            for state in checkpoint.tables.values()
            if state.status is TableStatus.STREAMING
        }

    def _scan(self, state: TableState) -> Iterator[pa.Table]:
        names = loaded_schema(state.target_table).names
        mask = self._row_mask({column.target: column for column in state.stored})
        destination = self._recorder.destination
        # Rows that are marked as deleted are no longer in the source.
        marked = DELETED_AT_COLUMN in destination.columns([state.target]).get(state.target, ())
        for rows in destination.scan(state.target, [*names, *[DELETED_AT_COLUMN] * marked]):
            if marked:
                rows = rows.filter(pc.is_null(rows.column(DELETED_AT_COLUMN)))  # noqa: PLW2901
                rows = rows.drop_columns([DELETED_AT_COLUMN])  # noqa: PLW2901
            yield mask(rows)

    def _snapshot(self, snapshot: Snapshot, relations: Iterable[Relation]) -> dict[str, Any]:
        """Record the rows of these tables in a snapshot."""
        tables = []
        for relation in relations:
            unfit: list[list[Any]] = []
            schema = pa.schema([(c.name, c.arrow_type) for c in relation.columns_read])
            name = self._add_rows("snapshot", schema, self._chunks(snapshot, relation, unfit))
            tables.append([relation.oid, name, unfit])
        return {
            "lsn": str(snapshot.lsn),
            "taken_at": snapshot.taken_at,
            "horizon": snapshot.horizon,
            "tables": tables,
        }

    def _chunks(
        self, snapshot: Snapshot, relation: Relation, unfit: list[list[Any]]
    ) -> Iterator[pa.Table]:
        columns = {column.name: column for column in relation.columns_read}
        mask, first_row = self._row_mask(columns), 0
        for chunk in snapshot.read(relation):
            for each in chunk.unrepresentable:
                text = self._mask_text(each.text, columns[each.column])
                unfit.append([each.column, first_row + each.row, text])
            first_row += len(chunk.rows)
            yield mask(chunk.rows)

    def _add_rows(self, folder: str, schema: pa.Schema, rows: Iterator[pa.Table]) -> str:
        def counted() -> Iterator[pa.Table]:
            for chunk in rows:
                self._row_count += len(chunk)
                yield chunk

        return self._writer.add_rows(folder, schema, counted())

    def _row_mask(
        self, columns: Mapping[str, Column] | Mapping[str, ColumnState]
    ) -> Callable[[pa.Table], pa.Table]:
        if self._values is None:
            return lambda rows: rows
        stored = {
            name: StoredAs(column.type_oid, column.typmod, column.rule.reads_text)
            for name, column in columns.items()
        }
        return MaskedRows(self._values, self._types, stored).masked

    def _mask_text(self, text: str, column: Column) -> str:
        if self._values is None:
            return text
        return self._values.masked(text, self._types[column.type_oid], column.typmod)

    def _masked_checkpoint(self, checkpoint: Checkpoint) -> Checkpoint:
        tables = {
            oid: replace(state, fingerprint=self._mask_fingerprint(state.fingerprint))
            for oid, state in checkpoint.tables.items()
        }
        return replace(checkpoint, tables=tables)

    def _mask_fingerprint(self, fingerprint: Fingerprint) -> Fingerprint:
        """Replace the labels of enums, which are values. Bounds of partitions are left out."""
        if self._values is None:
            return fingerprint
        mask = self._values.text
        labels = tuple(label._replace(text=mask(label.text)) for label in fingerprint.labels)
        return replace(fingerprint, labels=labels, bounds=())


def _slot_to_json(slot: SlotState) -> dict[str, Any]:
    return {
        **asdict(slot),
        "active_pid": None,
        "restart_lsn": None if slot.restart_lsn is None else str(slot.restart_lsn),
        "confirmed_flush_lsn": (
            None if slot.confirmed_flush_lsn is None else str(slot.confirmed_flush_lsn)
        ),
    }
