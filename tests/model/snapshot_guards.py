"""A model of the sessions that keep an exported snapshot, as `SnapshotGuards` does.

The slot's session exported the snapshot, guards imported it and export it again. Readers of page
ranges import it from any session that is left, and lose their sessions too. The application commits
meanwhile. A range that is read in another snapshot does not fit the others. Holders are lost one at
a time, with a check of the guards before the next; a restart of the server ends all of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from minicheck import Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

    Step = tuple[str, "State"]

RANGES = 3
#: Sessions of holders: the one that created the slot, and two guards.
HOLDERS = 3

GUARDS = {
    "a session reads only in the exported snapshot": "the ranges are of different moments",
    "a lost guard is replaced from one that is left": "three lost sessions end the snapshot",
}


class State(NamedTuple):
    #: The commits at the source since the snapshot.
    commits: int = 0
    #: Sessions that hold the snapshot.
    holders: tuple[bool, ...] = (True,) * HOLDERS
    #: What each range was read at: the commits that its session saw.
    ranges: tuple[int, ...] = ()
    #: What the open reader sees; None without one.
    reader: int | None = None
    #: Whether the guards were checked since a holder was lost.
    checked: bool = True
    restarted: bool = False
    #: Sessions of readers that may still be lost.
    losses: int = 2


class SnapshotSessions:
    def __init__(self, *removed: str) -> None:
        assert {*removed} <= GUARDS.keys()
        self.removed = frozenset(removed)

    def protocol(self) -> Protocol:
        return Protocol(
            name="snapshot guards",
            candidate=not self.removed,
            fields=State._fields,
            initial=State(),
            transitions=lambda state: list(self.steps(State(*state))),
            invariants={
                "every range is read at the snapshot": lambda fields: not any(fields["ranges"]),
                "the snapshot outlives its sessions": lambda fields: (
                    fields["restarted"] or any(fields["holders"])
                ),
            },
            goal=lambda fields: fields["restarted"] or len(fields["ranges"]) == RANGES,
        )

    def steps(self, s: State) -> Iterator[Step]:
        if s.commits < 2:
            yield "commit", s._replace(commits=s.commits + 1)
        if s.reader is None and len(s.ranges) < RANGES:
            if any(s.holders):
                yield "a reader imports the snapshot", s._replace(reader=0)
            elif "a session reads only in the exported snapshot" in self.removed:
                yield "a reader begins without it", s._replace(reader=s.commits)
        if s.reader is not None:
            yield "a range is read", s._replace(ranges=(*s.ranges, s.reader), reader=None)
        if s.losses and s.reader is not None:
            yield "the reader's session is lost", s._replace(reader=None, losses=s.losses - 1)
        if not s.restarted:
            gone = (False,) * HOLDERS
            yield "the server restarts", s._replace(holders=gone, reader=None, restarted=True)
        if s.checked:
            for number, alive in enumerate(s.holders):
                if alive:
                    left = _set(s.holders, number, alive=False)
                    yield f"holder {number} is lost", s._replace(holders=left, checked=False)
        else:
            yield "the guards are checked", s._replace(holders=self._replaced(s), checked=True)

    def _replaced(self, s: State) -> tuple[bool, ...]:
        """The holders after a check. The first session cannot be replaced: it created the slot."""
        if "a lost guard is replaced from one that is left" in self.removed or not any(s.holders):
            return s.holders
        return (s.holders[0], *(True for _ in s.holders[1:]))


def _set(holders: tuple[bool, ...], number: int, *, alive: bool) -> tuple[bool, ...]:
    return (*holders[:number], alive, *holders[number + 1 :])
