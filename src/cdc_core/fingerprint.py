"""Whether a table must be read again, because something changed its rows without row events.

Source: PostgreSQL manual, `pg_class.relfilenode`, `pg_attribute`, `pg_inherits`.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Fingerprint:
    """Marks of a table's definition and storage, taken from the catalog at one moment.

    - `storage` changes when the table gets new files: a rewriting ALTER, but VACUUM FULL, CLUSTER
      and TRUNCATE too, which change no rows or send their own event.
    - `definition` changes when any column's catalog row is written.
    - `partitions` maps each partition that came with rows of its own (attached, not created in
      place) or holds rows now; a partition missing from the new map took its rows with it.
    """

    storage: str = ""
    definition: str = ""
    partitions: tuple[tuple[int, bool], ...] = ()

    def to_text(self) -> str:
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_text(cls, text: str) -> Fingerprint:
        if not text:
            return cls()
        fields = json.loads(text)
        partitions = tuple((oid, attached) for oid, attached in fields["partitions"])
        return cls(fields["storage"], fields["definition"], partitions)

    def reread_reason(self, before: Fingerprint) -> str:
        """Why rows may differ from what the stream told since `before`; empty if they cannot.

        A partition is `(oid, attached)`; `attached` is False for one that was created in place,
        whose
        rows all came through the stream.
        """
        old, new = dict(before.partitions), dict(self.partitions)
        if old.keys() - new.keys():
            return "a partition was detached or dropped"
        if any(attached for oid, attached in new.items() if oid not in old):
            return "a partition was attached"
        if self.storage != before.storage and self.definition != before.definition:
            return "the table was rewritten"
        return ""
