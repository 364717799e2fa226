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

    from adapters.pgoutput.catalog.table_queries import StoredRow, TableRow


@dataclass(frozen=True)
class Obstacle:
    """What is in the way, and the statement that takes it away (empty: no statement does)."""

    what: str
    statement: str = ""


def stream_obstacle(table: TableRow) -> str:
    """Why the table's changes cannot be streamed, with the statements; empty if they can."""
    return told(obstacles(table))


def told(found: Sequence[Obstacle]) -> str:
    """Obstacles as one text: what they are, then what to run."""
    statements = "; ".join(one.statement for one in found if one.statement)
    run = f"; run: {statements}" if statements else ""
    return "; ".join(one.what for one in found) + run


def obstacles(table: TableRow) -> list[Obstacle]:
    """All that keeps the table's changes from being streamed."""
    stored = table.stored
    if not table.partitioned:
        found = _unidentified(stored, stored.unique_index)
        return [*_unlogged(stored), *found]
    if not stored.primary_key:
        # New partitions get neither FULL nor an index from the root, only its primary key: their
        # updates would be refused from the moment they are created.
        return [_keyless_root(stored)]
    if not stored.stream_key:
        return _unidentified(stored)
    bad = {leaf: found for leaf in table.leaves if (found := _of_leaf(leaf, stored))}
    if not bad:
        return []
    first = next(iter(bad))
    more = f" (and {len(bad) - 1} more of its partitions)" if len(bad) > 1 else ""
    what = f"its partition {first.table} {told([Obstacle(o.what) for o in bad[first]])}{more}"
    statements = (o.statement for found in bad.values() for o in found if o.statement)
    return [Obstacle(what, "; ".join(statements))]


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
    what = (
        "is partitioned without a primary key: UPDATE and DELETE of a new partition would be "
        "refused"
    )
    if stored.deferrable_key:
        return Obstacle(f"{what} (its primary key is deferrable, which identifies no row)")
    if not stored.unique_columns:
        return Obstacle(f"{what}; a primary key has to have the columns that it is partitioned by")
    columns = ", ".join(map(quote, stored.unique_columns))
    return Obstacle(what, f"ALTER TABLE {quoted(stored)} ADD PRIMARY KEY ({columns})")


def updates_refused(table: TableRow) -> bool:
    """Whether PostgreSQL refuses UPDATE and DELETE once the table is published."""
    return any(
        not stored.stream_key and stored.identity is not ReplicaIdentity.FULL
        for stored in (table.leaves if table.partitioned else (table.stored,))
    )


def _unlogged(stored: StoredRow) -> list[Obstacle]:
    match stored.persistence:
        case "u":
            what = "is unlogged: its changes are not in the WAL (logging it writes it anew)"
            return [Obstacle(what, f"ALTER TABLE {quoted(stored)} SET LOGGED")]
        case "f":
            return [Obstacle("is a foreign table: its changes are not in the WAL")]
        case _:
            return []


def _unidentified(stored: StoredRow, unique_index: str = "") -> list[Obstacle]:
    """With `unique_index`, rather than FULL: that writes whole old rows to the WAL."""
    if stored.identity is ReplicaIdentity.FULL or stored.stream_key:
        return []
    what = (
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
            f"{what}: PostgreSQL would refuse its UPDATE and DELETE once published",
            f"ALTER TABLE {quoted(stored)} REPLICA IDENTITY {identity}",
        )
    ]


def quoted(stored: StoredRow) -> str:
    return f"{quote(stored.table.schema)}.{quote(stored.table.name)}"
