"""Write the source to Parquet through the library's ports, without a destination.

Run: python -m benchmarks.to_parquet snapshot|wal FOLDER, with the settings in the environment. It
needs the publication. `wal` reads the slot from its position, and does not move it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from adapters.dlt_destination.files.parquet import write_chunks, write_table
from entrypoints.container import Container
from entrypoints.runtime.memory import collect_rarely, prepare_arrow

if TYPE_CHECKING:
    from cdc_core.ports.snapshot_source import Snapshot
    from cdc_core.values.changes import TableChanges
    from cdc_core.values.relation import Relation


def snapshot_to_parquet(container: Container, folder: Path) -> None:
    tables = container.catalog().tables()
    with container.snapshot_source().begin(create_slot=False) as snapshot:
        for table in tables:
            relation_to_parquet(snapshot, table.relation, folder)


def relation_to_parquet(snapshot: Snapshot, relation: Relation, folder: Path) -> None:
    schema = pa.schema([(column.name, column.arrow_type) for column in relation.columns])
    pieces = (piece.rows for piece in snapshot.read(relation))
    write_chunks(pieces, schema, folder, str(relation.table))


def wal_to_parquet(container: Container, folder: Path) -> None:
    tables = [table.relation.oid for table in container.catalog().tables()]
    with container.change_source() as source:
        slot = source.slot()
        assert slot is not None
        assert slot.confirmed_flush_lsn is not None
        number = 0
        for batch in source.read(slot.confirmed_flush_lsn, source.current_lsn(), tables):
            for changes in batch.tables:
                name = f"{changes.relation.table}-{number}.parquet"
                write_table(_with_positions(changes), folder / name)
                number += 1


def _with_positions(changes: TableChanges) -> pa.Table:
    """The rows as the stream sends them, with the operation, the commit LSN and its time."""
    return (
        changes.rows.append_column("_op", pa.array(changes.op))
        .append_column("_commit_lsn", pa.array(changes.commit_lsn))
        .append_column("_committed_at", pa.array(changes.committed_at))
    )


def main(what: str, folder: Path) -> None:
    # As the command line does.
    collect_rarely()
    prepare_arrow()
    container = Container()
    match what:
        case "snapshot":
            snapshot_to_parquet(container, folder)
        case "wal":
            wal_to_parquet(container, folder)
        case _:
            raise SystemExit(f"neither snapshot nor wal: {what}")
    container.shutdown_resources()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
