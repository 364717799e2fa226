"""Whether slot and checkpoint belong to the same unbroken WAL, and which LSN may be confirmed.

Source: PostgreSQL manual, "pg_replication_slots".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cdc_core.values.errors import ContinuityLost, OperatorNeeded

if TYPE_CHECKING:
    from collections.abc import Callable

    from cdc_core.ports.change_source import SlotState
    from cdc_core.values.checkpoint import Checkpoint, SourceIdentity
    from cdc_core.values.lsn import Lsn

RESNAPSHOT = "every table needs a new snapshot; run: pgbronze snapshot"


def require_checkpoint(checkpoint: Checkpoint | None) -> Checkpoint:
    """Return the checkpoint; raises `OperatorNeeded` before the first snapshot."""
    if checkpoint is None:
        raise OperatorNeeded(
            "the destination has no checkpoint: no snapshot was taken yet",
            "run: pgbronze snapshot",
        )
    return checkpoint


def confirmable(durable: Checkpoint) -> Lsn:
    """Return the position that the slot may move to: what the destination has durably committed."""
    return durable.lsn


def has_two_phase(slot_name: str) -> OperatorNeeded:
    return OperatorNeeded(
        f"replication slot {slot_name!r} has two_phase: it sends prepared transactions before they "
        "commit, in messages that pgbronze does not read",
        f'run on a replication connection (PostgreSQL 18): ALTER_REPLICATION_SLOT "{slot_name}" '
        f"(TWO_PHASE false); else {RESNAPSHOT}",
    )


def continuity_break(
    checkpoint: Checkpoint,
    source: SourceIdentity,
    slot: SlotState | None,
    current_lsn: Lsn | None = None,
    left_timeline: Callable[[int], Lsn | None] | None = None,
) -> OperatorNeeded | None:
    """Return why the stream cannot continue from the checkpoint; None if it can.

    `current_lsn` is the source's position and `left_timeline` its method of that name. Without
    them, a source that was restored from before the checkpoint is not detected.
    """
    known = checkpoint.source
    name = source.slot_name
    if known.system_id != source.system_id:
        return ContinuityLost(
            f"the checkpoint belongs to PostgreSQL cluster {known.system_id}, this is "
            f"{source.system_id}",
            f"point sources.pg_replication.credentials at the former, or {RESNAPSHOT}",
        )
    if known.database != source.database:
        return ContinuityLost(
            f"the checkpoint belongs to database {known.database!r}, this is {source.database!r}",
            f"point sources.pg_replication.credentials at the former, or {RESNAPSHOT}",
        )
    if known.slot_name != source.slot_name:
        return ContinuityLost(
            f"the checkpoint belongs to slot {known.slot_name!r}, the setting names {name!r}",
            f"set sources.pg_replication.slot_name to the former, or {RESNAPSHOT}",
        )
    if slot is None:
        return ContinuityLost(f"replication slot {name!r} does not exist", RESNAPSHOT)
    if slot.database != source.database:
        whose = f"belongs to database {slot.database!r}" if slot.database else "is a physical slot"
        return ContinuityLost(
            f"replication slot {name!r} {whose}",
            f"choose another sources.pg_replication.slot_name; {RESNAPSHOT}",
        )
    if slot.lost or slot.confirmed_flush_lsn is None:
        return ContinuityLost(
            f"replication slot {name!r} is lost (wal_status = {slot.wal_status})",
            f"raise max_slot_wal_keep_size or run cdc more often; {RESNAPSHOT}",
        )
    if slot.two_phase:
        return has_two_phase(name)
    if slot.confirmed_flush_lsn > checkpoint.lsn:
        return ContinuityLost(
            f"replication slot {name!r} is at {slot.confirmed_flush_lsn}, past the checkpoint "
            f"{checkpoint.lsn}: it was recreated, or something else read from it",
            "if another pipeline uses it, set sources.pg_replication.slot_name to another name; "
            f"{RESNAPSHOT}",
        )
    if known.timeline and source.timeline != known.timeline and left_timeline is not None:
        left = left_timeline(known.timeline)
        if left is None or left < checkpoint.lsn:
            where = "was never on it" if left is None else f"left it at {left}"
            return ContinuityLost(
                f"the checkpoint {checkpoint.lsn} is on timeline {known.timeline}, the source is "
                f"on {source.timeline} and {where}: it was restored from a backup, or promoted too "
                "early",
                f"point sources.pg_replication.credentials at the former server, or {RESNAPSHOT}",
            )
    if current_lsn is not None and current_lsn < checkpoint.lsn:
        return ContinuityLost(
            f"the source's WAL ends at {current_lsn}, before the checkpoint {checkpoint.lsn}: it "
            "was restored from a backup, or is a standby that has not replayed that far",
            f"wait for the standby, or {RESNAPSHOT}",
        )
    return None
