"""Which event changed the same row before: the lineage of the events of a table.

It goes across changes of the key. `NONE` stands for no event. A value that an event does not have
is that of the nearest event in its lineage that has it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cdc_core.values.changes import Op

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from cdc_core.values.changes import TableChanges

    Indexes = npt.NDArray[np.int64]
    Mask = npt.NDArray[np.bool_]

NONE = -1


def key_codes(keys: pa.Table) -> Indexes:
    """Return a number for each row of `keys`: equal for equal keys, dense from 0."""
    codes: Indexes | None = None
    for column in keys.columns:
        column_codes, count = _codes(column)
        if codes is None:
            codes = column_codes
        else:
            codes, _ = _codes(pa.chunked_array([pa.array(codes * count + column_codes)]))
    assert codes is not None
    return codes


def _codes(column: pa.ChunkedArray) -> tuple[Indexes, int]:
    if pa.types.is_integer(column.type) and column.null_count == 0:
        numbers = column.to_numpy()
        if bool((numbers[1:] > numbers[:-1]).all()):
            # Rows inserted by a sequence: all keys differ.
            return np.arange(len(numbers), dtype=np.int64), len(numbers)
    if pa.types.is_floating(column.type):
        column = pc.add(column, pa.scalar(0, column.type))  # -0.0 is the key 0.0
    encoded = column.combine_chunks().dictionary_encode(null_encoding="encode")
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    return encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64), len(encoded.dictionary)


def lineage(changes: TableChanges, codes: Indexes, events: Indexes) -> Indexes:
    """Return for each event the previous event of the same row; NONE if the batch has none."""
    before = np.full(len(changes), NONE, dtype=np.int64)
    order = np.argsort(codes, kind="stable")
    same = codes[order[1:]] == codes[order[:-1]]
    before[events[order[1:][same]]] = events[order[:-1][same]]
    moved = changes.moved_from >= 0
    before[moved] = changes.moved_from[moved]
    before[changes.op == Op.INSERT] = NONE
    return before


def follow(before: Indexes, onward: Mask) -> Indexes:
    """Return for each event the nearest in its lineage (or itself) that is not `onward`, else the
    first.

    Pointer doubling: the number of rounds is the logarithm of the longest lineage.
    """
    here = np.arange(len(before), dtype=np.int64)
    jump = np.where(onward & (before != NONE), before, here)
    while True:
        further = jump[jump]
        if np.array_equal(further, jump):
            return jump
        jump = further


def unchanged_text(schema: pa.Schema, unresolved: Mapping[str, Mask], count: int) -> pa.Array:
    """Return `_cdc_unchanged` of each row: positions of unresolved columns as `.3.17.`, or null."""
    if not unresolved:
        return pa.nulls(count, pa.string())
    # Columns often have the same mask.
    columns: dict[int, list[str]] = {}
    masks: dict[int, Mask] = {}
    for name, mask in unresolved.items():
        columns.setdefault(id(mask), []).append(name)
        masks[id(mask)] = mask
    # Each combination of masks gets a number, one more mask at a time.
    which, patterns = np.zeros(count, np.int64), np.zeros((1, 0), np.bool_)
    for mask in masks.values():
        codes = which * 2 + mask
        used = np.flatnonzero(np.bincount(codes, minlength=2 * len(patterns)))
        numbers = np.zeros(2 * len(patterns), np.int64)
        numbers[used] = np.arange(len(used))
        which = numbers[codes]
        patterns = np.column_stack([patterns[used // 2], (used % 2).astype(np.bool_)])
    texts = []
    for flags in patterns:
        names = [
            n for found, flag in zip(columns.values(), flags, strict=True) if flag for n in found
        ]
        places = sorted(schema.get_field_index(name) for name in names)
        texts.append(f".{'.'.join(map(str, places))}." if places else None)
    return pa.array(texts, pa.string()).take(pa.array(which))
