"""A round of the soak: work and disturbed runs at once; then quiet, and all must be equal."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import subprocess
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psycopg

from tests.soak.ddl import first_tables
from tests.soak.script import Step, Writer
from tests.soak.sessions import PROGRESS, Play
from tests.support import oracle
from tests.support.history_model import assert_log_leads_to
from tests.support.pipeline import Pipeline
from tests.support.proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from adapters.embedded_postgres import EmbeddedPostgres
    from tests.soak.world import Table, World
    from tests.support.lakes import LocalLake, WarehouseLake

#: What the server must have for a soak.
SERVER = {
    "max_prepared_transactions": "10",
    "deadlock_timeout": "100ms",
    "max_wal_size": "256MB",
    "checkpoint_timeout": "30s",
}
_ATTEMPTS = 4
#: How often a round's end begins with a table that somebody dropped at the destination.
_LOSES = 0.2
_RUN_SECONDS = 300
_SET_ASIDE = re.compile(r"run: pgbronze snapshot --tables (.+)")


class Unequal(AssertionError):
    """What went wrong; the message has what is needed to see it again."""


@dataclass
class Soak:
    """One database, one destination, and the tables of one seed."""

    server: EmbeddedPostgres
    lake: LocalLake | WarehouseLake
    seed: int
    steps: int = 60
    #: Whether all tables have a log, which must lead to the table after each round.
    history: bool = False
    counts: Counter[str] = field(default_factory=Counter)
    rounds: int = 0
    world: World = field(init=False)
    _writer: Writer = field(init=False)
    _chance: random.Random = field(init=False)
    #: Seconds that a short run takes here: the first snapshot.
    _pace: float = field(init=False)
    _log: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.world, self._first = first_tables()
        self._writer = Writer(self.seed, self.world, self.steps)
        self._chance = random.Random(f"{self.seed}/disturbance")
        self._database = f"soak_{self.lake.kind}_{self.seed}"

    @property
    def _dsn(self) -> str:
        return self.server.database_dsn(self._database)

    def prepare(self) -> None:
        """The first tables, and the first snapshot."""
        with psycopg.connect(self.server.dsn, autocommit=True) as admin:
            admin.execute(f"CREATE DATABASE {self._database}".encode())
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            for statement in self._first:
                connection.execute(statement.encode())
            connection.execute(
                f"CREATE TABLE {PROGRESS} (round int, step int, PRIMARY KEY (round, step))".encode()
            )
        # What the first command of all waits for says nothing of the pace.
        self._run("--version", expected=(0,))
        begun = time.monotonic()
        self._run("snapshot", expected=(0,))
        self._pace = time.monotonic() - begun

    def round(self) -> None:
        """Play the next round; `Unequal` if anything is wrong at its end."""
        self.rounds += 1
        self._log.clear()
        script = self._writer.next_round()
        try:
            self._disturb(script)
            self._settle()
            self._compare()
        except Exception as error:
            raise Unequal(self._told(error, script)) from error

    def _disturb(self, script: Sequence[Step]) -> None:
        play = Play(self._dsn, self.rounds, script, seconds=2 * self._pace)
        with Proxy(lambda: self._dsn) as proxy:
            play.start()
            runs = 0
            while play.alive or runs < 1:
                self._disturbed_run(proxy)
                runs += 1
        play.join()
        self.counts["committed"] += play.committed
        self.counts["failed"] += play.failed

    def _pipeline(self, dsn: str) -> Pipeline:
        chance = self._chance
        rules = '[{"match": "*", "history": ["log"]}]' if self.history else "[]"
        return Pipeline(
            dsn,
            self.lake,
            SOURCES__PG_REPLICATION__TABLES=rules,
            SOURCES__PG_REPLICATION__SCHEMAS="public,side",
            SOURCES__PG_REPLICATION__BATCH_MAX_ROWS=str(chance.choice([1, 40, 1000, 1_000_000])),
            SOURCES__PG_REPLICATION__BATCH_MAX_BYTES=chance.choice(["64kB", "256MB"]),
        )

    def _disturbed_run(self, proxy: Proxy) -> None:
        chance = self._chance
        arguments = chance.choices(
            [("cdc",), ("cdc", "--follow"), ("snapshot", "--tables", "*a*"), ("snapshot",)],
            [6, 6, 1, 0.5],
        )[0]
        follows = "--follow" in arguments
        fate = chance.choice(["left", "killed", "killed", "killed", "cut", "cut", "restart"])
        # By the machine's pace, so that every part of a run gets its share.
        wait = self._pace * chance.uniform(0.3, 1.8 if follows else 1.1)
        size = int(chance.uniform(0, 40_000))
        process = self._pipeline(proxy.dsn).start(*arguments)
        ended = False
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(wait)
            ended = True
        if not ended:
            match fate:
                case "killed":
                    os.killpg(process.pid, signal.SIGKILL)
                case "restart":
                    self.server.restart("immediate")
                case "cut" if size % 2:
                    proxy.cut()
                case "cut":
                    proxy.cut_after(size)
                case _:
                    pass
            if follows and fate != "killed":
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(self._pace * chance.uniform(0.2, 1.0))
                process.terminate()
        self.counts[fate if not ended else "ended early"] += 1
        output, _ = process.communicate(timeout=_RUN_SECONDS)
        proxy.cut_after(None)
        code = process.returncode
        told = f"{' '.join(arguments)}: {fate} after {wait:.1f} s, exit code {code}"
        self._note(told, output)
        killed = fate == "killed" and not ended
        said = output.splitlines()[-1:] or [""]
        if follows and code in (143, -15) and ("INFO" not in output or "pgbronze: " in said[0]):
            return  # stopped before the program had begun, or when it had ended with its error
        if not killed and code not in (0, 1, 3):
            raise AssertionError(f"{told}\n{output}")
        if not killed and code == 1 and fate == "left":
            # Locks of the sessions at work may stand in the way, nothing else may.
            assert "lock" in output, f"{told}\n{output}"
        if not killed and code == 3 and not _SET_ASIDE.search(output):
            raise AssertionError(f"{told}\n{output}")
        if "Traceback" in output:
            raise AssertionError(f"{told}\n{output}")

    def _run(self, *arguments: str, expected: tuple[int, ...]) -> tuple[int, str]:
        process = self._pipeline(self._dsn).start(*arguments)
        output, _ = process.communicate(timeout=_RUN_SECONDS)
        self._note(f"{' '.join(arguments)}: exit code {process.returncode}", output)
        assert process.returncode in expected, f"{' '.join(arguments)}\n{output}"
        return process.returncode, output

    def _note(self, told: str, output: str) -> None:
        self._log.append(f"{told}\n{output}")
        self.counts["bulk"] += output.count("reading by bulk")
        self.counts["streaming"] += output.count("reading by streaming")
        self.counts["read again"] += len(re.findall(r"reading \S+: ", output))

    def _settle(self) -> None:
        """Nobody writes any more: run `cdc`, and what it asks for, until it has no more to ask."""
        self._finish_prepared()
        if self._chance.random() < _LOSES:
            lost = self._chance.choice(self.world.tables).target
            self._log.append(f"the destination loses table {lost}")
            self.lake.drop(lost)
            self.counts["lost tables"] += 1
        for _ in range(_ATTEMPTS):
            code, output = self._run("cdc", expected=(0, 3))
            if code == 0:
                return
            asked = _SET_ASIDE.search(output)
            assert asked, output
            self.counts["set aside"] += 1
            self._run("snapshot", "--tables", *asked[1].split(), expected=(0,))
        raise AssertionError(f"cdc asks for the same again and again\n{output}")

    def _finish_prepared(self) -> None:
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            for (name,) in connection.execute("SELECT gid FROM pg_prepared_xacts").fetchall():
                connection.execute(f"ROLLBACK PREPARED '{name}'".encode())

    def _compare(self) -> None:
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            source = oracle.Source(connection)
            for table in self.world.tables:
                found = list(self._differences(source, table))
                assert not found, f"table {table.sql}: " + _shortened(found)
                if self.history:
                    log = self.lake.read(f"{table.target}_history")
                    assert_log_leads_to(self.lake.read(table.target), log)
                    self.counts["images"] += len(log)
            stored = self.lake.read(PROGRESS)
            found = list(oracle.differences(source.read(PROGRESS), stored))
            assert not found, f"table {PROGRESS}: " + _shortened(found)
        self.counts["tables compared"] += len(self.world.tables) + 1

    def _differences(self, source: oracle.Source, table: Table) -> list[str]:
        rows, stored = source.read(table.sql), self.lake.read(table.target)
        found = list(oracle.differences(rows, stored))
        surplus = oracle.unexpected_columns(rows, stored, sorted(table.dropped))
        return [*found, *([f"columns of nobody: {surplus}"] if surplus else [])]

    def _told(self, error: Exception, script: Sequence[Step]) -> str:
        written = self.lake.path / f"round-{self.rounds}.sql"
        written.write_text("\n\n".join(map(str, script)))
        runs = self.lake.path / f"round-{self.rounds}.log"
        runs.write_text("\n".join(self._log))
        statements = "\n\n".join(str(step) for step in script)
        return (
            f"{statements}\n\nseed {self.seed}, round {self.rounds}, {self.lake.kind}; the "
            f"statements above are in {written}, the runs' output is in {runs}\n{error}"
        )


def _shortened(found: Sequence[str]) -> str:
    """Some of each kind of difference."""
    kinds: dict[str, list[str]] = {}
    for line in found:
        kinds.setdefault(line.partition(" ")[0], []).append(line)
    return "\n".join(line for lines in kinds.values() for line in lines[:6])
