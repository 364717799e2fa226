"""Errors with a cure, for people and for programs.

Every message is one line: what happened, where (table, slot, LSN, setting), and the cure. No
message holds a password or a row's values. The class decides the exit code of a command and whether
to retry.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from cdc_core.values.relation import tables_option

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class CdcError(Exception):
    """Base of every error that this library raises on purpose.

    `what` happened; `cure` is a sentence or a statement that corrects it. `str()` is one line with
    both.
    """

    exit_code: ClassVar[int] = 1
    #: Whether the same run can succeed later without anyone acting.
    retryable: ClassVar[bool] = True

    def __init__(self, what: str, cure: str = "") -> None:
        self.what = _one_line(what)
        self.cure = _one_line(cure)
        super().__init__(f"{self.what}; {self.cure}" if self.cure else self.what)


class DecodeError(CdcError):
    """A replication message breaks the protocol; nothing of its batch was applied."""


class SourceUnavailable(CdcError):
    """PostgreSQL cannot be reached or went away."""


class SnapshotGone(SourceUnavailable):
    """No session holds the snapshot of a full load any more, so nothing else can be read in it."""

    def __init__(self) -> None:
        super().__init__(
            "the snapshot is gone: PostgreSQL ended all sessions that held it",
            "run again",
        )


class TablesLocked(SourceUnavailable):
    """Tables could not be added to the publication, for other sessions have locked them."""

    def __init__(self, tables: Iterable[str], others: str = "") -> None:
        names = ", ".join(sorted(tables))
        super().__init__(
            f"locked by another session, so not added to the publication: {names}{others}",
            "run again when that session's transaction has ended",
        )


class DestinationUnavailable(CdcError):
    """The destination cannot be reached or went away."""


class DestinationFailed(CdcError):
    """The destination refused a load; nothing after the last checkpoint counts."""


class DestinationForbidden(CdcError):
    """A privilege is missing at the destination: running again does not help before a grant."""

    exit_code = 3
    retryable = False


class DestinationRefused(DestinationFailed):
    """The destination refused definitions or rows of `tables`, the reason by target name.

    Others of the batch may have been applied. Loading them again without these tables is safe.
    """

    retryable = False

    def __init__(self, tables: Mapping[str, str]) -> None:
        self.tables = dict(tables)
        super().__init__("; ".join(str(self.of(name)) for name in sorted(tables)))

    def of(self, target: str) -> DestinationFailed:
        """The error of one table."""
        return DestinationFailed(
            f"the destination refuses table {target!r}: {self.tables[target]}",
            "change there what it refuses",
        )


class SettingsError(CdcError):
    """A setting or the command line is wrong, including rejected credentials."""

    exit_code = 2
    retryable = False


class RulesError(SettingsError):
    """A rule for single tables does not fit the table that it matches; no command continues."""


class PoolerInFront(SettingsError):
    """The source's address is that of a connection pooler, whose sessions are not ours alone."""


class OperatorNeeded(CdcError):
    """The source needs an operator: slot lost, privilege missing, re-snapshot required."""

    exit_code = 3
    retryable = False


class ContinuityLost(OperatorNeeded):
    """Changes between the checkpoint and the slot are gone; a new snapshot is needed."""


class NeverLoaded(OperatorNeeded):
    """There is neither a checkpoint nor a slot: no snapshot was ever taken."""

    def __init__(self) -> None:
        super().__init__(
            "the destination has no checkpoint: no snapshot was taken yet",
            "run: pgbronze snapshot",
        )


class DefinitionChanged(CdcError):
    """Tables could not be read: their definitions changed whenever it was tried."""

    def __init__(self, tables: Iterable[str]) -> None:
        names = ", ".join(sorted(tables))
        super().__init__(f"definitions change while tables are read: {names}", "run again later")


class WriterBusy(OperatorNeeded):
    """Another run holds the slot."""

    retryable = True


class TablesRefused(OperatorNeeded):
    """The run loaded every other table; these the source refuses to read, each with its error."""

    def __init__(self, tables: Mapping[str, CdcError]) -> None:
        names = ", ".join(f"{name} ({error.what})" for name, error in sorted(tables.items()))
        cures = [error.cure for _, error in sorted(tables.items()) if error.cure]
        super().__init__(
            f"not read: {names}; every other table is loaded",
            "; ".join([*dict.fromkeys(cures), "then run again"]),
        )


class TablesNeedSnapshot(OperatorNeeded):
    """The run brought every other table up to date; these must be read again.

    `frozen`: some of them because changes of definitions are not to be followed; `unfit`: some
    because the destination refused them.
    """

    def __init__(
        self, tables: dict[str, str], *, frozen: bool = False, unfit: bool = False
    ) -> None:
        self.tables = dict(tables)
        names = ", ".join(f"{name} ({why})" for name, why in sorted(tables.items()))
        super().__init__(
            f"not followed by the stream: {names}; every other table is up to date",
            ("change what the destination refuses, then " if unfit else "")
            + f"run: pgbronze snapshot {tables_option(tables)}"
            + (', or undo it, or set pipeline.schema_changes = "evolve"' if frozen else ""),
        )


def _one_line(text: str) -> str:
    return " ".join(text.split())
