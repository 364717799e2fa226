"""How much WAL a slot may keep on the source's disk, and what to say when that is used up.

The one home of these rules. Source: PostgreSQL manual, "pg_replication_slots" (`safe_wal_size`),
`max_slot_wal_keep_size`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cdc_core.values.errors import OperatorNeeded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cdc_core.ports.change_source import SlotState

SETTING = "sources.pg_replication.max_retained_wal"
SERVER_SETTING = "max_slot_wal_keep_size"

#: From this share on, a warning.
NEAR = 0.8

#: What holds WAL back once every change is loaded.
END_TRANSACTIONS = (
    "end what has been open for long (SELECT pid, xact_start, application_name FROM "
    "pg_stat_activity WHERE backend_xid IS NOT NULL ORDER BY xact_start; "
    "SELECT gid FROM pg_prepared_xacts)"
)


@dataclass(frozen=True)
class WalUse:
    """What a slot retains of one limit, in bytes; `name` is the setting that limits it."""

    slot: str
    name: str
    retained: int
    limit: int

    @property
    def near(self) -> bool:
        return self.retained >= NEAR * self.limit

    @property
    def over(self) -> bool:
        return self.retained > self.limit

    def __str__(self) -> str:
        return (
            f"replication slot {self.slot!r} retains {_size(self.retained)} of WAL, "
            f"{100 * self.retained // max(1, self.limit)} % of {self.name} ({_size(self.limit)})"
        )


def nearest_limit(slot: SlotState, max_retained_wal: int | None) -> WalUse | None:
    """The limit, ours or the server's, of which most is used; None where there is none, or where
    the slot is lost already."""
    uses = () if slot.lost else _uses(slot, max_retained_wal)
    return max(uses, key=lambda use: use.retained / max(1, use.limit), default=None)


def budget_warning(slot: SlotState, max_retained_wal: int | None) -> str:
    """A sentence once most of a limit is used; empty before."""
    use = nearest_limit(slot, max_retained_wal)
    return str(use) if use is not None and use.near else ""


def budget_exceeded(slot: SlotState, max_retained_wal: int | None) -> OperatorNeeded | None:
    """What a run that has loaded everything ends with while the slot still retains too much."""
    use = nearest_limit(slot, max_retained_wal)
    if use is None or not use.over:
        return None
    return OperatorNeeded(
        f"{use}, though every change is loaded: a transaction has been open since "
        f"{slot.restart_lsn}",
        f"{END_TRANSACTIONS}, then run cdc again; or raise {use.name}",
    )


def _uses(slot: SlotState, max_retained_wal: int | None) -> Iterator[WalUse]:
    if max_retained_wal is not None:
        yield WalUse(slot.name, SETTING, slot.retained_bytes, max_retained_wal)
    if slot.safe_bytes is not None:
        limit = slot.retained_bytes + slot.safe_bytes
        yield WalUse(slot.name, SERVER_SETTING, slot.retained_bytes, max(0, limit))


def _size(count: int) -> str:
    return f"{count / (1 << 20):.1f} MB" if count < 1 << 30 else f"{count / (1 << 30):.1f} GB"
