"""The definitions that a run would send, as `Destination.load` decides about them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from cdc_core.plan.plan import Definition, DefinitionKind
from cdc_core.tables.history_of_rows import fits
from cdc_core.tables.renames import set_aside
from cdc_core.values.merges import ColumnRename, TableRename

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import pyarrow as pa

    from cdc_core.values.checkpoint import TableState
    from cdc_core.values.merges import SchemaStep

    class TypeName(Protocol):
        """`Destination.column_type`."""

        def __call__(self, column: pa.Field, *, variant: bool = False) -> str: ...


@dataclass
class HeldTables:
    """The destination's tables with their columns, after the steps that were planned so far."""

    columns: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, found: Mapping[str, Sequence[str]]) -> HeldTables:
        return cls({name: list(columns) for name, columns in found.items()})

    def rename(self, steps: Iterable[SchemaStep]) -> Iterator[Definition]:
        """Yield the renames that are still to be done, and do them."""
        for step in steps:
            match step:
                case TableRename(old, new):
                    if old in self.columns and new not in self.columns:
                        self.columns[new] = self.columns.pop(old)
                        yield Definition(DefinitionKind.RENAME_TABLE, new, was=old)
                case ColumnRename(table, old, new):
                    names = self.columns.get(table, [])
                    if old in names and new not in names:
                        names[names.index(old)] = new
                        yield Definition(DefinitionKind.RENAME_COLUMN, table, new, was=old)

    def history(self, before: TableState | None, state: TableState) -> Iterator[Definition]:
        """Yield the definitions of the history tables of a table that is read."""
        if before is not None and (before.misplaced or not fits(before, state)):
            yield from self.rename(set_aside(state, before.snapshot_lsn))
        for name in filter(None, (state.log, state.versions)):
            if name not in self.columns:
                yield Definition(DefinitionKind.CREATE_TABLE, name)

    def replace(self, state: TableState) -> Definition:
        """The definition that comes with the rows of a table that is read."""
        there = state.target in self.columns
        kind = DefinitionKind.REPLACE_TABLE if there else DefinitionKind.CREATE_TABLE
        return Definition(kind, state.target)

    def fit(self, before: TableState, after: TableState, type_of: TypeName) -> Iterator[Definition]:
        """Yield the columns that a streamed table gets, and those that become wider."""
        target = after.target_table
        held = self.columns.get(target.name)
        if held is None:
            yield Definition(DefinitionKind.CREATE_TABLE, target.name)
            return
        old = {column.attnum: column.arrow_type for column in before.columns}
        for column in after.stored:
            field_now = target.schema.field(column.target)
            if column.target not in held:
                name = type_of(field_now, variant=column.target in target.variants)
                yield Definition(DefinitionKind.ADD_COLUMN, target.name, column.target, name)
                continue
            was = old.get(column.attnum, field_now.type)
            if was != field_now.type:
                yield Definition(
                    DefinitionKind.WIDEN_COLUMN,
                    target.name,
                    column.target,
                    type_of(field_now),
                    type_of(field_now.with_type(was)),
                )
