"""From catalog rows and the publication to the tables that the port reports.

Pure rules: the columns that the stream sends, the fingerprint, and why a table is not streamed.
Manual: "Publication", "ALTER PUBLICATION".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from adapters.pgoutput.catalog.streamability import Obstacle, obstacle_text, obstacles, quoted
from adapters.pgoutput.session.sql_text import quote
from adapters.pgoutput.wire.type_rules import arrow_type, element_type, logical_type
from cdc_core.ports.catalog import SourceTable
from cdc_core.values.fingerprint import Fingerprint
from cdc_core.values.relation import Column, Relation

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from adapters.pgoutput.catalog.publication import Publication
    from adapters.pgoutput.catalog.table_rows import ColumnRow, TableRow
    from adapters.pgoutput.wire.types import TypeMap


def source_table(
    row: TableRow,
    publication: Publication | None,
    types_of: Callable[[Collection[int]], TypeMap],
    major: int,
    *,
    may_add: bool,
) -> SourceTable:
    """A table as the port reports it. `may_add`: this role may still add it to the publication."""
    published = publication is not None and publication.holds(row)
    columns = _sent_columns(row, publication, major)
    unsent = {*row.stored.stream_key} - {column.name for column in columns}
    types = types_of({column.type_oid for column in columns})
    relation = Relation(
        row.stored.oid,
        row.stored.table,
        tuple(
            Column(
                column.name,
                arrow_type(types[column.type_oid], column.typmod),
                column.type_oid,
                column.typmod,
                column.attnum,
                column.pg_type,
                column.has_default,
                logical=logical_type(types[column.type_oid]),
                element_type=element_type(types[column.type_oid], column.typmod),
            )
            for column in columns
        ),
        row.stored.identity,
        () if unsent else row.stored.stream_key,
    )
    not_streamed = _not_streamed(row, publication, may_add=may_add)
    if unsent and not not_streamed:
        not_streamed = _key_unsent(row, publication, unsent, major)
    return SourceTable(
        relation,
        fingerprint(row, publication, {column.attnum for column in columns}),
        published,
        not_streamed,
        row.estimated_rows,
        row.total_bytes,
    )


def fingerprint(
    row: TableRow, publication: Publication | None, sent: Collection[int]
) -> Fingerprint:
    """Marks of the table's files and definition; see `Fingerprint`. `sent` are the numbers of the
    columns in the stream."""
    return Fingerprint(
        storage="" if row.partitioned else str(row.stored.filenode),
        persistence=_persistence(row, publication),
        definition=row.stored.definition,
        partitions=tuple((leaf.oid, leaf.attached, leaf.filenode) for leaf in row.leaves),
        publication=publication.mark_of(row) if publication is not None else "",
        labels=tuple(sorted(row.types.labels)),
        enums=tuple(sorted(row.types.enums)),
        within=tuple(sorted(row.types.within)),
        paths=tuple((leaf.oid, leaf.path) for leaf in row.leaves),
        bounds=tuple((leaf.oid, leaf.bounds) for leaf in row.leaves if leaf.bounds),
        attributes=tuple(sorted(row.types.attributes)),
        place=publication.place_of(row) if publication is not None else "",
        unsent=tuple(c.attnum for c in row.columns if c.attnum not in sent),
        last_column=row.last_column,
    )


def _persistence(row: TableRow, publication: Publication | None) -> str:
    """Changes when ALTER TABLE rewrites the table; empty if that does not show."""
    if publication is not None and row.stored.oid in publication.tables:
        return "logged"  # PostgreSQL refuses SET UNLOGGED for a table that a publication names
    return str(row.stored.toast or "")


def _sent_columns(
    row: TableRow, publication: Publication | None, major: int
) -> tuple[ColumnRow, ...]:
    """Columns that the stream sends: the publication's list, without generated columns it omits."""
    listed = publication.column_list(row) if publication is not None else None
    # Without a publication yet: ours will publish all it can.
    generated = publication.generated_columns if publication is not None else True
    return tuple(
        column
        for column in row.columns
        if (listed is None or column.attnum in listed)
        and (
            column.generated == ""
            or (column.generated == "s" and major >= 18 and (listed is not None or generated))
        )
    )


def _not_streamed(row: TableRow, publication: Publication | None, *, may_add: bool) -> str:
    found = obstacles(row)
    if publication is None:
        return obstacle_text(found)
    if publication.holds(row):
        return obstacle_text([*found, *publication.obstacles(row)])
    # A role that may manage the publication adds the table once the obstacles above are gone.
    if not may_add and not (found and publication.manageable):
        where = ", on the primary" if publication.standby else ""
        found.append(
            Obstacle(
                f"publication {publication.name} does not hold it, and the role may not add it "
                f"(the owner of both may{where})",
                f"ALTER PUBLICATION {quote(publication.name)} ADD TABLE ONLY {quoted(row.stored)}",
            )
        )
    return obstacle_text(found)


def _key_unsent(
    row: TableRow, publication: Publication | None, unsent: Collection[str], major: int
) -> str:
    """The reason if not all columns of the key are sent: the others identify no row."""
    stored, statement = row.stored, ""
    if publication is not None and publication.column_list(row) is not None:
        statement = publication.with_columns(row, unsent)
    elif publication is not None and major >= 18 and not _virtual(row, unsent):
        name = quote(publication.name)
        statement = f"ALTER PUBLICATION {name} SET (publish_generated_columns = stored)"
    elif stored.unique_index and not {*stored.unique_columns} & {*unsent}:
        index = quote(stored.unique_index)
        statement = f"ALTER TABLE {quoted(stored)} REPLICA IDENTITY USING INDEX {index}"
    reason = f"its key has columns that are not sent: {', '.join(sorted(unsent))}"
    return obstacle_text([Obstacle(reason, statement)])


def _virtual(row: TableRow, names: Collection[str]) -> bool:
    return any(column.generated == "v" for column in row.columns if column.name in names)
