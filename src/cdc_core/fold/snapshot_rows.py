"""How rows that were read in a snapshot are laid out for their target, here or by a worker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from cdc_core.fold.row_layout import RowLayout, arrange, loaded_schema, metadata_at
from cdc_core.fold.unrepresentable import unrepresentable_rows
from cdc_core.values.history import Moment
from cdc_core.values.merges import UNREPRESENTABLE_SCHEMA

if TYPE_CHECKING:
    import pyarrow as pa

    from cdc_core.ports.catalog import SourceTable
    from cdc_core.ports.snapshot_source import RowChunk, Snapshot
    from cdc_core.values.checkpoint import TableState
    from cdc_core.values.merges import TargetTable


@dataclass(frozen=True)
class SnapshotRows:
    """Lays out rows of one table under its column rules.

    It can be pickled, with the key of masks, so that another process can do that. `key` has the
    names of the source.
    """

    target: TargetTable
    key: tuple[str, ...]
    layout: RowLayout
    moment: Moment

    @classmethod
    def of(cls, state: TableState, table: SourceTable, snapshot: Snapshot) -> Self:
        """The rows of a table whose state is `state` once it is read."""
        return cls(
            state.target_table,
            table.relation.key,
            RowLayout.of(state, table.rules.hasher),
            Moment(snapshot.lsn, snapshot.taken_at),
        )

    @property
    def schema(self) -> pa.Schema:
        """The target's columns and `METADATA_FIELDS`."""
        return loaded_schema(self.target)

    def laid_out(self, chunk: RowChunk) -> tuple[pa.Table, pa.Table]:
        """Return the rows, and those of `UNREPRESENTABLE_SCHEMA` that belong to them."""
        rows = chunk.rows
        unfit = UNREPRESENTABLE_SCHEMA.empty_table()
        if chunk.unrepresentable:
            unfit = unrepresentable_rows(
                self.target.name, self.layout, self.key, rows, chunk.unrepresentable,
                int(self.moment.lsn), self.moment.committed_at,
            )  # fmt: skip
        values = self.layout.values(rows) | metadata_at(self.moment)
        return arrange(self.schema, values, len(rows)), unfit
