"""Whether a table's changes can be streamed exactly, without failing a write of the application.

Pure rules over catalog rows. Manual: "Publication", "ALTER TABLE", "REPLICA IDENTITY".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from adapters.pgoutput.session.sql_text import quote
from cdc_core.values.relation import ReplicaIdentity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from adapters.pgoutput.catalog.table_rows import StoredRow, TableRow


@dataclass(frozen=True)
class Obstacle:
    """A reason, and the statement that removes it (empty: there is none)."""

    reason: str
    statement: str = ""


def stream_obstacle(table: TableRow) -> str:
    """Why the table's changes cannot be streamed, with the cures; empty if they can."""
    return obstacle_text(obstacles(table))


def obstacle_text(found: Sequence[Obstacle]) -> str:
    """Obstacles as one text: the reasons, then the statements to run."""
    statements = "; ".join(one.statement for one in found if one.statement)
    run = f"; run: {statements}" if statements else ""
    return "; ".join(one.reason for one in found) + run


def obstacles(table: TableRow) -> list[Obstacle]:
    """All reasons why the table's changes cannot be streamed."""
    stored = table.stored
    if not table.partitioned:
        found = _unidentified(stored, stored.unique_index)
        return [*_unlogged(stored), *found]
    if not stored.primary_key:
        # A new partition gets only the primary key from its root, neither FULL nor an index. So
        # PostgreSQL would refuse its updates at once.
        return [_keyless_root(stored)]
    if not stored.stream_key:
        return _unidentified(stored)
    bad = {leaf: found for leaf in table.leaves if (found := _of_leaf(leaf, stored))}
    if not bad:
        return []
    first = next(iter(bad))
    more = f" (and {len(bad) - 1} more of its partitions)" if len(bad) > 1 else ""
    reasons = obstacle_text([Obstacle(one.reason) for one in bad[first]])
    statements = (one.statement for found in bad.values() for one in found if one.statement)
    return [Obstacle(f"its partition {first.table} {reasons}{more}", "; ".join(statements))]


def _of_leaf(leaf: StoredRow, root: StoredRow) -> list[Obstacle]:
    found = [*_unlogged(leaf), *_unidentified(leaf)]
    other_columns = {*leaf.stream_key} != {*root.stream_key}
    if found or leaf.identity is ReplicaIdentity.FULL or not other_columns:
        return found
    own = {*leaf.primary_key} == {*root.stream_key}
    return [
        Obstacle(
            "identifies rows by other columns than the table",
            f"ALTER TABLE {quoted(leaf)} REPLICA IDENTITY {'DEFAULT' if own else 'FULL'}",
        )
    ]


def _keyless_root(stored: StoredRow) -> Obstacle:
    reason = (
        "is partitioned without a primary key: UPDATE and DELETE of a new partition would be "
        "refused"
    )
    if stored.deferrable_key:
        return Obstacle(f"{reason} (its primary key is deferrable, which identifies no row)")
    if not stored.unique_columns:
        return Obstacle(
            f"{reason}; a primary key has to have the columns that it is partitioned by"
        )
    columns = ", ".join(map(quote, stored.unique_columns))
    return Obstacle(reason, f"ALTER TABLE {quoted(stored)} ADD PRIMARY KEY ({columns})")


def updates_refused(table: TableRow) -> bool:
    """Whether PostgreSQL refuses UPDATE and DELETE once the table is published."""
    return any(
        not stored.stream_key and stored.identity is not ReplicaIdentity.FULL
        for stored in (table.leaves if table.partitioned else (table.stored,))
    )


def _unlogged(stored: StoredRow) -> list[Obstacle]:
    match stored.persistence:
        case "u":
            reason = "is unlogged: its changes are not in the WAL (SET LOGGED rewrites it)"
            return [Obstacle(reason, f"ALTER TABLE {quoted(stored)} SET LOGGED")]
        case "f":
            return [Obstacle("is a foreign table: its changes are not in the WAL")]
        case _:
            return []


def _unidentified(stored: StoredRow, unique_index: str = "") -> list[Obstacle]:
    """Prefers `unique_index` to FULL, which writes whole old rows to the WAL."""
    if stored.identity is ReplicaIdentity.FULL or stored.stream_key:
        return []
    reason = (
        "has a replica identity without columns"
        if stored.identity is not ReplicaIdentity.DEFAULT
        else "has a deferrable primary key, which identifies no row"
        if stored.deferrable_key
        else "has no primary key"
    )
    identity = "FULL"
    if stored.primary_key:
        identity = "DEFAULT"
    elif unique_index:
        identity = f"USING INDEX {quote(unique_index)}"
    return [
        Obstacle(
            f"{reason}: PostgreSQL would refuse its UPDATE and DELETE once published",
            f"ALTER TABLE {quoted(stored)} REPLICA IDENTITY {identity}",
        )
    ]


def quoted(stored: StoredRow) -> str:
    return f"{quote(stored.table.schema)}.{quote(stored.table.name)}"
