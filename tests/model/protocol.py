"""The protocol between slot, checkpoint, staged files and tables, as a finite state machine.

Commits are numbered from 1; each sets or deletes the one row of one of two tables. A row is (value,
LSN): the commit that set it, and the LSN that the destination stores with it. A run is a full load
or a stream; it can be killed between any two steps. A statement that was sent stays in flight until
its staged files are removed: it may run late, and again.

What keeps this safe are the guards. The checks remove each of them in turn: one that could go
without a violation is no guard, or its danger is not in the model.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, TypeAlias

from minicheck import Protocol

Guard: TypeAlias = Literal[
    "lock", "clean", "remove", "lsn", "checkpoint last", "confirm last", "continuity", "export"
]

#: What each guard is in the product.
GUARDS: dict[Guard, str] = {
    "lock": "a run takes the writer lock of its slot",
    "clean": "a run removes the staged files of dead runs before its first statement",
    "remove": "a statement's staged files are removed once it is answered",
    "lsn": "a merge changes a row only if its _cdc_lsn is older",
    "checkpoint last": "the checkpoint is written after the data",
    "confirm last": "the slot moves only to a durable checkpoint",
    "continuity": "a stream refuses a slot that does not continue its checkpoint",
    "export": "every reader of a full load reads in the exported snapshot",
}
ALL = frozenset(GUARDS)

#: What a commit does: sets or deletes the row of table 0 or 1.
OPS = ("set 0", "delete 0", "set 1")
TABLES = (0, 1)

Row: TypeAlias = "tuple[int, int] | None"


class Statement(NamedTuple):
    """A merge of the commits after `low` up to `high`, or a replacement by the rows at `high`."""

    kind: Literal["merge", "replace"]
    table: int
    low: int
    high: int
    #: A replacement's row.
    row: Row = None


class Run(NamedTuple):
    """A run under way. `todo` are the tables of the batch whose statements are not answered."""

    kind: Literal["cdc", "snapshot"]
    step: Literal["begun", "reading", "sent", "loaded", "durable"]
    low: int = 0
    high: int = 0
    #: Where the WAL ended when the run began: it ends once it is there.
    until: int = 0
    todo: tuple[Statement, ...] = ()


class State(NamedTuple):
    wal: tuple[str, ...] = ()
    #: The position to which the slot is confirmed; None: there is no slot.
    slot: int | None = None
    #: The slot was created since the checkpoint was written.
    detached: bool = False
    checkpoint: int | None = None
    rows: tuple[Row, Row] = (None, None)
    runs: tuple[Run | None, Run | None] = (None, None)
    in_flight: frozenset[Statement] = frozenset()
    #: The last run came to its end, and nothing began since.
    ended: bool = False
    #: A row was replaced by an older one.
    went_back: bool = False
    #: Operators may drop the slot once, and others create one of the same name once.
    drops: int = 1


Step: TypeAlias = "tuple[str, State]"


def content(wal: tuple[str, ...], table: int, position: int) -> int | None:
    """The source's row of a table after the first `position` commits: the commit that set it."""
    found = None
    for number, op in enumerate(wal[:position], start=1):
        kind, _, of = op.partition(" ")
        if int(of) == table:
            found = number if kind == "set" else None
    return found


def last_change(wal: tuple[str, ...], table: int, low: int, high: int) -> tuple[int, str] | None:
    """The last commit in (low, high] that changes a table, and how."""
    for number in range(high, low, -1):
        kind, _, of = wal[number - 1].partition(" ")
        if int(of) == table:
            return number, kind
    return None


