"""Name the keys of rows that differ. Hashes cannot be reversed, so each side is read again."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np

from cdc_core.fold.unrepresentable import key_texts
from cdc_core.verify.report import DifferingKey, Kind

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa

    from cdc_core.values.row_hash import Hashes
    from cdc_core.verify.compare_table import TableSides
    from cdc_core.verify.parity import Differences, RowHashes


def differing_keys(sides: TableSides, found: Differences, limit: int) -> list[DifferingKey]:
    """Return keys of rows that differ, at most `limit`, in no order."""
    kinds: tuple[tuple[Kind, Hashes, bool], ...] = (
        ("missing", found.missing, True),
        ("extra", found.extra, False),
        ("different", found.different, True),
    )
    named: list[DifferingKey] = []
    for from_source in (True, False):
        wanted = [(kind, hashes) for kind, hashes, there in kinds if there is from_source]
        open_keys = np.concatenate([hashes for _, hashes in wanted])
        for rows, hashes in _keys(sides, from_source=from_source):
            if not len(open_keys) or len(named) >= limit:
                continue  # closing a read early would end the snapshot
            first = np.flatnonzero(np.isin(hashes.keys, open_keys))
            _, once = np.unique(hashes.keys[first], return_index=True)
            picked = np.sort(first[once])[: limit - len(named)]
            found_keys = hashes.keys[picked]
            kind_of = {
                int(key): kind
                for kind, keys in wanted
                for key in found_keys[np.isin(found_keys, keys)]
            }
            for key, row in zip(found_keys, picked, strict=True):
                texts = key_texts(rows, int(row))
                named.append(DifferingKey(kind_of[int(key)], json.dumps(texts, ensure_ascii=False)))
            open_keys = open_keys[~np.isin(open_keys, found_keys)]
    return named


def _keys(sides: TableSides, *, from_source: bool) -> Iterator[tuple[pa.Table, RowHashes]]:
    """Yield the key columns of every row, as they are at the destination."""
    names = list(sides.pairing.key_target)
    chunks = sides.source_chunks() if from_source else sides.target_chunks()
    for chunk in chunks:
        yield chunk.rows.select(names), chunk.hashes
