"""The answers that the page gives at a glance: is it fresh, is it healthy, what must I do?"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from enum import IntEnum
from typing import TYPE_CHECKING

from cdc_core.slot.wal_budget import END_TRANSACTIONS
from cdc_core.values.checkpoint import TableStatus
from cdc_core.values.relation import tables_option
from entrypoints.output.html.wording import ago, duration, plural
from entrypoints.output.progress import size

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from cdc_core.use_cases.show_status import TableLine
    from entrypoints.output.html.facts import PageFacts
    from entrypoints.output.html.history import History, RunSummary

#: Data is late once it is older than this number of usual intervals between runs.
INTERVALS = 3
LATE_AT_LEAST = timedelta(minutes=5)
#: What counts as late if no interval is known.
LATE_OTHERWISE = timedelta(hours=1)
#: Late data is stale from this many times that age on.
STALE_TIMES = 4
#: Failures are counted over this time.
RECENTLY = timedelta(hours=24)

#: A command within a sentence; names in it may be quoted for the shell.
_COMMAND = re.compile(r"pgbronze (?:snapshot|cdc|check|slot|verify)\b(?:'[^']*'|[^;,()'])*")


class Level(IntEnum):
    GOOD = 0
    ATTENTION = 1
    BAD = 2


@dataclass(frozen=True)
class Answer:
    """`short` is a word or two, `sentence` says why."""

    level: Level
    short: str
    sentence: str


@dataclass(frozen=True)
class Task:
    """Something for an operator: what is wrong, the cure, and what to run. `by_hand`: the cure
    comes before the commands."""

    level: Level
    what: str
    cure: str
    commands: tuple[str, ...] = ()
    by_hand: bool = False


@dataclass(frozen=True)
class Assessment:
    fresh: Answer
    healthy: Answer
    tasks: tuple[Task, ...]

    @property
    def level(self) -> Level:
        return max(self.fresh.level, self.healthy.level, *(task.level for task in self.tasks))


def assess(facts: PageFacts, history: History) -> Assessment:
    tasks = tuple(sorted(_tasks(facts, history), key=lambda task: -task.level))
    return Assessment(_freshness(facts, history), _health(facts, history, tasks), tasks)


def late_after(history: History) -> timedelta:
    """The age from which on data is late."""
    interval = history.interval
    return max(LATE_AT_LEAST, interval * INTERVALS) if interval else LATE_OTHERWISE


def data_as_of(facts: PageFacts, history: History) -> datetime | None:
    """The moment whose state the destination has; None if nothing was loaded yet."""
    report = facts.report
    if report is not None and report.checkpoint is None:
        return None
    if report is not None and report.lag_bytes == 0 and not report.problem:
        return facts.at
    known = [history.as_of] if history.as_of else []
    if report is not None and report.lag_seconds is not None and not report.problem:
        known.append(facts.at - timedelta(seconds=report.lag_seconds))
    return max(known, default=None)


def _freshness(facts: PageFacts, history: History) -> Answer:
    as_of = data_as_of(facts, history)
    if as_of is None:
        if facts.report is None or facts.report.checkpoint is not None:
            return Answer(
                Level.ATTENTION, "Not known", "No receipt of a run says how old the data is."
            )
        return Answer(Level.ATTENTION, "No data yet", "The first snapshot brings it.")
    late, age = late_after(history), facts.at - as_of
    behind = ""
    if facts.report is not None and facts.report.lag_bytes and not facts.report.problem:
        behind = f" {size(facts.report.lag_bytes)} of WAL is not applied yet."
    if age <= late:
        when = "up to now" if age < timedelta(seconds=1) else f"up to {ago(as_of, facts.at)}"
        return Answer(Level.GOOD, "Yes", f"The destination has everything {when}.{behind}")
    usual = f"more than {duration(round(late.total_seconds(), -1))} is late here"
    level = Level.ATTENTION if age <= late * STALE_TIMES else Level.BAD
    return Answer(
        level,
        f"No, {duration(age.total_seconds())} old",
        f"The destination has the state of {ago(as_of, facts.at)}; {usual}.{behind}",
    )


def _health(facts: PageFacts, history: History, tasks: tuple[Task, ...]) -> Answer:
    worst = max((task.level for task in tasks), default=Level.GOOD)
    runs = [run for run in history.runs if facts.at - run.ended_at <= RECENTLY]
    failed = [run for run in runs if run.failed]
    counted = f"{plural(len(runs), 'run')} in the last 24 h, "
    counted += f"{len(failed)} of them failed." if failed else "none failed."
    if not runs:
        counted = "No run ended in the last 24 h." if history.runs else "No run is recorded yet."
    if facts.report is not None and facts.report.checkpoint is None and not failed:
        return Answer(Level.ATTENTION, "Not started", counted)
    if worst is Level.BAD:
        return Answer(Level.BAD, "No", f"{tasks[0].what}. {counted}")
    if worst is Level.ATTENTION or failed:
        return Answer(Level.ATTENTION, "With warnings", counted)
    level = Level.GOOD if runs else Level.ATTENTION
    return Answer(level, "Yes" if runs else "Not known", counted)


def _tasks(facts: PageFacts, history: History) -> Iterator[Task]:
    report = facts.report
    if facts.error is not None:
        yield _task(Level.BAD, str(facts.error))
    if report is not None and report.problem:
        begun = report.checkpoint is not None
        yield _task(Level.BAD if begun else Level.ATTENTION, report.problem)
    yield from _failures(facts, history)
    if report is not None:
        if not report.problem:
            yield from _waiting_tables(facts)
        if report.wal_use is not None and report.wal_use.near:
            use = str(report.wal_use)
            yield Task(
                Level.BAD if report.wal_use.over else Level.ATTENTION,
                _sentence(use),
                "Load what is waiting; if it stays, " + END_TRANSACTIONS,
                ("pgbronze cdc",),
            )
        elif report.warning:
            yield _task(Level.ATTENTION, report.warning)
        unpublished = [
            line for line in report.tables if line.state == TableStatus.NOT_STREAMED.value
        ]
        for line in unpublished[:5]:
            yield _task(Level.ATTENTION, f"{line.table} is not streamed: {line.reason}")
        if len(unpublished) > 5:
            more = f"{len(unpublished) - 5:,} more tables are not streamed"
            yield Task(Level.ATTENTION, more, "See the list of tables.")
    yield from _silence(facts, history)


def _waiting(facts: PageFacts) -> list[TableLine]:
    """The tables that need a snapshot."""
    lines = facts.report.tables if facts.report else ()
    return [line for line in lines if line.state == TableStatus.NEEDS_SNAPSHOT.value]


def _snapshot_command(waiting: Sequence[TableLine]) -> str:
    return f"pgbronze snapshot {tables_option(line.table for line in waiting)}"


def _waiting_tables(facts: PageFacts) -> Iterator[Task]:
    waiting = _waiting(facts)
    if not waiting:
        return
    shown = ", ".join(f"{line.table} ({line.reason})" for line in waiting[:3])
    more = f" and {len(waiting) - 3:,} more" if len(waiting) > 3 else ""
    tables = "table needs" if len(waiting) == 1 else "tables need"
    yield Task(
        Level.BAD,
        f"{len(waiting):,} {tables} a snapshot: {shown}{more}",
        "The next cdc reads them, unless it refuses to. To read them now:",
        (_snapshot_command(waiting),),
    )


def _failures(facts: PageFacts, history: History) -> Iterator[Task]:
    """The last run of each command, if it failed; what the status says better is left out."""
    report = facts.report
    known = " ".join([str(facts.error or ""), report.problem if report else ""])
    # The task of the tables that wait says more than the error of the run that set them aside.
    waiting = _snapshot_command(_waiting(facts)) if report and not report.problem else ""
    last: dict[str, RunSummary] = {}
    for run in history.runs:
        last.setdefault(run.command, run)
    for command, run in last.items():
        if not run.failed or (run.error and run.error.partition(";")[0] in known):
            continue
        streak = _streak(history, command)
        times = (
            f"The last {streak} runs of {command}" if streak > 1 else f"The last run of {command}"
        )
        what = f"{times} failed, {ago(run.ended_at, facts.at)}"
        if run.exit_code is None:
            silent = f"{times} recorded no end, last seen {ago(run.ended_at, facts.at)}"
            yield Task(
                Level.ATTENTION,
                f"{silent}: it may have been killed",
                "If it is not running, run it again.",
                (f"pgbronze {command}",),
            )
            continue
        task = _task(Level.BAD if run.exit_code != 1 or streak > 2 else Level.ATTENTION, run.error)
        if task.commands == (waiting,):
            continue
        error = run.error.partition("; ")[0]
        yield Task(
            task.level,
            f"{what}: {error}",
            task.cure or "Run it again.",
            task.commands or (f"pgbronze {command}",),
            by_hand=bool(task.cure and not task.commands),
        )


def _streak(history: History, command: str) -> int:
    count = 0
    for run in history.runs:
        if run.command == command:
            if not run.failed:
                break
            count += 1
    return count


def _silence(facts: PageFacts, history: History) -> Iterator[Task]:
    """No run has ended for much longer than usual."""
    if not history.receipts or any(run.goes_on for run in history.runs):
        return
    last = history.receipts[-1].ended_at
    if facts.at - last > late_after(history):
        yield Task(
            Level.ATTENTION,
            f"No run has ended since {ago(last, facts.at)}",
            "Make sure that the schedule is on. To run it now:",
            ("pgbronze cdc",),
        )


def _task(level: Level, line: str) -> Task:
    """From an error's line: what happened, the cure, and the commands in it."""
    what, _, cure = line.partition("; ")
    statement = re.search(r"\brun: ((?:ALTER|GRANT|CREATE|SELECT)\b.*)", cure)
    commands = [statement[1]] if statement else []
    commands += [found.strip() for found in _COMMAND.findall(cure)]
    for command in commands:  # it is shown by itself
        cure = cure.removesuffix(f"run: {command}").rstrip("; ")
    return Task(level, _sentence(what), _sentence(cure), tuple(dict.fromkeys(commands)))


def _sentence(text: str) -> str:
    """The text with a capital letter, unless it begins with a name."""
    first = text.partition(" ")[0]
    return text[:1].upper() + text[1:] if first.isalpha() and first.islower() else text
