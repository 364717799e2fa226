"""A plan: the run that comes next, and what it would do with each table."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cdc_core.ports.catalog import PassedOver
    from cdc_core.ports.change_source import SlotState
    from cdc_core.values.checkpoint import SourceIdentity
    from cdc_core.values.lsn import Lsn


class Run(Enum):
    SNAPSHOT = "snapshot"
    CDC = "cdc"


class Action(Enum):
    """READ: the whole table. STREAM: the changes that the slot sends. STAY: nothing, and the
    destination keeps what it has. SET_ASIDE: nothing until an operator acts, and the run ends with
    exit code 3."""

    READ = "read"
    STREAM = "stream"
    STAY = "stay"
    SET_ASIDE = "set aside"


class DefinitionKind(Enum):
    CREATE_TABLE = "create table"
    #: The table's rows, and its columns if they differ, in one step.
    REPLACE_TABLE = "replace table"
    RENAME_TABLE = "rename table"
    RENAME_COLUMN = "rename column"
    ADD_COLUMN = "add column"
    WIDEN_COLUMN = "widen column"


@dataclass(frozen=True)
class Definition:
    """A change of a table's definition in the destination. `column` is the column's name afterwards
    and `type` its type; `was` is the former name or type."""

    kind: DefinitionKind
    table: str
    column: str = ""
    type: str = ""
    was: str = ""


@dataclass(frozen=True)
class PlannedColumn:
    """A column with its types at both ends. `losses` are sentences about values and about the type
    that the destination cannot show as they are."""

    name: str
    type: str
    target: str
    target_type: str
    key: bool = False
    losses: tuple[str, ...] = ()


@dataclass(frozen=True)
class LeftOutColumn:
    """A column of the source that does not reach the destination."""

    name: str
    why: str


@dataclass(frozen=True)
class PlannedTable:
    """What happens to one table. `rows` and `bytes` are the source's estimates of what is read, 0
    where nothing is."""

    table: str
    target: str
    action: Action
    reason: str = ""
    columns: tuple[PlannedColumn, ...] = ()
    left_out: tuple[LeftOutColumn, ...] = ()
    #: Columns of the destination that the source has dropped.
    dropped_columns: tuple[str, ...] = ()
    definitions: tuple[Definition, ...] = ()
    #: Sentences about the table as a whole.
    notes: tuple[str, ...] = ()
    rows: int = 0
    bytes: int = 0
    #: The rules of the settings that are not the default; see `rules_shown`.
    rules: Mapping[str, Any] = field(default_factory=dict)
    #: History tables that get the difference of the rows that are read.
    history: tuple[str, ...] = ()

    @property
    def statements(self) -> int:
        """How many statements send the definitions and the rows that are read: one for all added
        columns, one for each other definition, one for each history table."""
        added = sum(d.kind is DefinitionKind.ADD_COLUMN for d in self.definitions)
        return len(self.definitions) - added + min(added, 1) + len(self.history)


@dataclass(frozen=True)
class RunPlan:
    """`why` this run comes next, and the `problem` that an operator must know before (or empty).

    `wal_bytes`: how much WAL the run decodes, None for a snapshot that starts over. `at_source` are
    the changes of slot and publication.
    """

    run: Run
    why: str
    source: SourceIdentity
    slot: SlotState | None
    checkpoint: Lsn | None
    current: Lsn
    problem: str = ""
    at_source: tuple[str, ...] = ()
    tables: tuple[PlannedTable, ...] = ()
    passed_over: Sequence[PassedOver] = ()
    wal_bytes: int | None = None

    @property
    def statements(self) -> int:
        """Statements for definitions and for tables read. The stream adds one for each table and
        batch with changes."""
        return sum(table.statements for table in self.tables)

    @property
    def bytes(self) -> int:
        """Rough bytes that the run reads at the source."""
        return sum(table.bytes for table in self.tables) + (self.wal_bytes or 0)
