"""Whether a table must be read again, because something changed its rows without row events.

Source: PostgreSQL manual, `pg_class.relfilenode`, `pg_attribute`, `pg_inherits`, `pg_enum`.
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
    - `partitions` holds every leaf partition as `(oid, attached, file node)`; `attached` is False
      for one that was created in place, whose rows all came through the stream. A partition missing
      later took its rows with it; one with new files was truncated by itself, or may have been. The
      first file node is the oid.
    - `paths` changes for a leaf when it, or a partition above it, is attached once more. A leaf
      without one: not known.
    - `attributes` changes for a composite type in its columns when an attribute is added, dropped
      or changes type: then rows from before print otherwise. Renaming one changes no text.
    - `place` changes when the table is put into a schema. Empty: it is not published by its schema,
      or not known.
    - `last_column` is the greatest number that a column ever had, dropped ones too. 0: not known.
    - `unsent` holds the numbers of columns that the stream leaves out, such as generated ones.
    - `publication` changes when the table was published otherwise for a time, or not at all: what
      was done to it then may be missing. Empty: not published, or not known.
    - `labels` holds the labels of the enums in its columns, each with a number that it keeps when
      it gets another name: then rows from before read otherwise.
    """

    storage: str = ""
    definition: str = ""
    partitions: tuple[tuple[int, bool, int], ...] = ()
    publication: str = ""
    labels: tuple[tuple[int, str], ...] = ()
    paths: tuple[tuple[int, str], ...] = ()
    attributes: tuple[tuple[int, str], ...] = ()
    unsent: tuple[int, ...] = ()
    place: str = ""
    last_column: int = 0

    def to_text(self) -> str:
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_text(cls, text: str) -> Fingerprint:
        if not text:
            return cls()
        fields = json.loads(text)
        partitions = tuple((oid, attached, node) for oid, attached, node in fields["partitions"])
        publication = fields.get("publication", "")
        labels = tuple((number, label) for number, label in fields.get("labels", ()))
        paths = tuple((oid, path) for oid, path in fields.get("paths", ()))
        attributes = tuple((number, mark) for number, mark in fields.get("attributes", ()))
        return cls(
            fields["storage"],
            fields["definition"],
            partitions,
            publication,
            labels,
            paths,
            attributes,
            tuple(fields.get("unsent", ())),
            fields.get("place", ""),
            fields.get("last_column", 0),
        )

    def reread_reason(self, before: Fingerprint) -> str:
        """Why rows may differ from what the stream told since `before`; empty if they cannot."""
        old = {oid: node for oid, _, node in before.partitions}
        new = {oid: node for oid, _, node in self.partitions}
        if old.keys() - new.keys():
            return "a partition was detached or dropped"
        if any(attached for oid, attached, _ in self.partitions if oid not in old):
            return "a partition was attached"
        # A foreign table has no files: 0.
        if any(node not in (0, oid) for oid, node in new.items() if oid not in old):
            return "a new partition was truncated or rewritten"
        paths = dict(before.paths)
        if any(paths.get(oid, path) != path for oid, path in self.paths):
            return "a partition was detached and attached again"
        if any(old[oid] != node for oid, node in new.items() if oid in old):
            return "a partition was truncated or rewritten"
        if self.storage != before.storage and self.definition != before.definition:
            return "the table was rewritten"
        labels = dict(before.labels)
        if any(labels.get(number, label) != label for number, label in self.labels):
            return "a label of an enum was renamed"
        attributes = dict(before.attributes)
        if any(attributes.get(number, mark) != mark for number, mark in self.attributes):
            return "attributes of a composite type were changed"
        if before.publication and self.publication not in ("", before.publication):
            return "its publication was changed"
        if before.place and self.place not in ("", before.place):
            return "it was moved out of its schema and back"
        return ""
