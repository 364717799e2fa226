"""Whether a table's changes can be streamed exactly, without failing a write of the application.

Pure rules over catalog rows. Manual: "Publication", "ALTER TABLE", "REPLICA IDENTITY".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cdc_core.relation import ReplicaIdentity

if TYPE_CHECKING:
    from adapters.pgoutput.table_rows import StoredRow, TableRow


def stream_obstacle(table: TableRow) -> str:
    """Why the table's changes cannot be streamed, with the cure; empty if they can."""
    stored = table.stored
    if not table.partitioned:
        return _unlogged(stored) or _unidentified(stored)
    if not stored.primary_key:
        # New partitions get neither FULL nor an index from the root, only its primary key: their
        # updates would be refused from the moment they are created.
        return (
            "a partitioned table without a primary key: a new partition's UPDATE and DELETE would "
            f"be refused; run: ALTER TABLE {quoted(stored)} ADD PRIMARY KEY (...)"
        )
    if not stored.stream_key:
        return _unidentified(stored)
    for leaf in table.leaves:
        obstacle = _unlogged(leaf) or _unidentified(leaf)
        if obstacle:
            return f"its partition {leaf.table} {obstacle}"
        if leaf.identity is not ReplicaIdentity.FULL and {*leaf.stream_key} != {*stored.stream_key}:
            return (
                f"its partition {leaf.table} identifies rows by other columns than the table; "
                f"run: ALTER TABLE {quoted(leaf)} REPLICA IDENTITY FULL"
            )
    return ""


def updates_refused(table: TableRow) -> bool:
    """Whether PostgreSQL refuses UPDATE and DELETE once the table is published."""
    return any(
        not stored.stream_key and stored.identity is not ReplicaIdentity.FULL
        for stored in (table.leaves if table.partitioned else (table.stored,))
    )


def _unlogged(stored: StoredRow) -> str:
    match stored.persistence:
        case "u":
            return (
                "is unlogged: its changes are not in the WAL; "
                f"run: ALTER TABLE {quoted(stored)} SET LOGGED"
            )
        case "f":
            return "is a foreign table: its changes are not in the WAL"
        case _:
            return ""


def _unidentified(stored: StoredRow) -> str:
    if stored.identity is ReplicaIdentity.FULL or stored.stream_key:
        return ""
    name = quoted(stored)
    if stored.identity is ReplicaIdentity.DEFAULT:
        return (
            "has no primary key (or a deferrable one): PostgreSQL would refuse its UPDATE and "
            f"DELETE once published; run: ALTER TABLE {name} ADD PRIMARY KEY (...), "
            f"or ALTER TABLE {name} REPLICA IDENTITY FULL"
        )
    return (
        "has a replica identity without columns: PostgreSQL would refuse its UPDATE and DELETE "
        f"once published; run: ALTER TABLE {name} REPLICA IDENTITY "
        f"{'DEFAULT' if stored.primary_key else 'FULL'}"
    )


def quoted(stored: StoredRow) -> str:
    return f"{quote(stored.table.schema)}.{quote(stored.table.name)}"


def quote(name: str) -> str:
    """An SQL identifier, always in quotes."""
    return '"' + name.replace('"', '""') + '"'