class Model:
    """The transitions under some guards, for up to `commits` commits."""

    def __init__(self, guards: frozenset[Guard] = ALL, commits: int = 3) -> None:
        self.guards = guards
        self.commits = commits

    def protocol(self) -> Protocol:
        return Protocol(
            name="replication",
            candidate=False,
            fields=State._fields,
            initial=State(),
            transitions=lambda state: self.steps(State(*state)),
            invariants=INVARIANTS,
            goal=_is_up_to_date,
        )

    def steps(self, state: State) -> list[Step]:
        return [
            *self._of_the_application(state),
            *self._of_operators(state),
            *self._late_statements(state),
            *(step for place in TABLES for step in self._of_a_run(state, place)),
        ]

    def _of_the_application(self, state: State) -> list[Step]:
        if len(state.wal) == self.commits:
            return []
        return [(f"commit: {op}", state._replace(wal=(*state.wal, op))) for op in OPS]

    def _of_operators(self, state: State) -> list[Step]:
        if any(state.runs):
            return []
        found = []
        if state.slot is not None and state.drops:
            found.append(("drop the slot", state._replace(slot=None, drops=0)))
        if state.slot is None and not state.drops:
            slot = len(state.wal)
            found.append(("recreate the slot", state._replace(slot=slot, detached=True, drops=-1)))
        return found

    def _late_statements(self, state: State) -> list[Step]:
        return [
            (f"late: {_named(each)}", self._applied(state, each)._replace(ended=state.ended))
            for each in sorted(state.in_flight, key=str)
        ]

    def _of_a_run(self, state: State, place: int) -> list[Step]:
        run = state.runs[place]
        if run is None:
            return self._begin(state, place)
        killed = _with(state, place, None)._replace(in_flight=state.in_flight | {*run.todo})
        found = [(f"{place}: killed", killed)]
        if run.kind == "snapshot":
            found += self._snapshot(state, place, run)
        else:
            found += self._cdc(state, place, run)
        return found

    def _begin(self, state: State, place: int) -> list[Step]:
        if any(state.runs) and "lock" in self.guards:
            return []
        # Of two runs without a lock, one begins first; which one makes no difference.
        if place == 1 and state.runs[0] is None:
            return []
        clean = frozenset() if "clean" in self.guards else state.in_flight
        begun = state._replace(in_flight=clean, ended=False)
        found = [(f"{place}: snapshot begins", _with(begun, place, Run("snapshot", "begun")))]
        if state.checkpoint is None or state.slot is None:
            return found
        broken = state.slot > state.checkpoint or state.detached
        if broken and "continuity" in self.guards:
            return found
        # The slot sends nothing before its position.
        low, until = max(state.checkpoint, state.slot), len(state.wal)
        run = Run("cdc", "reading", low, low, until)
        return [*found, (f"{place}: cdc begins", _with(begun, place, run))]

    def _cdc(self, state: State, place: int, run: Run) -> list[Step]:
        match run.step:
            case "reading" if run.low >= run.until:
                return [(f"{place}: cdc ends", _with(state, place, None)._replace(ended=True))]
            case "reading":
                return [self._send(state, place, run, n) for n in {run.low + 1, run.until}]
            case "sent":
                return [self._answer(state, place, run, each) for each in run.todo]
            case "loaded":
                written = state._replace(checkpoint=run.high)
                return [(f"{place}: checkpoint", _with(written, place, _at(run, "durable")))]
            case _:
                if state.slot is None:
                    return [(f"{place}: fails", _with(state, place, None))]
                moved = state._replace(slot=max(state.slot, run.high))
                again = run._replace(step="reading", low=run.high)
                return [(f"{place}: confirm", _with(moved, place, again))]

    def _send(self, state: State, place: int, run: Run, high: int) -> Step:
        """One batch, up to the commit `high`: a merge for each table that it changes."""
        todo = tuple(
            Statement("merge", table, run.low, high)
            for table in TABLES
            if last_change(state.wal, table, run.low, high)
        )
        if "confirm last" not in self.guards and state.slot is not None:
            state = state._replace(slot=max(state.slot, high))
        if "checkpoint last" not in self.guards:
            state = state._replace(checkpoint=high)
        sent = run._replace(step="sent" if todo else "loaded", high=high, todo=todo)
        return f"{place}: reads up to {high}", _with(state, place, sent)

    def _answer(self, state: State, place: int, run: Run, statement: Statement) -> Step:
        """A statement of the batch runs and is answered; they run side by side, in any order."""
        rest = [each for each in run.todo if each != statement]
        state = self._applied(state, statement)
        if "remove" not in self.guards:
            # A copy that the driver sent again may still run.
            state = state._replace(in_flight=state.in_flight | {statement})
        run = run._replace(step="sent" if rest else "loaded", todo=tuple(rest))
        return f"{place}: {_named(statement)}", _with(state, place, run)

    def _snapshot(self, state: State, place: int, run: Run) -> list[Step]:
        match run.step:
            case "begun":
                lsn = len(state.wal)
                if state.slot is None:
                    state = state._replace(slot=lsn, detached=True)
                return [
                    (
                        f"{place}: snapshot at {lsn}",
                        _with(state, place, Run("snapshot", "reading", 0, lsn)),
                    )
                ]
            case "reading":
                # Without the exported snapshot, a reader sees what has committed since.
                seen = run.high if "export" in self.guards else len(state.wal)
                todo = []
                for table in TABLES:
                    value = content(state.wal, table, seen)
                    row = None if value is None else (value, run.high)
                    todo.append(Statement("replace", table, 0, run.high, row))
                read = run._replace(step="sent", todo=tuple(todo))
                return [(f"{place}: rows read", _with(state, place, read))]
            case "sent":
                return [self._answer(state, place, run, each) for each in run.todo]
            case "loaded":
                written = state._replace(checkpoint=run.high, detached=False)
                return [(f"{place}: checkpoint", _with(written, place, _at(run, "durable")))]
            case _:
                slot = state.slot if state.slot is None else max(state.slot, run.high)
                ended = _with(state, place, None)._replace(slot=slot, ended=True)
                return [(f"{place}: snapshot ends", ended)]

    def _applied(self, state: State, statement: Statement) -> State:
        """The destination runs a statement, which changes one row."""
        before = state.rows[statement.table]
        after = statement.row if statement.kind == "replace" else self._merged(state, statement)
        back = (
            statement.kind == "merge"
            and before is not None
            and after is not None
            and after[1] < before[1]
        )
        rows = list(state.rows)
        rows[statement.table] = after
        return state._replace(rows=(rows[0], rows[1]), went_back=state.went_back or back)

    def _merged(self, state: State, statement: Statement) -> Row:
        row = state.rows[statement.table]
        change = last_change(state.wal, statement.table, statement.low, statement.high)
        if change is None:
            return row
        number, kind = change
        if "lsn" in self.guards and row is not None and row[1] >= number:
            return row
        return (number, number) if kind == "set" else None


