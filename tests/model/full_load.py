"""A model of a full load that is killed and goes on, and of the stream that follows it.

A table of two page ranges, each with one row. The application updates either row; the first range
is kept once it is read. Positions are numbers of commits, a row is the position that wrote it. The
slot keeps everything since position 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from minicheck import Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

    Step = tuple[str, "State"]
    Rows = tuple[int, int]

COMMITS = 4

GUARDS = {
    "a kept range counts only if its rows are unchanged": "a change of it is lost",
    "all ranges are read in one snapshot": "the table is of no moment",
    "a table counts as read after its rows are durable": "a crash loses its changes",
    "a row of the snapshot has its LSN": "the stream puts older rows over newer ones",
    "a run removes the files of dead runs": "a late replacement undoes the stream",
}


class Load(NamedTuple):
    """A run that reads. `kept` is the first range as it stands in this run's load."""

    snapshot: int
    kept: int | None = None
    second: int | None = None
    replaced: bool = False


class State(NamedTuple):
    #: `0` or `1` for each commit: which row it updates.
    wal: str = ""
    #: The table's rows, and the position that each shows as its `_cdc_lsn`.
    rows: Rows | None = None
    stamps: Rows = (0, 0)
    #: Whether the checkpoint says that the table is read; up to where the stream has come.
    read: bool = False
    #: The snapshot that it was read in.
    read_at: int = 0
    checkpoint: int = 0
    #: The first range, and the snapshot that it was read in.
    kept: tuple[int, int] | None = None
    load: Load | None = None
    #: A replacement that a dead run had sent: rows and LSN.
    left: tuple[Rows, int] | None = None
    deaths: int = 0


class FullLoad:
    def __init__(self, *removed: str) -> None:
        assert {*removed} <= GUARDS.keys()
        self.removed = frozenset(removed)

    def has(self, guard: str) -> bool:
        assert guard in GUARDS
        return guard not in self.removed

    def protocol(self) -> Protocol:
        return Protocol(
            name="full load",
            candidate=not self.removed,
            fields=State._fields,
            initial=State(),
            transitions=lambda state: list(self.steps(State(*state))),
            invariants={
                "the table equals the source once all is loaded": lambda fields: equal(
                    State(**fields)
                ),
                "the table is of one moment": lambda fields: of_one_moment(State(**fields)),
                "rows never go back": lambda fields: not_older(State(**fields)),
            },
            goal=lambda fields: _at_rest(State(**fields)),
        )

    def steps(self, s: State) -> Iterator[Step]:
        if len(s.wal) < COMMITS:
            for row in "01":
                yield f"commit to row {row}", s._replace(wal=s.wal + row)
        if s.left is not None:
            rows, lsn = s.left
            yield "late replacement", s._replace(rows=rows, stamps=(lsn, lsn), left=None)
            yield "late replacement fails", s._replace(left=None)
        if s.load is not None:
            yield from self._loading(s, s.load)
        elif not s.read:
            yield "snapshot begins", self._begun(s)
        elif s.checkpoint < len(s.wal):
            # One transaction a run: a batch is one load.
            yield "cdc loads a transaction", self._streamed(self._swept(s))

    def _swept(self, s: State) -> State:
        if self.has("a run removes the files of dead runs"):
            return s._replace(left=None)
        return s

    def _begun(self, s: State) -> State:
        s, now = self._swept(s), len(s.wal)
        kept = None
        if s.kept is not None:
            value, at = s.kept
            unchanged = "0" not in s.wal[at:now]
            if unchanged or not self.has("a kept range counts only if its rows are unchanged"):
                kept = value
        return s._replace(load=Load(now, kept))

    def _loading(self, s: State, load: Load) -> Iterator[Step]:
        if s.deaths < 2:
            left = s.left
            if load.kept is not None and load.second is not None and not load.replaced:
                left = (load.kept, load.second), load.snapshot
            yield "snapshot dies", s._replace(load=None, left=left, deaths=s.deaths + 1)
        if load.kept is None:
            value = row_at(s.wal, 0, load.snapshot)
            loaded = s._replace(load=load._replace(kept=value), kept=(value, load.snapshot))
            yield "first range is read and kept", loaded
        elif load.second is None:
            one = self.has("all ranges are read in one snapshot")
            value = row_at(s.wal, 1, load.snapshot if one else len(s.wal))
            yield "second range is read", s._replace(load=load._replace(second=value))
        elif not load.replaced:
            rows = (load.kept, load.second)
            at = load.snapshot if self.has("a row of the snapshot has its LSN") else 0
            after = s._replace(load=load._replace(replaced=True), rows=rows, stamps=(at, at))
            if not self.has("a table counts as read after its rows are durable"):
                after = after._replace(load=None)
                s = s._replace(read=True, read_at=load.snapshot)
                if not after.read:
                    yield "checkpoint: the table is read", s
                    after = after._replace(read=True, read_at=load.snapshot)
            yield "table is replaced", after
        else:
            done = s._replace(load=None, read=True, read_at=load.snapshot, kept=None)
            yield "checkpoint: the table is read", done

    def _streamed(self, s: State) -> State:
        """The stream goes on from the slot, which may be before the snapshot."""
        position = s.checkpoint + 1
        row = int(s.wal[position - 1])
        if s.rows is None or s.stamps[row] >= position:
            return s._replace(checkpoint=position)
        rows, stamps = list(s.rows), list(s.stamps)
        rows[row] = stamps[row] = position
        return s._replace(
            rows=(rows[0], rows[1]), stamps=(stamps[0], stamps[1]), checkpoint=position
        )


def row_at(wal: str, row: int, position: int) -> int:
    """The commit that last wrote a row, as of a position; 0: it is as it was created."""
    return wal[:position].rfind(str(row)) + 1


def _at_rest(s: State) -> bool:
    return s.read and not (s.load or s.left) and s.checkpoint == len(s.wal)


def equal(s: State) -> bool:
    now = len(s.wal)
    return not _at_rest(s) or s.rows == (row_at(s.wal, 0, now), row_at(s.wal, 1, now))


def of_one_moment(s: State) -> bool:
    """Until the stream has passed the snapshot, the table is as the source was there."""
    if not s.read or s.load or s.checkpoint > s.read_at:
        return True
    return s.rows == (row_at(s.wal, 0, s.read_at), row_at(s.wal, 1, s.read_at))


def not_older(s: State) -> bool:
    """Once the table is read, no row is older than the snapshot or the checkpoint."""
    if not s.read or s.rows is None:
        return True
    passed = max(s.checkpoint, s.read_at)
    return all(s.rows[row] >= row_at(s.wal, row, passed) for row in (0, 1))
