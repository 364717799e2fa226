"""One table on both sides, read in chunks and as hashes; each read yields the same rows.

Columns are paired by number, because names may have changed.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cdc_core.fold.row_layout import RowLayout, arrange
from cdc_core.fold.unrepresentable import unrepresentable_rows
from cdc_core.tables.live_rows import scan_live
from cdc_core.values.merges import UNREPRESENTABLE_TABLE
from cdc_core.values.row_hash import canonical_type, hash_rows, mix
from cdc_core.verify.parity import Differences, Digest, RowHashes, differences, groups, joined

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import numpy.typing as npt

    from cdc_core.ports.catalog import SourceTable
    from cdc_core.ports.destination import Destination
    from cdc_core.ports.snapshot_source import RowChunk, Snapshot
    from cdc_core.values.checkpoint import TableState
    from cdc_core.values.relation import Relation
    from cdc_core.values.row_hash import Hashes

#: Rows of differing buckets that are held as hashes at a time, both sides together.
GROUP_ROWS = 4_000_000

_VALUE_COLUMNS = ("column_name", "key", "value_text")


@dataclass(frozen=True)
class Pairing:
    """The columns to compare: their names at the source and at the destination, in order, and the
    positions of the key among them (empty: rows are a multiset)."""

    source: tuple[str, ...]
    target: tuple[str, ...]
    key: tuple[int, ...]
    #: Columns of the source that the destination does not have yet.
    lacking: tuple[str, ...] = ()

    @classmethod
    def of(cls, relation: Relation, state: TableState) -> Pairing:
        held = {c.attnum: c.target for c in state.stored if not c.dropped}
        shared = [c for c in relation.columns if c.attnum in held and c.rule.is_stored]
        names = tuple(c.name for c in shared)
        key = tuple(names.index(n) for n in relation.key if n in names)
        return cls(
            names,
            tuple(held[c.attnum] for c in shared),
            key if len(key) == len(relation.key) else (),
            tuple(c.name for c in relation.columns if c.attnum not in held and c.rule.is_stored),
        )

    @property
    def key_target(self) -> tuple[str, ...]:
        return tuple(self.target[place] for place in self.key)


class SourceRows(NamedTuple):
    """Rows of the source as they are at the destination, and as they were `read`."""

    rows: pa.Table
    hashes: RowHashes
    read: RowChunk


class TargetRows(NamedTuple):
    """Rows of the destination."""

    rows: pa.Table
    hashes: RowHashes


@dataclass(eq=False)
class TableSides:
    """A table in an open snapshot and in the destination."""

    snapshot: Snapshot
    destination: Destination
    table: SourceTable
    state: TableState
    #: Columns with another type at the destination, in words; known after it was read.
    other_types: dict[str, str] = field(default_factory=dict)
    _recorded: Hashes | None = None

    def __post_init__(self) -> None:
        self.relation = self.table.relation
        self.pairing = pairing = Pairing.of(self.relation, self.state)
        rules = {column.name: column.rule for column in self.relation.columns}
        held = {column.target: column for column in self.state.columns}
        pairs = zip(pairing.source, pairing.target, strict=True)
        # Under the rules of now, whatever the table was loaded under.
        columns = {name: replace(held[target], rule=rules[name]) for name, target in pairs}
        self.layout = RowLayout(columns, self.table.rules.hasher)
        types = [
            (held[target].target, self.relation.column(name).arrow_type)
            for name, target in zip(pairing.source, pairing.target, strict=True)
        ]
        self._schema = pa.schema(types)

    def digests(
        self, chunk_read: Callable[[pa.Table], None] = lambda _: None
    ) -> tuple[Digest, Digest]:
        """Read both sides once; calls `chunk_read` with each chunk of the source."""
        source, target, self._recorded = Digest(), Digest(), None
        for chunk in self.source_chunks():
            source.add(chunk.hashes)
            chunk_read(chunk.read.rows)
        for rows in self.target_chunks():
            target.add(rows.hashes)
        return source, target

    def differences(self, source: Digest, target: Digest) -> Iterator[Differences]:
        """Yield the rows that differ, in groups of limited size; none if the digests are equal.

        Between two groups, only repairs by the caller may change the sides.
        """
        for buckets in groups(source, target, GROUP_ROWS):
            yield differences(
                _within(buckets, self.source_chunks()),
                _within(buckets, self.target_chunks()),
                keyed=bool(self.pairing.key),
            )

    def source_chunks(self) -> Iterator[SourceRows]:
        """Yield chunks of the source with the paired columns, as the rules make them."""
        for chunk in self.snapshot.read(self.relation):
            rows = arrange(self._schema, self.layout.values(chunk.rows), len(chunk.rows))
            # Not that of `rows`: Arrow counts none in a table without columns.
            hashes = self._hashes(rows, len(chunk.rows))
            if chunk.unrepresentable:
                hashes = self._marked(chunk, hashes)
            yield SourceRows(rows, hashes, chunk)

    def target_chunks(self) -> Iterator[TargetRows]:
        """Yield chunks of the destination with the paired columns."""
        types = [canonical_type(self.relation.column(n).arrow_type) for n in self.pairing.source]
        for rows in scan_live(self.destination, self.state, self.pairing.target):
            for name, wanted in zip(self.pairing.target, types, strict=True):
                held = rows.column(name).type
                if canonical_type(held) != wanted:
                    self.other_types[name] = f"{name} is {held} in the destination, not {wanted}"
            yield TargetRows(rows, self._hashes(rows, len(rows)))

    def _hashes(self, rows: pa.Table, count: int) -> RowHashes:
        columns = [rows.column(name) for name in self.pairing.target]
        contents = hash_rows(columns, count)
        if not self.pairing.key:
            return RowHashes(contents, contents)
        key = [columns[place] for place in self.pairing.key]
        return RowHashes(hash_rows(key, count, as_key=True), contents)

    def _marked(self, chunk: RowChunk, hashes: RowHashes) -> RowHashes:
        """Change the hashes of rows with an unrepresentable value that the destination did not
        record. A recorded value is NULL on both sides, hence equal."""
        layout = self.layout
        values = [value for value in chunk.unrepresentable if layout.shown(value.column)]
        found = unrepresentable_rows(
            self.state.target, layout, self.relation.key, chunk.rows, values, 0, 0
        )
        unknown = ~np.isin(_value_hashes(found), self._recorded_values())
        rows = np.array([value.row for value in values], np.int64)[unknown]
        contents = hashes.rows.copy()
        contents[rows] = mix(~contents[rows])
        return RowHashes(hashes.keys if self.pairing.key else contents, contents)

    def _recorded_values(self) -> Hashes:
        if self._recorded is None:
            wanted = ("table_name", *_VALUE_COLUMNS)
            parts = [np.empty(0, np.uint64)]
            for found in self.destination.scan(UNREPRESENTABLE_TABLE, wanted):
                own = pc.equal(found.column(0), self.state.target)
                parts.append(_value_hashes(found.filter(own)))
            self._recorded = np.concatenate(parts)
        return self._recorded


def _value_hashes(found: pa.Table) -> Hashes:
    return hash_rows([found.column(name) for name in _VALUE_COLUMNS], len(found))


def _within(
    buckets: npt.NDArray[np.bool_], chunks: Iterable[SourceRows] | Iterable[TargetRows]
) -> RowHashes:
    return joined([chunk.hashes.within(buckets) for chunk in chunks])
