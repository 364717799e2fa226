"""How much WAL a slot may retain on the source's disk, and the warnings about it.

Source: PostgreSQL manual, "pg_replication_slots" (`safe_wal_size`),
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

#: The share of a limit from which on there is a warning.
NEAR = 0.8

#: The cure if WAL is still retained after every change was loaded: an open transaction holds it.
END_TRANSACTIONS = (
    "end transactions that have been open for long (SELECT pid, xact_start, application_name FROM "
    "pg_stat_activity WHERE backend_xid IS NOT NULL ORDER BY xact_start; "
    "SELECT gid FROM pg_prepared_xacts)"
)


@dataclass(frozen=True)
class WalUse:
    """WAL that a slot retains, and one limit of it, in bytes; `name` is the limit's setting."""

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
    """Return the limit (ours or the server's) with the largest share in use.

    None without a limit, or if the slot is lost.
    """
    uses = () if slot.lost else _uses(slot, max_retained_wal)
    return max(uses, key=lambda use: use.retained / max(1, use.limit), default=None)


def budget_warning(slot: SlotState, max_retained_wal: int | None) -> str:
    """Return a sentence once most of a limit is used; empty before."""
    use = nearest_limit(slot, max_retained_wal)
    return str(use) if use is not None and use.near else ""


def budget_exceeded(slot: SlotState, max_retained_wal: int | None) -> OperatorNeeded | None:
    """Return the error for a run that loaded everything while the slot still retains too much."""
    use = nearest_limit(slot, max_retained_wal)
    if use is None or not use.over:
        return None
    return OperatorNeeded(
        f"{use}, although every change is loaded: a transaction has been open since "
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
