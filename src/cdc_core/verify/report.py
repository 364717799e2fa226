"""What `verify` reports: for each table how many rows differ, and which."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from cdc_core.values.errors import CdcError, OperatorNeeded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cdc_core.values.lsn import Lsn

Kind = Literal["missing", "extra", "different"]


@dataclass(frozen=True)
class DifferingKey:
    """`key` is a JSON object of destination column and text."""

    kind: Kind
    key: str


@dataclass(frozen=True)
class TableParity:
    """The result for one table, before any repair.

    Rows of a table without a key cannot be named: there `missing` and `extra` count copies.
    """

    table: str
    target: str
    source_rows: int = 0
    target_rows: int = 0
    missing: int = 0
    extra: int = 0
    different: int = 0
    keys: tuple[DifferingKey, ...] = ()
    #: Why columns could not be compared, or the table not at all; empty if they could.
    problem: str = ""
    #: A remark: the table is not streamed, or how to repair it.
    note: str = ""
    repaired: bool = False
    #: Whether both sides could be read; if not, there are no counts.
    compared: bool = True
    #: The source refuses to let it be read; an operator can change that.
    refused: bool = False

    @property
    def differing(self) -> int:
        return self.missing + self.extra + self.different

    @property
    def equal(self) -> bool:
        """As it is now."""
        return self.repaired or not (self.differing or self.problem)


@dataclass(frozen=True)
class ParityReport:
    """`lag_bytes` is the WAL between the checkpoint and the snapshot of the source. Changes in it
    show as differences; the next `cdc` brings them."""

    checkpoint_lsn: Lsn
    source_lsn: Lsn
    tables: Sequence[TableParity]
    #: Why the stream cannot continue from the checkpoint; empty if it can.
    problem: str = ""

    @property
    def lag_bytes(self) -> int:
        return max(0, self.source_lsn - self.checkpoint_lsn)

    @property
    def equal(self) -> bool:
        return all(table.equal for table in self.tables)

    @property
    def summary(self) -> str:
        """Which tables differ, in one line; empty if none does."""
        names = ", ".join(table.table for table in self.tables if not table.equal)
        return f"not equal to the source: {names}" if names else ""

    @property
    def exit_code(self) -> int:
        """1 if anything differs or failed; 3 if the only problem is tables that an operator must
        make readable."""
        if self.equal:
            return 0
        refused = all(table.equal or table.refused for table in self.tables)
        return OperatorNeeded.exit_code if refused else CdcError.exit_code