def _at(run: Run, step: Any) -> Run:
    return run._replace(step=step)


def _with(state: State, place: int, run: Run | None) -> State:
    runs = list(state.runs)
    runs[place] = run
    return state._replace(runs=(runs[0], runs[1]))


def _named(statement: Statement) -> str:
    if statement.kind == "replace":
        return f"replace table {statement.table} by its rows at {statement.high}"
    return f"merge ({statement.low}, {statement.high}] into table {statement.table}"


def _equals(state: State, position: int) -> bool:
    return all(
        (row[0] if row else None) == content(state.wal, table, position)
        for table, row in zip(TABLES, state.rows, strict=True)
    )


def _is_exact(fields: dict[str, Any]) -> bool:
    """Once a run has ended, the tables equal the source at the checkpoint: nothing is lost, nothing
    is there twice, and nothing changes that afterwards."""
    state = State(**fields)
    return not state.ended or any(state.runs) or _equals(state, state.checkpoint or 0)


def _slot_is_behind(fields: dict[str, Any]) -> bool:
    """The slot is never past the data, unless somebody created it since."""
    state = State(**fields)
    if state.slot is None or state.checkpoint is None or state.detached:
        return True
    return state.slot <= state.checkpoint


def _rows_go_forward(fields: dict[str, Any]) -> bool:
    """No reader sees a row become an older one."""
    return not fields["went_back"]


def _is_up_to_date(fields: dict[str, Any]) -> bool:
    state = State(**fields)
    return state.ended and state.checkpoint == len(state.wal) and _equals(state, len(state.wal))


INVARIANTS = {
    "same as the source": _is_exact,
    "slot behind the data": _slot_is_behind,
    "rows go forward": _rows_go_forward,
}
