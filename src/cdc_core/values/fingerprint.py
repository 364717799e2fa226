"""Fingerprint of a table: it shows whether rows may have changed without row events.

Source: PostgreSQL manual, `pg_class.relfilenode`, `pg_attribute`, `pg_inherits`, `pg_enum`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from cdc_core.values.partition_bounds import Bound

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
    from collections.abc import Set as AbstractSet

    from cdc_core.values.lsn import Lsn

#: The table itself, among the oids of its partitions.
ITSELF = 0


class Label(NamedTuple):
    """A label of an enum.

    `number` identifies it, whatever its name, and `enum` its type. `mark` changes when its catalog
    row is written (empty: not known). `original`: it was created with the type and never renamed.
    In changes that commit at or before `doubted_until`, a value with this `text` may belong to
    another label, which had the name before.
    """

    number: int
    text: str
    enum: int = 0
    mark: str = ""
    original: bool = False
    doubted_until: int = 0


class Attributes(NamedTuple):
    """The attributes of a composite type. `mark` changes when one is added, dropped or changes
    type. `original`: that never happened."""

    type_oid: int
    mark: str
    original: bool = False


@dataclass(frozen=True)
class Fingerprint:
    """Marks of a table's definition and storage, taken from the catalog at one moment.

    - `storage` changes when the table gets new files: after an ALTER that rewrites it, but also
      after VACUUM FULL, CLUSTER and TRUNCATE, which change no rows or send their own event.
    - `definition` changes when any column's catalog row is written.
    - `persistence` changes with every ALTER TABLE that gives the table new files, such as SET
      UNLOGGED. The WAL does not contain changes of an unlogged table. Empty: not known.
    - `partitions` holds every leaf partition as `(oid, attached, file node)`. `attached` is False
      for a partition that was created in place: all its rows came through the stream. A partition
      that disappears takes its rows with it; one with new files may have been truncated. The first
      file node is the oid.
    - `paths` changes for a leaf when it, or a partition above it, is attached again. Not known for
      a leaf without a path.
    - `bounds` holds the bounds of leaves, where known, as `(oid, bounds)`.
    - `labels` are those of the enums in its columns. Renaming a label changes the text of existing
      rows. `enums` are the types of columns whose values are labels of an enum, as `(type oid,
      enum)`; `within` are enums whose labels are only a part of a value.
    - `attributes` are those of the composite types in its columns. Adding, dropping or changing one
      changes the text of existing rows; renaming one does not.
    - `place` changes when the table is put into a schema. Empty: it is not published by its schema,
      or not known.
    - `last_column` is the greatest number that any column ever had, including dropped ones. 0: not
      known.
    - `unsent` holds the numbers of columns that the stream omits, such as generated ones.
    - `publication` changes when the table was published differently for a time, or not at all:
      changes from that time may be missing. Empty: not published, or not known.
    """

    storage: str = ""
    definition: str = ""
    partitions: tuple[tuple[int, bool, int], ...] = ()
    publication: str = ""
    labels: tuple[Label, ...] = ()
    paths: tuple[tuple[int, str], ...] = ()
    attributes: tuple[Attributes, ...] = ()
    unsent: tuple[int, ...] = ()
    place: str = ""
    last_column: int = 0
    persistence: str = ""
    enums: tuple[tuple[int, int], ...] = ()
    within: tuple[int, ...] = ()
    bounds: tuple[tuple[int, tuple[Bound, ...]], ...] = ()

    def to_text(self) -> str:
        """JSON; computed once, as each checkpoint contains it for every table."""
        return self._text

    @cached_property
    def _text(self) -> str:
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return json.dumps(values, separators=(",", ":"))

    @classmethod
    def from_text(cls, text: str) -> Fingerprint:
        """Inverse of `to_text`; the empty text gives a fingerprint of which nothing is known."""
        if not text:
            return cls()
        parsed = _parsed(text)
        # A cached property: `to_text` returns the text as it was read.
        parsed.__dict__["_text"] = text
        return parsed

    def moved(self, before: Fingerprint) -> frozenset[int]:
        """Return the partitions (or `ITSELF`) with new files since `before`; their rows may have
        changed."""
        old = {oid: node for oid, _, node in before.partitions}
        found = {oid for oid, _, node in self.partitions if old.get(oid, node) != node}
        if self.storage != before.storage and (
            self.definition != before.definition
            or not self.persistence
            or self.persistence != before.persistence
        ):
            found.add(ITSELF)
        return frozenset(found)

    def attached(self, before: Fingerprint) -> frozenset[int]:
        """Return the partitions attached since `before`, in their first files; they may have
        brought rows."""
        old = {oid for oid, *_ in before.partitions}
        return frozenset(
            oid
            for oid, attached, node in self.partitions
            if attached and oid not in old and oid == node
        )

    def gone(self, before: Fingerprint) -> frozenset[int]:
        """Return the partitions that were detached or dropped since `before`, with their rows."""
        now = {oid for oid, *_ in self.partitions}
        return frozenset(oid for oid, *_ in before.partitions if oid not in now)

    def keeping(self, gone: Collection[int], before: Fingerprint) -> Fingerprint:
        """Return this fingerprint with these partitions of `before`, whose rows are not removed
        yet."""
        return replace(
            self,
            partitions=(*self.partitions, *(p for p in before.partitions if p[0] in gone)),
            paths=(*self.paths, *(p for p in before.paths if p[0] in gone)),
            bounds=(*self.bounds, *(b for b in before.bounds if b[0] in gone)),
        )

    def without(self, gone: Collection[int]) -> Fingerprint:
        """Return this fingerprint without these partitions."""
        return replace(
            self,
            partitions=tuple(p for p in self.partitions if p[0] not in gone),
            paths=tuple(p for p in self.paths if p[0] not in gone),
            bounds=tuple(b for b in self.bounds if b[0] not in gone),
        )

    def reread_reason(self, before: Fingerprint, settled: Collection[int] = ()) -> str:
        """Return why rows may differ from what the stream sent since `before`; empty if they
        cannot.

        `settled` are partitions (or `ITSELF`) that need no such doubt: of `moved` and `attached`,
        those known to have the rows they had, or no rows; of `gone`, those whose rows will be
        removed.
        """
        reasons = (
            *self._partition_reasons(before, {*settled}),
            *self._file_reasons(before, {*settled}),
            self._labels_changed(before),
            self._attributes_changed(before),
            "its publication was changed"
            if before.publication and self.publication not in ("", before.publication)
            else "",
            "it was moved out of its schema and back"
            if before.place and self.place not in ("", before.place)
            else "",
        )
        return next(filter(None, reasons), "")

    def _partition_reasons(self, before: Fingerprint, settled: AbstractSet[int]) -> Iterator[str]:
        if self.gone(before) - settled:
            yield "a partition was detached or dropped"
        old = {oid for oid, *_ in before.partitions}
        added = [leaf for leaf in self.partitions if leaf[0] not in old]
        if any(attached for oid, attached, _ in added if oid not in settled):
            yield "a partition was attached"
        # A foreign table has no files: 0.
        if any(node not in (0, oid) for oid, _, node in added):
            yield "a new partition was truncated or rewritten"
        paths = dict(before.paths)
        if any(paths.get(oid, path) != path for oid, path in self.paths):
            yield "a partition was detached and attached again"

    def _file_reasons(self, before: Fingerprint, settled: AbstractSet[int]) -> Iterator[str]:
        moved = self.moved(before) - settled
        if moved - {ITSELF}:
            yield "a partition was truncated or rewritten"
        if moved and self.definition != before.definition:
            yield "the table was rewritten"
        if moved:
            yield "it has new files, and may have been UNLOGGED for a time"

    def following(self, before: Fingerprint, until: Callable[[], Lsn]) -> Fingerprint:
        """Return this fingerprint with what `before` knows of when labels got their names.

        Of several new labels, each may have had the name of another one. So their values are in
        doubt in changes that commit at or before `until`, which is called only then.
        """
        doubted = {label.number: label.doubted_until for label in before.labels}
        by_enum = self._new_labels(before)
        several = {label.number for new in by_enum.values() if len(new) > 1 for label in new}
        if several:
            doubted |= dict.fromkeys(several, int(until()))
        return replace(
            self,
            labels=tuple(
                label._replace(doubted_until=doubted.get(label.number, 0)) for label in self.labels
            ),
        )

    def _labels_changed(self, before: Fingerprint) -> str:
        old = {label.number: label for label in before.labels}
        for label in self.labels:
            known = old.get(label.number)
            if known is not None and (known.text, known.mark) != (label.text, label.mark):
                return "a label of an enum was renamed"
        if self._new_labels(before).keys() & {*self.within}:
            return "labels were added to an enum within another type, and may have been renamed"
        return ""

    def _attributes_changed(self, before: Fingerprint) -> str:
        old = {known.type_oid: known.mark for known in before.attributes}
        if any(old.get(now.type_oid, now.mark) != now.mark for now in self.attributes):
            return "attributes of a composite type were changed"
        if any(now.type_oid not in old and not now.original for now in self.attributes):
            return "attributes of a composite type new to it may have been changed"
        return ""

    def _new_labels(self, before: Fingerprint) -> dict[int, list[Label]]:
        """Return the labels that are new since `before` and may have been renamed, by enum."""
        old = {label.number for label in before.labels}
        new: dict[int, list[Label]] = {}
        for label in self.labels:
            if label.number not in old and not label.original:
                new.setdefault(label.enum, []).append(label)
        return new


def _parsed(text: str) -> Fingerprint:
    found = json.loads(text)
    # Checkpoints of older versions lack some fields; these count as not known.
    return Fingerprint(
        storage=found["storage"],
        definition=found["definition"],
        partitions=_tuples(found["partitions"]),
        publication=found.get("publication", ""),
        labels=tuple(Label(*label) for label in found.get("labels", ())),
        paths=_tuples(found.get("paths", ())),
        attributes=tuple(Attributes(*known) for known in found.get("attributes", ())),
        unsent=tuple(found.get("unsent", ())),
        place=found.get("place", ""),
        last_column=found.get("last_column", 0),
        persistence=found.get("persistence", ""),
        enums=_tuples(found.get("enums", ())),
        within=tuple(found.get("within", ())),
        bounds=tuple((oid, tuple(map(_bound, levels))) for oid, levels in found.get("bounds", ())),
    )


def _bound(found: Sequence[Any]) -> Bound:
    attnum, values, low, high = found
    return Bound(attnum, None if values is None else tuple(values), low, high)


def _tuples(lists: Iterable[Iterable[Any]]) -> tuple[Any, ...]:
    return tuple(tuple(each) for each in lists)
