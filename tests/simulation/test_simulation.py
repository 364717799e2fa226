"""Many seeds of the simulation, and proof that it notices what it should."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from adapters.fakes import InMemorySource
from adapters.fakes import merges as fake_merges
from cdc_core.full_load import start
from cdc_core.tables.followed_tables import FollowedTables
from cdc_core.use_cases import stream_changes, verify_parity
from tests.simulation.simulation import Simulation
from tests.simulation.situations import missed

if TYPE_CHECKING:
    from collections.abc import Callable

    Break = Callable[[pytest.MonkeyPatch], None]

SEEDS = range(1000)
PARTS = [SEEDS[start::6] for start in range(6)]


@pytest.fixture(scope="module")
def reached() -> Counter[str]:
    """What the seeds of this process have reached."""
    return Counter()


def simulate(seed: int) -> Simulation:
    simulation = Simulation(seed)
    try:
        simulation.run()
    except Exception as error:  # noqa: BLE001 - whatever ends a seed has its story
        story = "\n".join(simulation.story[-60:])
        again = f"python -m tests.simulation --seed {seed}"
        pytest.fail(f"seed {seed}: {error}\n{story}\nits whole story: {again}", pytrace=False)
    return simulation


@pytest.mark.parametrize("seeds", PARTS, ids=[f"from {seeds[0]}" for seeds in PARTS])
def test_every_seed_ends_equal(seeds: range, reached: Counter[str]) -> None:
    for seed in seeds:
        reached.update(simulate(seed).reached)


def test_every_interesting_situation_was_reached(reached: Counter[str]) -> None:
    """A simulation that never meets a situation proves nothing about it."""
    if not reached:  # this test runs alone
        for seed in SEEDS:
            reached.update(simulate(seed).reached)
    assert not missed(reached)


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_a_seed_decides_everything(hash_seed: str) -> None:
    """Also in another process, where sets of texts have another order."""
    command = [sys.executable, "-m", "tests.simulation", "--seed", "77"]
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[:-1] == simulate(77).story


# Each of these takes one guard away. The simulation must notice within the seeds of this test.


def confirm_what_is_read(patch: pytest.MonkeyPatch) -> None:
    """The slot moves before the data is durable."""
    load = stream_changes.StreamChanges._commit

    def commit(self, tables, batch, lsn, committed_at):
        self.source.confirm(lsn)
        load(self, tables, batch, lsn, committed_at)

    patch.setattr(stream_changes.StreamChanges, "_commit", commit)


def merge_without_guard(patch: pytest.MonkeyPatch) -> None:
    """A change is applied whatever `_cdc_lsn` the row has."""
    patch.setattr(fake_merges, "_lsn", lambda row: 0)


def write_without_lock(patch: pytest.MonkeyPatch) -> None:
    """A second run may write, too."""

    def enter(self):
        self._opened = True
        return self

    patch.setattr(InMemorySource, "__enter__", enter)


def follow_any_slot(patch: pytest.MonkeyPatch) -> None:
    """Nobody compares slot and checkpoint."""
    for module in (stream_changes, start, verify_parity):
        patch.setattr(module, "continuity_break", lambda *args: None)


def forget_tables_to_read(patch: pytest.MonkeyPatch) -> None:
    """The checkpoint does not say which tables have to be read again."""

    def read_again(self, oid, why):
        self.to_read[oid] = why

    patch.setattr(FollowedTables, "read_again", read_again)


@pytest.mark.parametrize(
    "guard",
    [
        confirm_what_is_read,
        merge_without_guard,
        write_without_lock,
        follow_any_slot,
        forget_tables_to_read,
    ],
    ids=lambda guard: guard.__name__,
)
def test_a_missing_guard_is_noticed(guard: Break, monkeypatch: pytest.MonkeyPatch) -> None:
    guard(monkeypatch)
    for seed in SEEDS:
        try:
            Simulation(seed).run()
        except Exception:  # noqa: BLE001 - it may show as any error
            return
    pytest.fail("the simulation does not need this guard")
