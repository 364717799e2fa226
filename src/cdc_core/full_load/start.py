"""How a full load starts: source and destination before it, and the checkpoint it begins with."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cdc_core.slot.continuity import continuity_break
from cdc_core.values.checkpoint import Checkpoint, TableStatus
from cdc_core.values.naming import is_name_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from cdc_core.ports.catalog import SourceTable
    from cdc_core.ports.change_source import ChangeSource, SlotState
    from cdc_core.ports.destination import Destination
    from cdc_core.ports.source_monitor import SourceMonitor
    from cdc_core.values.checkpoint import SourceIdentity, TableState
    from cdc_core.values.errors import CdcError
    from cdc_core.values.lsn import Lsn
    from cdc_core.values.naming import TableNaming


@dataclass(frozen=True)
class FullLoadStart:
    """Source and destination before a run."""

    checkpoint: Checkpoint | None
    identity: SourceIdentity
    slot: SlotState | None
    current: Lsn
    #: Why slot and checkpoint do not fit together.
    broken: CdcError | None

    @classmethod
    def read(cls, source: ChangeSource | SourceMonitor, destination: Destination) -> FullLoadStart:
        """Read both; they must be open."""
        checkpoint = destination.read_checkpoint()
        identity, slot = source.identity(), source.slot()
        current, left = source.current_lsn(), source.left_timeline
        broken = continuity_break(checkpoint, identity, slot, current, left) if checkpoint else None
        return cls(checkpoint, identity, slot, current, broken)

    @property
    def over(self) -> bool:
        """Whether the run starts over, with a new slot."""
        return self.checkpoint is None or self.broken is not None

    @property
    def unfinished(self) -> Checkpoint | None:
        """The checkpoint of a full load that can be continued."""
        full_load = self.checkpoint is not None and self.checkpoint.full_load
        return self.checkpoint if full_load and not self.broken else None

    def first_checkpoint(
        self, lsn: Lsn, live: Collection[int], *, all_tables: bool = True
    ) -> Checkpoint:
        """Return the checkpoint from which a load at `lsn` starts; `live` are the oids of the
        tables found."""
        checkpoint = self.checkpoint
        if checkpoint is None or self.over:
            checkpoint = Checkpoint(self.identity, lsn, self._waiting())
        return replace(
            checkpoint,
            source=self.identity,
            tables={
                oid: state if oid in live else state.dropped()
                for oid, state in checkpoint.tables.items()
            },
            full_load=lsn if all_tables else checkpoint.full_load,
        )

    def with_targets(
        self, first_schema: str, naming: TableNaming, *, all_tables: bool = True
    ) -> Mapping[int, TableState]:
        """Return the states whose targets stay. Where every table is read, a changed `schemas`
        setting gives tables other targets."""
        checkpoint, identity = self.checkpoint, self.identity
        if checkpoint is None or (checkpoint.source.system_id, checkpoint.source.database) != (
            identity.system_id,
            identity.database,
        ):
            return {}
        return {
            oid: state
            for oid, state in checkpoint.tables.items()
            if not all_tables or is_name_of(state.target, state.table, first_schema, naming)
        }

    def _waiting(self) -> Mapping[int, TableState]:
        """Return the tables that the destination has, each waiting to be read, if only the slot is
        another one; their names are then followed. A copy of the source may use their oids for
        other tables: then none."""
        checkpoint = self.checkpoint
        if checkpoint is None or checkpoint.lsn > self.current:
            return {}
        if replace(checkpoint.source, slot_name=self.identity.slot_name) != self.identity:
            return {}
        return {
            oid: state
            if state.status is TableStatus.DROPPED
            else state.needs_snapshot("the slot was created again")
            for oid, state in checkpoint.tables.items()
        }


def unread_tables(checkpoint: Checkpoint, found: Iterable[SourceTable]) -> dict[int, str]:
    """Return the tables that an unfinished full load has still to read, by oid, with the reason."""
    return {
        table.relation.oid: "the full load had not read it"
        for table in found
        if not table.refused and (table.not_streamed or not checkpoint.loaded(table.relation.oid))
    }
