"""The environment of every case: server, folder, number of runs; lets contenders take turns."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from benchmarks.figures import CaseResult, Figure, Run, figure, with_ratios
from benchmarks.processes import CommandFailed, weigh

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from benchmarks.server import Server


class NotMeasured(Exception):
    """`reason` says why a peer cannot be measured here."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


@dataclass(frozen=True)
class Contender:
    """`run` prepares, measures one whole process, and counts what came out.

    A peer that fails is named with its reason in the table; a failure of anything else ends the
    benchmark.
    """

    name: str
    produces: str
    run: Callable[[], Run]
    repeat: int
    peer: bool = False
    #: Where it takes part of the case's rows only; its rows/s are of these.
    rows: int | None = None


@dataclass
class Bench:
    """`rows` is the size from which the sizes of all cases follow (2,000,000 for the record).

    `peers` are the names of those to be measured, `cache` where they are installed.
    """

    server: Server
    folder: Path
    cache: Path
    rows: int
    repeat: int = 3
    peer_repeat: int = 1
    peers: Sequence[str] = ()
    follow_seconds: float = 60.0
    #: A peer that takes longer is named with that.
    peer_limit_seconds: float = 900.0
    say: Callable[[str], None] = field(default=lambda text: print(text, file=sys.stderr))

    def weigh(
        self,
        command: Sequence[str],
        environment: Mapping[str, str] | None = None,
        limit_seconds: float = 3600.0,
    ) -> tuple[Run, str]:
        """The run, and what it printed."""
        before = self.server.cpu_seconds()
        weight = weigh(command, self.folder, environment, limit_seconds)
        spent = self.server.cpu_seconds() - before
        return Run(weight.seconds, weight.cpu_seconds, spent, weight.peak_mb), weight.output

    def measure(
        self, case: str, about: str, rows: int, contenders: Sequence[Contender]
    ) -> CaseResult:
        """By turns, so that a slow minute of the machine is everybody's."""
        runs: dict[str, list[Run]] = {contender.name: [] for contender in contenders}
        notes = {c.name: "left out" for c in contenders if not c.repeat}
        for turn in range(max((c.repeat for c in contenders), default=0)):
            for contender in contenders:
                if turn >= contender.repeat or contender.name in notes:
                    continue
                try:
                    run = contender.run()
                except (CommandFailed, NotMeasured) as failed:
                    if not contender.peer:
                        raise
                    notes[contender.name] = failed.reason[:300]
                    self.say(f"{case}: {contender.name}: not measured: {failed.reason}")
                else:
                    runs[contender.name].append(run)
                    speed = (contender.rows or rows) / run.seconds
                    self.say(
                        f"{case}: {contender.name}: {run.seconds:.2f} s, {speed:,.0f} rows/s, "
                        f"{run.peak_mb:.0f} MB"
                    )
        figures: list[Figure] = [
            figure(case, c.name, c.produces, c.rows or rows, runs[c.name], notes.get(c.name, ""))
            for c in contenders
        ]
        return CaseResult(case, about, with_ratios(figures))

    def empty(self, name: str) -> Path:
        """A folder of that name with nothing in it."""
        path = self.folder / name
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
        return path
