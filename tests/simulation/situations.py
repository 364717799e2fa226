"""Situations that a run of many seeds must reach. A run that misses one proves too little."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.simulation.faults import CALLS, KINDS

if TYPE_CHECKING:
    from collections.abc import Mapping

SITUATIONS = (
    # Kills.
    "killed between the data and its checkpoint",
    "killed between two tables of one batch",
    "killed between the checkpoint and the slot",
    "killed right after the slot moved",
    "killed right after the slot was created",
    "killed while a table is read",
    "killed between two parts of one batch",
    "a statement of a dead run is applied after its death",
    # Loads that fail, and statements that run twice.
    "a load fails between the data and its checkpoint",
    "a load fails whose checkpoint is durable",
    "a statement is sent twice",
    "a truncation in a batch whose statement is sent twice",
    "a statement of a table without a key is sent twice",
    "history is sent twice",
    "a key change with an unsent value is sent twice",
    "versions are sent twice",
    "the destination refuses one table",
    # The source meanwhile.
    "the application commits while a table is read",
    "a definition changes during a run",
    "two rows exchange their keys in one transaction",
    "two tables exchange their names",
    # Soft deletes.
    "a row is deleted in the batch that changes it",
    "a row is deleted that has no row at the destination",
    "a deleted row has a value that the source did not send",
    "rows between two truncations of a batch are deleted",
    # Runs.
    "a table is read again while others are streamed",
    "a new table is read while others are streamed",
    "a full load goes on where a dead run left it",
    "page ranges of a dead run are kept",
    "a second run ends at once, naming the first",
    "a run that follows is stopped and has loaded all",
    "an idle position is made durable",
    "a table is set aside, the others go on",
    # Slot and checkpoint.
    "the slot is behind the checkpoint, changes are read again",
    "the slot was dropped: refused",
    "the slot is past the checkpoint: refused",
    "the source was restored from a backup: refused",
    "another process reads the slot: refused",
    # The destination in other hands.
    "rows lost at the destination are found and repaired",
    "a table lost at the destination is read again",
    "a repair that was cut short is completed by cdc",
)

#: A call that is made this often must have met each kind of fault.
OFTEN = 1000


def missed(reached: Mapping[str, int]) -> list[str]:
    """The situations that a run of many seeds should have reached and did not."""
    faults = [
        f"destination.{call}: {kind}"
        for call in ("open", *sorted(CALLS))
        for kind in KINDS
        if reached.get(f"destination.{call} is called", 0) >= OFTEN
    ]
    return [situation for situation in (*SITUATIONS, *faults) if not reached.get(situation)]
