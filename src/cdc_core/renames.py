"""Which renames may be done in place, and in which order: the one home of that rule.

A rename is done only into a name that is free. Then it can be done twice: what was renamed is known
by its old name being gone. Names that go in a circle cannot be told from names that never moved,
and what has a name that another has too cannot be told from that one, so those tables are read
again instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from cdc_core.staging import ColumnRename, TableRename

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from cdc_core.checkpoint import TableState

Rename = TypeVar("Rename", ColumnRename, TableRename)


@dataclass(frozen=True)
class Renames(Generic[Rename]):
    """`possible` in an order in which each new name is free; `blocked` are all others."""

    possible: tuple[Rename, ...]
    blocked: tuple[Rename, ...]


def in_order(renames: Collection[Rename], held: Collection[str] = ()) -> Renames[Rename]:
    """Sort renames by what can be done; `held` are names that stay with others."""
    taken = {name.casefold() for name in held}
    shared = [rename for rename in renames if rename.old.casefold() in taken]
    pending = [rename for rename in renames if rename.old.casefold() not in taken]
    done: list[Rename] = []
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
    return Renames(tuple(done), tuple(pending + shared))


def table_renames(
    states: Mapping[int, TableState], targets: Mapping[int, str]
) -> Renames[TableRename]:
    """Renames of tables to new target names, by oid; the names of all other states are held."""
    moving = {
        oid: TableRename(states[oid].target, target)
        for oid, target in targets.items()
        if oid in states and states[oid].target != target
    }
    held = [state.target for oid, state in states.items() if oid not in moving]
    return in_order(list(moving.values()), held)
