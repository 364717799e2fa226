"""Whether two sets of rows are equal, in bounded memory, and in which rows they are not.

Each side is first summed in buckets by the hash of the row's key; only rows in buckets that differ
are compared one by one. A row is two hashes, of its key and of all its values (see `row_hash`). In
a table without a key the row is its own key and copies count.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from cdc_core.values.row_hash import Hashes

BUCKETS = 1 << 16
_SHIFT = np.uint64(64 - 16)


@dataclass(frozen=True, eq=False)
class RowHashes:
    """Rows of one side: `keys[i]` and `rows[i]` are the hashes of row i."""

    keys: Hashes
    rows: Hashes

    def within(self, buckets: npt.NDArray[np.bool_]) -> RowHashes:
        wanted = buckets[bucket_of(self.keys)]
        return RowHashes(self.keys[wanted], self.rows[wanted])


def bucket_of(keys: Hashes) -> npt.NDArray[np.int64]:
    return (keys >> _SHIFT).astype(np.int64)


def joined(parts: list[RowHashes]) -> RowHashes:
    empty = np.empty(0, np.uint64)
    return RowHashes(
        np.concatenate([empty, *(part.keys for part in parts)]),
        np.concatenate([empty, *(part.rows for part in parts)]),
    )


@dataclass(eq=False)
class Digest:
    """Rows and the sum of their hashes (modulo 2^64, so in any order), bucket by bucket."""

    counts: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(BUCKETS, np.int64))
    sums: Hashes = field(default_factory=lambda: np.zeros(BUCKETS, np.uint64))

    @property
    def rows(self) -> int:
        return int(self.counts.sum())

    def add(self, hashes: RowHashes) -> None:
        # bincount adds in float64, which holds the sums of these slices and halves exactly.
        for start in range(0, len(hashes.keys), 1 << 20):
            part = slice(start, start + (1 << 20))
            buckets, rows = bucket_of(hashes.keys[part]), hashes.rows[part]
            self.counts += np.bincount(buckets, minlength=BUCKETS)
            low = np.bincount(buckets, rows & np.uint64(0xFFFFFFFF), BUCKETS).astype(np.uint64)
            high = np.bincount(buckets, rows >> np.uint64(32), BUCKETS).astype(np.uint64)
            with np.errstate(over="ignore"):
                self.sums += low + (high << np.uint64(32))

    def differing(self, other: Digest) -> npt.NDArray[np.bool_]:
        """Which buckets differ."""
        unlike: npt.NDArray[np.bool_] = self.counts != other.counts
        unlike |= self.sums != other.sums
        return unlike


def groups(source: Digest, target: Digest, rows: int) -> Iterator[npt.NDArray[np.bool_]]:
    """Yield the differing buckets in groups of about `rows` rows, each at least one bucket."""
    group = np.zeros(BUCKETS, np.bool_)
    size = 0
    for bucket in np.flatnonzero(source.differing(target)):
        weight = int(source.counts[bucket] + target.counts[bucket])
        if size and size + weight > rows:
            yield group
            group, size = np.zeros(BUCKETS, np.bool_), 0
        group[bucket] = True
        size += weight
    if group.any():
        yield group


@dataclass(frozen=True, eq=False)
class Differences:
    """Hashes of the keys whose rows differ, each once: only at the source, only in the target, in
    both with other content (or more often in the target).

    Without keys `different` is empty, and `missing_copies`, `extra_copies` say how many copies of
    each content are too few and too many; with keys they are ones.
    """

    missing: Hashes
    extra: Hashes
    different: Hashes
    missing_copies: npt.NDArray[np.int64]
    extra_copies: npt.NDArray[np.int64]
    #: Keys of `different` that the target has more than once.
    duplicated: Hashes


def differences(source: RowHashes, target: RowHashes, *, keyed: bool) -> Differences:
    """Compare rows one by one; O(n log n)."""
    contents = np.concatenate([source.rows, target.rows])
    distinct, which = np.unique(contents, return_inverse=True)
    which = which.reshape(-1)
    at_source, at_target = which[: len(source.rows)], which[len(source.rows) :]
    surplus = np.bincount(at_source, minlength=len(distinct)) - np.bincount(
        at_target, minlength=len(distinct)
    )
    if not keyed:
        missing, extra = surplus > 0, surplus < 0
        none = np.empty(0, np.uint64)
        return Differences(
            distinct[missing], distinct[extra], none, surplus[missing], -surplus[extra], none
        )
    source_keys = np.unique(source.keys[surplus[at_source] > 0])
    target_keys = np.unique(target.keys[surplus[at_target] < 0])
    missing_keys = source_keys[~np.isin(source_keys, target.keys)]
    extra_keys = target_keys[~np.isin(target_keys, source.keys)]
    either = np.union1d(source_keys, target_keys)
    both = either[~np.isin(either, np.concatenate([missing_keys, extra_keys]))]
    held, copies = np.unique(target.keys, return_counts=True)
    return Differences(
        missing_keys,
        extra_keys,
        both,
        np.ones(len(missing_keys), np.int64),
        np.ones(len(extra_keys), np.int64),
        np.intersect1d(both, held[copies > 1]),
    )
