"""A round's work as data: transactions for several connections, told by seed and round alone."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from tests.soak import ddl, dml

if TYPE_CHECKING:
    from tests.soak.world import World

SESSIONS = 4
#: The session that changes definitions; it changes rows too.
DEFINER = 0


class End(Enum):
    COMMIT = "COMMIT"
    ROLLBACK = "ROLLBACK"
    #: Every statement a transaction of its own.
    EACH = "each"
    #: In two phases.
    PREPARED = "PREPARE TRANSACTION"


@dataclass(frozen=True)
class Step:
    """A transaction of one session. `after` is the step whose end it waits for, the last change of
    definition before it (-1: none); `must` commit, unlike those that only try."""

    number: int
    session: int
    after: int
    statements: tuple[str, ...]
    end: End
    must: bool = False
    durable: bool = True

    def __str__(self) -> str:
        lines = [f"-- step {self.number}, session {self.session}, after {self.after}"]
        return "\n".join([*lines, *(f"{line};" for line in self.statements), f"{self.end.value};"])


@dataclass
class Writer:
    """Writes the script of one round after the other."""

    seed: int
    world: World
    steps: int = 60
    _round: int = field(default=0, init=False)

    def next_round(self) -> list[Step]:
        self._round += 1
        for table in self.world.tables:
            for column in table.columns:
                column.former.clear()
        chance = random.Random(f"{self.seed}/{self._round}")
        found: list[Step] = []
        last = -1
        definitions = chance.choice([0.0, 0.1, 0.25])
        for number in range(self.steps):
            if chance.random() < definitions:
                step = self._definition(number, last, chance)
                last = number
            else:
                step = self._rows(number, chance.randrange(SESSIONS), last, chance)
            found.append(step)
        return found

    def _definition(self, number: int, after: int, chance: random.Random) -> Step:
        statements: list[str] = []
        if chance.random() < 0.4:
            statements += _tried(self._actions(chance, 3))
        for _ in range(chance.choice([1, 1, 1, 2])):
            # Rows that the world's tables still hold as they were named before.
            statements += ddl.change(self.world, chance)
        if chance.random() < 0.4:
            statements += _tried(self._actions(chance, 2))
        return Step(number, DEFINER, after, tuple(statements), End.COMMIT, must=True)

    def _rows(self, number: int, session: int, after: int, chance: random.Random) -> Step:
        kind = chance.random()
        end = End.COMMIT
        statements = self._actions(chance, 6)
        if kind < 0.08:
            end = End.ROLLBACK
        elif kind < 0.20:
            inner = self._actions(chance, 4)
            statements += ["SAVEPOINT s", *inner, "ROLLBACK TO s", *self._actions(chance, 2)]
        elif kind < 0.28:
            statements = [s for _ in range(10) for s in self._actions(chance, 1)]
            end = End.EACH
        elif kind < 0.31:
            statements = dml.many(self.world, chance, chance.choice([500, 4000]))
        elif kind < 0.34:
            end = End.PREPARED
        elif kind < 0.36:
            statements, end = [ddl.maintenance(self.world, chance)], End.EACH
        elif kind < 0.39:
            many = [self._actions(chance, 1) for _ in range(20)]
            statements = [s for action in many for s in _tried(action)]
        return Step(number, session, after, tuple(statements), end, durable=chance.random() < 0.8)

    def _actions(self, chance: random.Random, most: int) -> list[str]:
        count = chance.randint(1, most)
        return [s for _ in range(count) for s in dml.statements(self.world, chance)]


def _tried(statements: list[str]) -> list[str]:
    """Statements in a subtransaction, which may fail without harm to the others."""
    return [f"DO $try$ BEGIN {'; '.join(statements)}; EXCEPTION WHEN OTHERS THEN NULL; END $try$"]
