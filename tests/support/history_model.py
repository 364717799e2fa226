"""A plain-Python model of history: every committed change as images, and the table at every LSN."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cdc_core.values.changes import Op

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import pyarrow as pa

    from adapters.fakes.postgres import InMemoryPostgres, Transaction

Row = dict[str, Any]
#: What an image is, its commit LSN, transaction and values.
Image = tuple[str, int, int | None, tuple[Any, ...]]


@dataclass
class TableModel:
    """One table, replayed from the WAL of the fake: rows, images, and a copy after each commit."""

    columns: Sequence[str]
    key: Sequence[str]
    rows: list[Row] = field(default_factory=list)
    images: list[Image] = field(default_factory=list)
    copies: dict[int, list[Row]] = field(default_factory=dict)

    def apply(self, transaction: Transaction, oid: int) -> None:
        for event in transaction.events:
            if event.oid != oid:
                continue
            if event.op is Op.TRUNCATE:
                for row in self.rows:
                    self._note("delete", transaction, row)
                self.rows = []
            elif event.op is Op.INSERT:
                self.rows.append(dict(event.row))
                self._note("insert", transaction, event.row)
            else:
                old = self._find(event.old or event.row)
                self.rows.remove(old)
                if event.op is Op.DELETE:
                    self._note("delete", transaction, old)
                    continue
                new = {**event.row, **{name: old[name] for name in event.unchanged}}
                self._note("update_preimage", transaction, old)
                self._note("update_postimage", transaction, new)
                self.rows.append(new)
        self.copies[int(transaction.commit_lsn)] = [dict(row) for row in self.rows]

    def _find(self, wanted: Row) -> Row:
        names = self.key or self.columns
        return next(row for row in self.rows if all(row[n] == wanted.get(n) for n in names))

    def _note(self, kind: str, transaction: Transaction, row: Row) -> None:
        values = tuple(row[name] for name in self.columns)
        self.images.append((kind, int(transaction.commit_lsn), transaction.xid, values))


def modelled(postgres: InMemoryPostgres, oid: int, start: Sequence[Row], after: int) -> TableModel:
    """The model of a table from its rows at a snapshot on; the WAL after it is applied."""
    relation = postgres.tables[oid].relation
    model = TableModel(relation.column_names, relation.key, [dict(row) for row in start])
    model.copies[after] = [dict(row) for row in start]
    for transaction in postgres.wal:
        if transaction.commit_lsn >= after:
            model.apply(transaction, oid)
    return model


def images_of(log: Iterable[Row], columns: Sequence[str]) -> list[Image]:
    """The images of a log in the order of their numbers, which must be unique."""
    ordered = sorted(log, key=lambda image: image["_sort_by"])
    numbers = [image["_sort_by"] for image in ordered]
    assert len({*numbers}) == len(numbers)
    return [
        (
            image["_pg_change_type"],
            image["_pg_lsn"],
            image["_pg_xid"],
            tuple(image[name] for name in columns),
        )
        for image in ordered
    ]


def in_blocks(images: Sequence[Image]) -> list[Counter[Image]]:
    """Images with adjacent deletes of one transaction as one block: a TRUNCATE has no order."""
    blocks: list[tuple[tuple[Any, ...], Counter[Image]]] = []
    for number, image in enumerate(images):
        kind, lsn, xid, _ = image
        mark = (kind, lsn, xid) if kind == "delete" else (number,)
        if blocks and blocks[-1][0] == mark:
            blocks[-1][1][image] += 1
        else:
            blocks.append((mark, Counter([image])))
    return [block for _, block in blocks]


def assert_chained(
    images: Sequence[Image], columns: Sequence[str], key: Sequence[str], keyed_after: int = 0
) -> Counter:
    """Check that each preimage and delete is the image before it; return the rows that are left.

    The table has its key in the images that committed after `keyed_after`. It may have had another
    one before.
    """
    live: Counter[tuple[Any, ...]] = Counter()
    #: How many live rows have these values in the columns of the key.
    held: Counter[tuple[Any, ...]] = Counter()
    places = [list(columns).index(name) for name in key]
    for kind, lsn, _, values in images:
        identity = tuple(values[place] for place in places)
        if kind in ("insert", "update_postimage"):
            assert not (key and held[identity] and lsn > keyed_after), (kind, values)
            live[values] += 1
            held[identity] += 1
        else:
            assert live[values] > 0, (kind, values)
            live[values] -= 1
            held[identity] -= 1
    return +live


def assert_log_leads_to(table: pa.Table, log: pa.Table) -> None:
    """Each preimage and delete of a log is an image before it, and the rows left are the table's.

    Both are tables as somebody reads them from the destination. Only columns that the table has
    count: the log keeps those of a former table of the same name.
    """
    ours = ("_pg_change_type", "_pg_lsn", "_pg_xid", "_timestamp", "_sort_by")
    columns = [n for n in table.column_names if not n.startswith(("_cdc", "_dlt"))]
    left = assert_chained(images_of(_texts(log, columns, ours), columns), columns, ())
    rows = Counter(tuple(row[name] for name in columns) for row in _texts(table, columns, ()))
    assert left == rows


def _texts(table: pa.Table, columns: Sequence[str], as_they_are: Iterable[str]) -> list[Row]:
    """Rows with values that are equal only to themselves, NaN among them."""
    wanted = [*columns, *as_they_are]
    return [
        {n: repr(v) if n in columns else v for n, v in row.items()}
        for row in table.select(wanted).to_pylist()
    ]


def as_of(versions: Iterable[Row], lsn: int, columns: Sequence[str]) -> Counter:
    """The rows that the versions show at an LSN."""
    return Counter(
        tuple(version[name] for name in columns)
        for version in versions
        if version["_cdc_lsn"] <= lsn
        and (version["_cdc_end_lsn"] is None or version["_cdc_end_lsn"] > lsn)
    )


def as_of_each(
    versions: Sequence[Row], lsns: Iterable[int], columns: Sequence[str]
) -> Iterator[tuple[int, Counter]]:
    """Each LSN in increasing order, with the rows that the versions show at it.

    As `as_of` for each of them, in one pass. The rows are valid until the next LSN is asked for.
    """
    values = [tuple(version[name] for name in columns) for version in versions]
    steps = [(version["_cdc_lsn"], n, 1) for n, version in enumerate(versions)]
    steps += [
        (version["_cdc_end_lsn"], n, -1)
        for n, version in enumerate(versions)
        if version["_cdc_end_lsn"] is not None
    ]
    steps.sort()
    rows: Counter[tuple[Any, ...]] = Counter()
    done = 0
    for lsn in sorted(lsns):
        while done < len(steps) and steps[done][0] <= lsn:
            _, n, change = steps[done]
            rows[values[n]] += change
            done += 1
        yield lsn, rows
