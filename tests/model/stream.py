"""A model of the stream: slot, checkpoint, writer lock, statements that run late or twice, history.

Two tables. The source commits a few transactions of two kinds. `U` inserts or updates
the one row of the table with a key, and adds a copy of a row to the table without one. `D` deletes
the row and one copy. A position is the number of commits before it. A row at the destination is the
position of the commit that wrote it, 0 for no row. Copies have a count and the position that their
last change left, as in `MultisetMerge`.

A run does what `StreamChanges` does for each batch: history, one merge for each table, checkpoint,
confirm. It can die between any two of them. The statement that it had sent then may still be
applied, until the next run removes its files. A lost answer makes the connector send a merge again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from minicheck import Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

    Step = tuple[str, "State"]

#: Transactions in a batch.
BATCHES = (1, 3)

#: What the design relies on, by name. Each can be taken out of the model.
GUARDS = {
    "a merge skips rows with a newer _cdc_lsn": "a row goes back, copies are counted twice",
    "a merge is one atomic statement": "readers see a row missing",
    "history is written before its table": "a crash loses history",
    "history is unique by _sort_by": "history holds a change twice",
    "the checkpoint follows the data": "a crash loses changes",
    "the slot follows the checkpoint": "the slot passes the data",
    "one writer holds the lock": "two runs write at the same time",
    "slot and checkpoint are compared": "changes are skipped in silence",
    "a run removes the files of dead runs": "a statement of a dead run undoes a newer one",
}


class Run(NamedTuple):
    """A run at work. `done` lists what it has done for the batch from `start` to `end`."""

    size: int
    until: int
    start: int
    end: int
    done: tuple[str, ...] = ()


class State(NamedTuple):
    wal: str = ""
    slot: int = 0
    #: Whether somebody dropped the slot and created it again.
    recreated: bool = False
    checkpoint: int = 0
    row: int = 0
    #: The newest version that readers have seen since the row last appeared.
    seen: int = 0
    #: Copies in the table without a key: how many, and up to which position they are counted.
    copies: int = 0
    counted: int = 0
    #: How often the history holds each change.
    history: tuple[int, ...] = ()
    first: Run | None = None
    second: Run | None = None
    #: The statement of a dead run: what it does, and for which batch.
    left: tuple[str, int, int] | None = None
    #: Whether a merge was interrupted between its two halves (only if it is not atomic).
    torn: bool = False


HISTORY, CHECKPOINT, CONFIRM = "history", "checkpoint", "confirm"
MERGES = KEYED, HEAP = "merge keyed", "merge heap"


class Stream:
    """The model without the guards in `removed`, with up to so many commits at the source."""

    def __init__(self, *removed: str, commits: int = 4) -> None:
        assert {*removed} <= GUARDS.keys()
        self.commits = commits
        self.removed = frozenset(removed)
        order = [HISTORY, *MERGES, CHECKPOINT, CONFIRM]
        if "history is written before its table" in removed:
            order = [*MERGES, CHECKPOINT, HISTORY, CONFIRM]
        if "the checkpoint follows the data" in removed:
            order = [HISTORY, CHECKPOINT, *MERGES, CONFIRM]
        if "the slot follows the checkpoint" in removed:
            order = [HISTORY, *MERGES, CONFIRM, CHECKPOINT]
        self.order = order

    def has(self, guard: str) -> bool:
        assert guard in GUARDS
        return guard not in self.removed

    def protocol(self) -> Protocol:
        return Protocol(
            name="stream",
            candidate=not self.removed,
            fields=State._fields,
            initial=State(history=(0,) * self.commits),
            transitions=lambda state: list(self.steps(State(*state))),
            invariants={
                name: lambda fields, holds=holds: holds(State(**fields))
                for name, holds in INVARIANTS.items()
            },
            goal=lambda fields: self.all_is_loaded(State(**fields)),
        )

    def all_is_loaded(self, s: State) -> bool:
        """Where runs must be able to lead from anywhere, unless somebody created the slot again."""
        return s.recreated or (_at_rest(s) and len(s.wal) == self.commits)

    # Steps. A label names who does what.

    def steps(self, s: State) -> Iterator[Step]:
        yield from self._application(s)
        yield from self._operator(s)
        if s.left is not None:
            what, start, end = s.left
            yield "late statement", self._applied(s, what, start, end)._replace(left=None)
            yield "late statement fails", s._replace(left=None)
        for who, run in (("first", s.first), ("second", s.second)):
            if run is None:
                if self._may_start(s):
                    for size in BATCHES:
                        yield f"{who} starts, {size} a batch", self._started(s, who, size)
            else:
                yield from self._goes_on(s, who, run)

    def _application(self, s: State) -> Iterator[Step]:
        if len(s.wal) < self.commits:
            yield "commit U", s._replace(wal=s.wal + "U")
            if s.wal.endswith("U"):
                yield "commit D", s._replace(wal=s.wal + "D")

    def _operator(self, s: State) -> Iterator[Step]:
        if s.first or s.second:
            return
        if s.slot > 0 and not s.recreated:
            yield "server restarts, slot is back", s._replace(slot=s.slot - 1)
        if not s.recreated and s.slot < len(s.wal):
            yield "slot is created again", s._replace(slot=len(s.wal), recreated=True)

    def _may_start(self, s: State) -> bool:
        if self.has("one writer holds the lock") and (s.first or s.second):
            return False
        return s.slot <= s.checkpoint or not self.has("slot and checkpoint are compared")

    def _started(self, s: State, who: str, size: int) -> State:
        if self.has("a run removes the files of dead runs"):
            s = s._replace(left=None)
        start = max(s.checkpoint, s.slot)
        return self._with(s, who, _batch(size, len(s.wal), start))

    def _goes_on(self, s: State, who: str, run: Run) -> Iterator[Step]:
        if run.start >= run.until:
            yield f"{who} ends", self._with(s, who, None)
            return
        what = self.order[len(run.done)]
        after = self._applied(s, what, run.start, run.end)
        atomic = self.has("a merge is one atomic statement")
        if what == KEYED and not atomic and s.row and not s.torn:
            yield f"{who}: half a merge", s._replace(row=0, seen=0, torn=True)
        elif what == self.order[-1]:
            yield f"{who}: {what}", self._with(after, who, _batch(run.size, run.until, run.end))
        else:
            yield f"{who}: {what}", self._with(after, who, run._replace(done=(*run.done, what)))
        if run.done and run.done[-1] in MERGES:
            again = self._applied(s, run.done[-1], run.start, run.end)
            yield f"{who}: {run.done[-1]} is sent again", again
        # What it has sent may be applied after its death.
        left = (what, run.start, run.end) if what in (HISTORY, *MERGES) else None
        dead = self._with(s, who, None)
        yield f"{who} dies", dead._replace(left=left or s.left)

    def _with(self, s: State, who: str, run: Run | None) -> State:
        return s._replace(first=run) if who == "first" else s._replace(second=run)

    # Effects.

    def _applied(self, s: State, what: str, start: int, end: int) -> State:
        guarded = self.has("a merge skips rows with a newer _cdc_lsn")
        match what:
            case "history":
                counts = list(s.history)
                for position in range(start, end):
                    if not (counts[position] and self.has("history is unique by _sort_by")):
                        counts[position] = min(2, counts[position] + 1)
                return s._replace(history=tuple(counts))
            case "merge keyed":
                s = s._replace(torn=False)
                if guarded and s.row >= end:
                    return s
                row = end if s.wal[end - 1] == "U" else 0
                return s._replace(row=row, seen=max(s.seen, row) if row else 0)
            case "merge heap":
                copies, counted = s.copies, s.counted
                for position in range(start + 1, end + 1):
                    if not guarded or position > s.counted:
                        copies = max(0, copies + (1 if s.wal[position - 1] == "U" else -1))
                        counted = position
                return s._replace(copies=copies, counted=counted if copies else 0)
            case "checkpoint":
                # It never moves back within a run, but another run may have moved it on.
                return s._replace(checkpoint=end)
            case _:
                return s._replace(slot=max(s.slot, end))


def _batch(size: int, until: int, start: int) -> Run:
    return Run(size, until, start, min(until, start + size))


# Invariants.


def source_row(wal: str, position: int) -> int:
    """The row at the source after so many commits."""
    return position if position and wal[position - 1] == "U" else 0


def slot_follows_the_data(s: State) -> bool:
    """The slot is at or before the checkpoint, unless somebody else created it again."""
    return s.recreated or s.slot <= s.checkpoint


def rows_never_go_back(s: State) -> bool:
    """While the row is there, no older version replaces a newer one."""
    return not s.row or s.row >= s.seen


def readers_see_a_commit(s: State) -> bool:
    """The row is the source's at some commit that is not older than the checkpoint."""
    return any(
        s.row == source_row(s.wal, position) for position in range(s.checkpoint, len(s.wal) + 1)
    )


def _at_rest(s: State) -> bool:
    """All is loaded, and nothing is under way."""
    return not (s.first or s.second or s.left) and s.checkpoint == len(s.wal)


def nothing_is_lost(s: State) -> bool:
    """Once all is loaded, the tables equal the source."""
    copies = s.wal.count("U") - s.wal.count("D")
    return not _at_rest(s) or (s.row, s.copies) == (source_row(s.wal, len(s.wal)), copies)


def history_is_exact(s: State) -> bool:
    """The history holds every change once, and none that the source did not commit."""
    return not _at_rest(s) or sum(s.history) == sum(s.history[: len(s.wal)]) == len(s.wal)


def history_holds_nothing_twice(s: State) -> bool:
    return all(count <= 1 for count in s.history)


INVARIANTS = {
    "the slot follows the data": slot_follows_the_data,
    "readers see a commit that is not older than the checkpoint": readers_see_a_commit,
    "a row never goes back to an older version": rows_never_go_back,
    "nothing is lost, nothing is there twice": nothing_is_lost,
    "history is exact once all is loaded": history_is_exact,
    "history holds nothing twice": history_holds_nothing_twice,
}
