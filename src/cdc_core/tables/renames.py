"""Which renames can be done in place, and in which order: the one home of that rule.

A rename is done only onto a free name. So it can safely be done twice: the missing old name shows
that it was done. A circle of renames cannot be distinguished from no rename, nor can a rename onto
a name in use, or of a name that two tables claim; those tables are read again instead.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Generic, TypeVar

from cdc_core.values.history import log_of, versions_of
from cdc_core.values.merges import ColumnRename, TableRename

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from cdc_core.values.checkpoint import TableState

Rename = TypeVar("Rename", ColumnRename, TableRename)


@dataclass(frozen=True)
class Renames(Generic[Rename]):
    """`possible` are in an order in which each new name is free; `blocked` are all others."""

    possible: tuple[Rename, ...]
    blocked: tuple[Rename, ...]


def in_order(renames: Collection[Rename], held: Collection[str] = ()) -> Renames[Rename]:
    """Sort renames into possible and blocked ones; `held` are names that others keep."""
    owners = Counter([*(name.casefold() for name in held), *(r.old.casefold() for r in renames)])
    taken = {name.casefold() for name in held} | {n for n, count in owners.items() if count > 1}
    shared = [rename for rename in renames if rename.old.casefold() in taken]
    pending = {n: rename for n, rename in enumerate(renames) if rename.old.casefold() not in taken}
    olds = {rename.old.casefold() for rename in pending.values()}
    possible: list[int] = []
    #: Renames by the name that they wait for.
    waiting: dict[str, list[int]] = {}
    for number, rename in pending.items():
        old, new = rename.old.casefold(), rename.new.casefold()
        if new in olds and new != old:
            waiting.setdefault(new, []).append(number)
        elif new not in taken:
            possible.append(number)
    done: list[Rename] = []
    while possible:  # the first of them each time
        rename = pending.pop(heappop(possible))
        done.append(rename)
        for number in waiting.get(rename.old.casefold(), ()):
            heappush(possible, number)
    return Renames(tuple(done), tuple(list(pending.values()) + shared))


def with_history(renames: Iterable[Rename], state: TableState) -> tuple[Rename, ...]:
    """Return the renames of a table or of its columns, and with each the same for its history.

    `state` is the table's state; of a renamed table it may have the old name or the new one.
    """
    kinds = [log_of] if state.log else []
    kinds += [versions_of] if state.versions else []
    found: list[Rename] = []
    for rename in renames:
        found.append(rename)
        if isinstance(rename, TableRename):
            names = [(name_of(rename.old), name_of(rename.new)) for name_of in kinds]
            found += [replace(rename, old=old, new=new) for old, new in names]
        else:
            found += [replace(rename, table=name_of(rename.table)) for name_of in kinds]
    return tuple(found)


def table_renames(
    states: Mapping[int, TableState], targets: Mapping[int, str]
) -> Renames[TableRename]:
    """Return the renames of tables to new target names (by oid); other states keep their names."""
    moving = {
        oid: TableRename(states[oid].target, target)
        for oid, target in targets.items()
        if oid in states and states[oid].target != target
    }
    held = [state.target for oid, state in states.items() if oid not in moving]
    found = in_order(list(moving.values()), held)
    owners = {rename.old: states[oid] for oid, rename in moving.items()}
    possible = [
        step for rename in found.possible for step in with_history([rename], owners[rename.old])
    ]
    return replace(found, possible=tuple(possible))
