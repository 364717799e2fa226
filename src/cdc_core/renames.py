"""Which renames may be done in place, and in which order: the one home of that rule.

A rename is done only into a name that is free, or that a dropped table has left. Then it can be
done twice: what was renamed is known by its old name being gone. Names that go in a circle cannot
be told from names that never moved, so those tables are read again instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from cdc_core.staging import ColumnRename, TableRename

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from cdc_core.checkpoint import TableState

Rename = TypeVar("Rename", ColumnRename, TableRename)


@dataclass(frozen=True)
class Renames(Generic[Rename]):
    """`possible` in an order in which each new name is free; `blocked` are all others."""

    possible: tuple[Rename, ...]
    blocked: tuple[Rename, ...]


def in_order(renames: Iterable[Rename], held: Collection[str] = ()) -> Renames[Rename]:
    """Sort renames by what can be done; `held` are names that stay with others."""
    pending, done = list(renames), []
    taken = {name.casefold() for name in held}
    progress = True
    while progress:
        progress = False
        for rename in pending:
            olds = {other.old.casefold() for other in pending if other is not rename}
            if rename.new.casefold() not in taken | olds:
                pending.remove(rename)
                done.append(rename)
                progress = True
                break
    return Renames(tuple(done), tuple(pending))


def table_renames(
    states: Mapping[int, TableState], targets: Mapping[int, str], gone: Collection[int]
) -> Renames[TableRename]:
    """Renames of tables to new target names, by oid; the names of all other states are held, but
    for those of tables that are gone."""
    left = {states[oid].target.casefold(): states[oid].target for oid in gone}
    moving = {
        oid: TableRename(states[oid].target, target, left.get(target.casefold(), ""))
        for oid, target in targets.items()
        if oid in states and states[oid].target != target
    }
    held = [state.target for oid, state in states.items() if oid not in {*moving, *gone}]
    return in_order(moving.values(), held)
