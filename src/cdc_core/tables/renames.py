"""Which renames can be done in place, and in which order: the one home of that rule.

A rename is done only onto a free name. So it can safely be done twice: the missing old name shows
that it was done. A circle of renames cannot be distinguished from no rename, nor can a rename onto
a name in use, or of a name that two tables claim; those tables are read again instead. The history
that such a table leaves behind under its old name is set aside, so that whichever table takes that
name begins its own.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from cdc_core.values.history import log_of, versions_of
from cdc_core.values.merges import ColumnRename, TableRename

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from cdc_core.values.checkpoint import TableState
    from cdc_core.values.lsn import Lsn

Rename = TypeVar("Rename", ColumnRename, TableRename)


class ColumnsOf(Protocol):
    """`Destination.columns`."""

    def __call__(
        self, tables: Collection[str], *, current: bool
    ) -> Mapping[str, Collection[str]]: ...


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


def set_aside(state: TableState, lsn: Lsn) -> tuple[TableRename, ...]:
    """Return the renames that give the history of a table a name of its own, with this LSN."""
    names = (name for name in (state.log, state.versions) if name)
    return tuple(TableRename(name, f"{name}_{lsn:X}") for name in names)


def table_renames(
    states: Mapping[int, TableState], targets: Mapping[int, str], columns: ColumnsOf
) -> Renames[TableRename]:
    """Return the renames of tables to new target names (by oid); other states keep their names.

    `columns` shows which names the destination has. `blocked` has the names of tables only.
    """
    moving = {
        oid: TableRename(states[oid].target, target)
        for oid, target in targets.items()
        if oid in states and states[oid].target != target
    }
    if not moving:
        return Renames((), ())
    onto_others = _onto_others(moving, states, columns)
    held = [state.target for oid, state in states.items() if oid not in moving.keys() - onto_others]
    wanted = [rename for oid, rename in moving.items() if oid not in onto_others]
    found = in_order(wanted, held)
    blocked = (*found.blocked, *(moving[oid] for oid in onto_others))
    steps: list[TableRename] = []
    for oid, rename in moving.items():
        # The name of a misplaced table has never been that of its history.
        if rename in blocked and not states[oid].misplaced:
            steps += set_aside(states[oid], states[oid].snapshot_lsn)
    owners = {rename.old: states[oid] for oid, rename in moving.items()}
    for rename in found.possible:
        steps += with_history([rename], owners[rename.old])
    return Renames(tuple(steps), blocked)


def _onto_others(
    moving: Mapping[int, TableRename], states: Mapping[int, TableState], columns: ColumnsOf
) -> set[int]:
    """Return the tables (by oid) whose new name, or that of their history, is taken.

    The destination has a table of that name that no state knows: somebody else made it, or a failed
    load left it. Or the history of the table would get the name of another table.
    """
    steps = {oid: with_history([rename], states[oid]) for oid, rename in moving.items()}
    names = {name for renames in steps.values() for r in renames for name in (r.old, r.new)}
    there = columns(names, current=True).keys()
    known = {name for state in states.values() for name in tables_of(state)}
    targets = {state.target for state in states.values()}
    return {
        oid
        for oid, (own, *history) in steps.items()
        if any(r.old in there and r.new in there - known for r in (own, *history))
        or any(r.old in there and r.new in there & targets for r in history)
    }


def tables_of(state: TableState) -> list[str]:
    """Return the names of a table and of its history."""
    return [name for name in (state.target, state.log, state.versions) if name]
