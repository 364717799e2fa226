"""The checkpoint: the position in the WAL and each table's state, as the destination holds them.

A checkpoint names its source (`SourceIdentity`), so that it is never used with another cluster,
database or slot. The destination keeps it together with the data, as plain JSON types (`to_state`,
`from_state`).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from cdc_core.values.fingerprint import Fingerprint
from cdc_core.values.history import log_of, versions_of
from cdc_core.values.lsn import Lsn
from cdc_core.values.merges import TargetTable
from cdc_core.values.relation import TableName
from cdc_core.values.table_rules import NO_RULES, ColumnRule, TableRules

if TYPE_CHECKING:
    from collections.abc import Mapping

STATE_VERSION = 1

_REPLAY_OF = "replay of "

#: The Arrow types that cross the ports, besides decimals, by their text in a checkpoint.
_ARROW_TYPES: dict[str, pa.DataType] = {
    str(t): t
    for t in (
        pa.bool_(), pa.int16(), pa.int32(), pa.int64(), pa.float32(), pa.float64(),
        pa.string(), pa.binary(), pa.date32(), pa.timestamp("us"), pa.timestamp("us", tz="UTC"),
    )
}  # fmt: skip


@dataclass(frozen=True)
class SourceIdentity:
    """The WAL that an LSN belongs to. `system_id` comes from `IDENTIFY_SYSTEM`; a cluster shares it
    only with its copies. `timeline` separates promoted copies (0: not known)."""

    system_id: str
    database: str
    slot_name: str
    timeline: int = 0

    @property
    def is_replay(self) -> bool:
        """Whether it is a recording of a source; no run on a server continues from it."""
        return self.system_id.startswith(_REPLAY_OF)

    def as_replay(self) -> SourceIdentity:
        """The identity of a recording of this source."""
        return self if self.is_replay else replace(self, system_id=f"{_REPLAY_OF}{self.system_id}")


class TableStatus(Enum):
    STREAMING = "streaming"
    #: Its updates cannot be published: it equals the source only right after a snapshot.
    NOT_STREAMED = "not streamed"
    #: Must be read again: something changed its rows without row events.
    NEEDS_SNAPSHOT = "needs snapshot"
    #: Dropped at the source; the destination keeps it as it was.
    DROPPED = "dropped"


@dataclass(frozen=True)
class ColumnState:
    """A source column as it was last loaded, with the destination column that holds it."""

    attnum: int
    name: str
    target: str
    type_oid: int
    typmod: int
    arrow_type: pa.DataType
    dropped: bool = False
    rule: ColumnRule = ColumnRule.KEEP


@dataclass(frozen=True)
class FormerColumns:
    """An earlier set of columns that the stream sent for a table.

    `names` maps column numbers to names. `last` is the greatest column number at that time.
    Changes that commit after `until` do not use this set.
    """

    names: Mapping[int, str]
    last: int
    until: Lsn


@dataclass(frozen=True)
class TableState:
    """A table as it was last loaded.

    Its data contains every change that committed before `snapshot_lsn`. A difference between
    `fingerprint` and the catalog can mean that rows changed without row events. `former` holds the
    earlier column sets that coming changes may still use, oldest first.
    """

    oid: int
    table: TableName
    target: str
    columns: tuple[ColumnState, ...]
    key: tuple[str, ...]
    snapshot_lsn: Lsn
    status: TableStatus = TableStatus.STREAMING
    reason: str = ""
    fingerprint: Fingerprint = field(default_factory=Fingerprint)
    former: tuple[FormerColumns, ...] = ()
    #: The rules under which it was loaded.
    rules: TableRules = NO_RULES
    #: The number of the next image in its log. Numbers never return, also without a log.
    next_image: int = 1
    #: Whether what the destination has under its name is another table's: it has that name since it
    #: was read, and could not be renamed there.
    misplaced: bool = False

    @property
    def log(self) -> str | None:
        """The name of its log; None if it has none."""
        return log_of(self.target) if "log" in self.rules.history else None

    @property
    def versions(self) -> str | None:
        """The name of the table of its versions; None if it has none."""
        return versions_of(self.target) if "scd2" in self.rules.history and self.key else None

    @property
    def soft_deletes(self) -> bool:
        return self.rules.deletes == "soft" and bool(self.key)

    @property
    def names(self) -> dict[int, str]:
        """Names of the columns that the stream sends, by number."""
        return {column.attnum: column.name for column in self.columns if not column.dropped}

    @property
    def target_names(self) -> dict[str, str]:
        """The target column of each stored column that the source still has, by its name there."""
        return {column.name: column.target for column in self.stored if not column.dropped}

    @property
    def sent(self) -> dict[str, ColumnState]:
        """The columns that the source still has, by their names there."""
        return {column.name: column for column in self.columns if not column.dropped}

    @cached_property
    def column_rules(self) -> dict[str, ColumnRule]:
        """Rules of columns that the source still has, by every name that they had in the stream."""
        rules = {c.attnum: c.rule for c in self.sent.values() if c.rule is not ColumnRule.KEEP}
        moments = (*(moment.names for moment in self.former), self.names)
        return {
            name: rules[attnum]
            for moment in moments
            for attnum, name in moment.items()
            if attnum in rules
        }

    @property
    def stored(self) -> tuple[ColumnState, ...]:
        """The columns that the destination has."""
        return tuple(column for column in self.columns if column.rule.is_stored)

    @cached_property
    def target_table(self) -> TargetTable:
        """The destination table with every column that the source table ever had, in order, but
        for those that are excluded."""
        schema = pa.schema([(column.target, column.arrow_type) for column in self.stored])
        variants = (c.target for c in self.columns if c.rule.is_variant)
        cluster_by = self.rules.cluster_by
        if cluster_by != "auto":
            names = self.target_names
            cluster_by = tuple(names[name] for name in cluster_by if name in names)
        return TargetTable(self.target, schema, frozenset(variants), cluster_by)

    @property
    def target_key(self) -> tuple[str, ...]:
        """The target columns of the key; empty for a table without a key."""
        names = self.target_names
        return tuple(names[name] for name in self.key)

    @property
    def dropped_columns(self) -> tuple[str, ...]:
        """Target columns that the source no longer has."""
        return tuple(column.target for column in self.stored if column.dropped)

    def needs_snapshot(self, reason: str) -> TableState:
        """Return this state, marked as waiting to be read again for `reason`."""
        return replace(self, status=TableStatus.NEEDS_SNAPSHOT, reason=reason)

    def past(self, lsn: Lsn) -> TableState:
        """Return this state without the former column sets that no change from `lsn` on can use."""
        if not self.former:
            return self
        return replace(self, former=tuple(f for f in self.former if f.until >= lsn))

    def dropped(self) -> TableState:
        """Return this state, marked as no longer found at the source."""
        reason = "dropped at the source, or excluded"
        return replace(self, status=TableStatus.DROPPED, reason=reason)


@dataclass(frozen=True)
class WrittenRange:
    """A page range of a table, as the snapshot source writes it, whose rows the destination has
    stored under `name`."""

    page_range: str
    name: str
    rows: int


@dataclass(frozen=True)
class PartialReading:
    """A table that is being read by page ranges, and the ranges already read.

    They are valid for the same `description`, a hash of everything but the rows. When they were
    read, every transaction numbered below `horizon` had ended.
    """

    oid: int
    description: str
    horizon: int
    ranges: tuple[WrittenRange, ...] = ()

    @property
    def rows(self) -> int:
        return sum(written.rows for written in self.ranges)


@dataclass(frozen=True)
class Checkpoint:
    """Every change that committed at or before `lsn` is durable in the destination.

    `full_load` is the LSN at which an unfinished full load began. It has read the tables whose
    `snapshot_lsn` is at or past it; `reading` is the table that it is reading by page ranges.
    When the streamed tables were last compared with the catalog, every transaction of the source
    numbered below `horizon` had ended (0: not known).
    """

    source: SourceIdentity
    lsn: Lsn
    tables: Mapping[int, TableState] = field(default_factory=dict)
    committed_at: int | None = None
    full_load: Lsn | None = None
    reading: PartialReading | None = None
    horizon: int = 0

    def loaded(self, oid: int) -> bool:
        """Whether the unfinished full load has read a table, which is streamed since."""
        state = self.tables.get(oid)
        return (
            self.full_load is not None
            and state is not None
            and state.status is TableStatus.STREAMING
            and state.snapshot_lsn >= self.full_load
        )

    def advanced(self, lsn: Lsn, committed_at: int | None = None) -> Checkpoint:
        """This checkpoint at a later position; never moves back."""
        lsn = max(self.lsn, lsn)
        tables = {oid: state.past(lsn) for oid, state in self.tables.items()}
        committed_at = committed_at or self.committed_at
        return replace(self, lsn=lsn, committed_at=committed_at, tables=tables)

    def with_table(self, *states: TableState) -> Checkpoint:
        """Return this checkpoint with these states, which replace dropped tables that had their
        targets."""
        targets = {state.target for state in states}
        kept = {
            oid: state
            for oid, state in self.tables.items()
            if state.status is not TableStatus.DROPPED or state.target not in targets
        }
        return replace(self, tables={**kept, **{state.oid: state for state in states}})

    def to_state(self) -> dict[str, Any]:
        return {
            "version": STATE_VERSION,
            "source": {
                "system_id": self.source.system_id,
                "database": self.source.database,
                "slot_name": self.source.slot_name,
                "timeline": self.source.timeline,
            },
            "lsn": str(self.lsn),
            "committed_at": self.committed_at,
            "full_load": None if self.full_load is None else str(self.full_load),
            "tables": [_table_to_state(state) for _, state in sorted(self.tables.items())],
            "reading": None if self.reading is None else _reading_to_state(self.reading),
            "horizon": self.horizon,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Checkpoint:
        """Inverse of `to_state`; `ValueError` for a version this library does not know."""
        if state.get("version") != STATE_VERSION:
            raise ValueError(f"checkpoint version {state.get('version')!r} is not {STATE_VERSION}")
        tables = (_table_from_state(table) for table in state["tables"])
        return cls(
            source=SourceIdentity(**state["source"]),
            lsn=Lsn.parse(state["lsn"]),
            committed_at=state.get("committed_at"),
            full_load=Lsn.parse(state["full_load"]) if state.get("full_load") else None,
            tables={table.oid: table for table in tables},
            reading=_reading_from_state(state["reading"]) if state.get("reading") else None,
            horizon=state.get("horizon", 0),
        )


def _reading_to_state(reading: PartialReading) -> dict[str, Any]:
    return {
        "oid": reading.oid,
        "description": reading.description,
        "horizon": reading.horizon,
        "parts": [[found.page_range, found.name, found.rows] for found in reading.ranges],
    }


def _reading_from_state(state: Mapping[str, Any]) -> PartialReading:
    ranges = tuple(WrittenRange(*written) for written in state["parts"])
    return PartialReading(state["oid"], state["description"], state["horizon"], ranges)


def _table_to_state(state: TableState) -> dict[str, Any]:
    return {
        "oid": state.oid,
        "schema": state.table.schema,
        "name": state.table.name,
        "target": state.target,
        "columns": [
            [
                c.attnum,
                c.name,
                c.target,
                c.type_oid,
                c.typmod,
                str(c.arrow_type),
                c.dropped,
                *([] if c.rule is ColumnRule.KEEP else [c.rule.value]),
            ]
            for c in state.columns
        ],
        "key": list(state.key),
        "snapshot_lsn": str(state.snapshot_lsn),
        "status": state.status.value,
        "reason": state.reason,
        "fingerprint": state.fingerprint.to_text(),
        "former": [[list(f.names.items()), f.last, str(f.until)] for f in state.former],
        "rules": {} if state.rules == NO_RULES else state.rules.to_state(),
        "next_image": state.next_image,
        "misplaced": state.misplaced,
    }


def _table_from_state(state: Mapping[str, Any]) -> TableState:
    return TableState(
        oid=state["oid"],
        table=TableName(state["schema"], state["name"]),
        target=state["target"],
        columns=tuple(_column_from_state(*column) for column in state["columns"]),
        key=tuple(state["key"]),
        snapshot_lsn=Lsn.parse(state["snapshot_lsn"]),
        status=TableStatus(state["status"]),
        reason=state["reason"],
        fingerprint=Fingerprint.from_text(state["fingerprint"]),
        # Checkpoints of older versions do not have this.
        former=tuple(
            FormerColumns(dict(names), last, Lsn.parse(until))
            for names, last, until in state.get("former", ())
        ),
        rules=TableRules.from_state(state.get("rules", {})),
        next_image=state.get("next_image", 1),
        misplaced=state.get("misplaced", False),
    )


def _column_from_state(
    attnum: int,
    name: str,
    target: str,
    type_oid: int,
    typmod: int,
    arrow_type: str,
    dropped: bool,
    rule: str = ColumnRule.KEEP.value,
) -> ColumnState:
    found = _arrow_type(arrow_type)
    return ColumnState(attnum, name, target, type_oid, typmod, found, dropped, ColumnRule(rule))


@lru_cache(maxsize=1024)
def _arrow_type(text: str) -> pa.DataType:
    """Inverse of `str(arrow_type)` for the types that cross the ports."""
    if text.startswith("list<"):
        return pa.list_(_arrow_type(text.partition(": ")[2][:-1]))
    if text.startswith("decimal128("):
        precision, scale = text[len("decimal128(") : -1].split(",")
        return pa.decimal128(int(precision), int(scale))
    return _ARROW_TYPES[text]
