"""Plans the reading of one table that a user names: its columns and its partitions.

Unlike a full load, this reads the table as a SELECT shows it: with generated columns, and without
the row filter of a publication.
"""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from adapters.pgoutput.catalog.catalog_types import CatalogTypes
from adapters.pgoutput.catalog.table_queries import read_tables
from adapters.pgoutput.session.connection import connect
from adapters.pgoutput.session.source_errors import source_errors
from adapters.pgoutput.snapshot.guards import adopt_snapshot
from adapters.pgoutput.snapshot.page_ranges import PageRange
from adapters.pgoutput.snapshot.row_ranges import stored_sizes
from adapters.pgoutput.snapshot.table_scan import plan_scan
from adapters.pgoutput.wire.type_rules import arrow_type
from cdc_core.values.errors import SettingsError
from cdc_core.values.relation import Column, Relation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from adapters.pgoutput.session.connection import Connection
    from adapters.pgoutput.snapshot.row_ranges import RowRange
    from adapters.pgoutput.snapshot.table_scan import TableScan
    from adapters.spark.options import ReadOptions


@contextmanager
def planning_session(options: ReadOptions) -> Iterator[tuple[Connection, tuple[str, ...]]]:
    """A session in the snapshot, and the names of the snapshot.

    Without a given snapshot, this session has one of its own, which lives as long as the block.
    """
    with connect(options.source) as session, source_errors("adopting the snapshot"):
        names = options.snapshots
        if names:
            adopt_snapshot(names, lambda statement: session.execute(statement.encode()))
        else:
            session.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            row: Any = session.execute("SELECT pg_export_snapshot()").fetchone()
            names = (str(row[0]),)
        yield session, names
        session.execute("ROLLBACK")


def find_relation(session: Connection, table: str) -> Relation:
    """The table under a name as SQL writes it. Raises `SettingsError` if there is none."""
    with source_errors("reading the catalog"):
        row: Any = session.execute(
            "SELECT c.oid::bigint, n.nspname::text FROM pg_class c "
            "JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = to_regclass(%s)",
            [table],
        ).fetchone()
        rows = read_tables(session, [row[1]], [row[0]]) if row else []
        if not rows:
            raise SettingsError(
                f"{table} is no ordinary or partitioned table",
                "write its name as in SQL: schema.table, with quotes around a name that needs them",
            )
        (found,) = rows
        types = CatalogTypes(partial(_same, session))({c.type_oid for c in found.columns})
    columns = tuple(
        Column(c.name, arrow_type(types[c.type_oid], c.typmod), c.type_oid, c.typmod, c.attnum)
        for c in found.columns
    )
    return Relation(found.stored.oid, found.stored.table, columns, found.stored.identity)


def plan_table(session: Connection, relation: Relation, options: ReadOptions) -> TableScan:
    """The scan of a whole table, in ranges of about `rows_per_partition` rows."""
    with source_errors(f"reading table {relation.table}"):
        types = CatalogTypes(partial(_same, session))({c.type_oid for c in relation.columns})
        size = stored_sizes(session, [relation.oid]).get(relation.oid)
        row: Any = session.execute(
            "SELECT coalesce(sum(greatest(c.reltuples, 0)), 0)::float8 FROM pg_class c "
            "WHERE c.oid = %s OR c.oid IN (SELECT relid FROM pg_partition_tree(%s) WHERE isleaf)",
            [relation.oid, relation.oid],
        ).fetchone()
        pages = None
        if size is not None and row[0]:
            pages = max(1, int(size.pages * options.rows_per_partition / row[0]))
        return plan_scan(session, options.source, relation, types, PageRange(), pages)


def shared_out(ranges: tuple[RowRange, ...], options: ReadOptions) -> list[tuple[RowRange, ...]]:
    """The ranges of each partition: no more partitions than connections, because Spark may read all
    of them at the same time."""
    count = max(1, min(len(ranges), options.max_connections))
    return [ranges[first::count] for first in range(count)]


@contextmanager
def _same(session: Connection) -> Iterator[Connection]:
    yield session
