"""Which column of a table each column of a Relation message is.

A message has names and types, but no column numbers, and describes the table at a moment of the
past. The names and numbers of earlier moments are known; so are the rules by which they change.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from collections.abc import Set as AbstractSet

    from cdc_core.values.checkpoint import ColumnState, FormerColumns, TableState
    from cdc_core.values.relation import Relation

#: `text` and `varchar`, whose values print alike. Other types that become text may print
#: differently (`cidr` and `inet`), although a column changes type without its rows being rewritten.
PRINTS_AS_IT_IS = frozenset({25, 1043})


def has_names(relation: Relation, state: TableState, former: Iterable[FormerColumns]) -> bool:
    """Whether a Relation message has exactly the column names of the state or of a former set."""
    moments = (state.names, *(moment.names for moment in former))
    return any(tuple(names.values()) == relation.column_names for names in moments)


def resolve_columns(
    relation: Relation, state: TableState, former: Sequence[FormerColumns]
) -> tuple[ColumnState, ...] | None:
    """Return the column of the state that each column of a Relation message is.

    `former` are earlier column sets, oldest first. The message has one of them, or one from between
    two of them: a column may have had any name in between, and columns may have been added and
    dropped. Returns None unless exactly one assignment fits.
    """
    moments = [*(moment.names for moment in former), state.names]
    columns = {column.attnum: column for column in state.columns}
    readings = {
        tuple(moment) for moment in moments if tuple(moment.values()) == relation.column_names
    }
    if former:
        names: dict[int, set[str]] = {}
        for moment in moments:
            for attnum, name in moment.items():
                names.setdefault(attnum, set()).add(name)
        marks = state.fingerprint
        added = {*range(former[0].last + 1, marks.last_column + 1)}
        unknown = added - names.keys() - {*marks.unsent}

        def may_be(place: int, attnum: int) -> bool:
            column = relation.columns[place]
            return (
                attnum in unknown
                or column.name in names[attnum]
                or _same_type(column.type_oid, columns[attnum].type_oid)
            )

        # What is there now and before was there in between.
        always = moments[0].keys() & moments[-1].keys()
        numbers = sorted(names.keys() | unknown)
        found = _rising(len(relation.columns), numbers, may_be, {*moments[-1]}, always)
        if len(found) > 1:
            return None
        readings.update(found)
    if len(readings) != 1:
        return None
    resolved = [columns.get(attnum) for attnum in readings.pop()]
    return None if None in resolved else tuple(resolved)  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False)
class _Ways:
    """Ways to assign numbers to the first places, ending with `number`: their count (2 for more
    than one), and one of them, linked through `before`."""

    number: int
    before: _Ways | None
    count: int

    def numbers(self) -> tuple[int, ...]:
        numbers, ways = [], self
        while ways.before is not None:
            numbers.append(ways.number)
            ways = ways.before
        return tuple(reversed(numbers))


def _rising(
    places: int,
    numbers: Sequence[int],
    may_be: Callable[[int, int], bool],
    now: AbstractSet[int],
    always: AbstractSet[int],
) -> list[tuple[int, ...]]:
    """Return the rising sequences of numbers in which each number `may_be` at its place and which
    contain all of `always`; at most two if there are several.

    A sequence may not skip a number of `now` below one that it contains: a column that exists now
    existed when a column with a higher number did. So only numbers that are not in `now` can be
    skipped, and the cost is the number of places times the number of skippable columns.
    """
    # By the index in `numbers` of the last one taken.
    found = {-1: _Ways(0, None, 1)}
    for place in range(places):
        longer: dict[int, _Ways] = {}
        before: _Ways | None = None
        for index in range(min(found, default=len(numbers)), len(numbers)):
            if before is not None:
                if may_be(place, numbers[index]):
                    longer[index] = _Ways(numbers[index], before, before.count)
                if numbers[index] in now:
                    before = None
            if (taken := found.pop(index, None)) is not None:
                count = taken.count + (0 if before is None else before.count)
                before = replace(taken, count=min(count, 2))
            if before is None and not found:
                break
        found = longer
    ends = [ways for ways in found.values() if ways.number >= max(always, default=0)]
    return [ways.numbers() for ways in ends for _ in range(ways.count)]


def _same_type(one: int, other: int) -> bool:
    """Whether a column can change between these types without its rows being rewritten."""
    return one == other or {one, other} <= PRINTS_AS_IT_IS
