"""Rows of a table and merges into it, at random, and how rows are compared."""

from __future__ import annotations

import datetime as dt
import itertools
import math
import struct
from collections import Counter
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st

from cdc_core.values.lsn import Lsn
from cdc_core.values.merges import (
    KEYED_CONTROL_FIELDS,
    METADATA_FIELDS,
    MULTISET_CONTROL_FIELDS,
    KeyedMerge,
    MultisetMerge,
    TargetTable,
)

Row = dict[str, Any]
THEN = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
NEGATIVE_NAN = struct.unpack("<d", bytes(6) + b"\xf8\xff")[0]

KEYED = pa.schema([("a", pa.int64()), ("b", pa.string()), ("x", pa.string()), ("y", pa.float64())])
BAG = pa.schema([("x", pa.string()), ("y", pa.float64()), ("z", pa.decimal128(5, 2))])

lsns = st.integers(1, 12)
held_lsns = st.none() | lsns
texts = st.sampled_from([None, "", "p", "q", "it's"])
floats = st.sampled_from([None, 0.5, math.nan, math.inf])
any_floats = floats | st.sampled_from([0.0, -0.0, NEGATIVE_NAN])
keys = st.tuples(st.integers(0, 3), st.sampled_from(["k", "l"]))


def stamped(row: Row) -> Row:
    return {"_cdc_committed_at": THEN + dt.timedelta(seconds=row["_cdc_lsn"] or 0), **row}


@st.composite
def keyed_rows(draw: st.DrawFn) -> list[Row]:
    held = draw(st.dictionaries(keys, st.tuples(texts, floats, held_lsns), max_size=6))
    return [
        stamped({"a": a, "b": b, "x": x, "y": y, "_cdc_lsn": lsn})
        for (a, b), (x, y, lsn) in held.items()
    ]


@st.composite
def keyed_merges(draw: st.DrawFn, *, soft_deletes: bool = False) -> KeyedMerge:
    truncated_at = draw(st.none() | lsns)
    newer = st.integers(truncated_at or 1, 12)
    operations = st.sampled_from("UDS" if soft_deletes else "UD")
    finals = draw(st.dictionaries(keys, st.tuples(texts, floats, newer, operations), max_size=6))
    rows: list[Row] = []
    refs = itertools.count()
    unchanged: set[str] = set()
    for (a, b), (x, y, lsn, operation) in finals.items():
        row = {"a": a, "b": b, "x": x, "y": y, "_cdc_lsn": lsn, "_cdc_op": operation}
        if operation != "D" and truncated_at is None:
            left_out = draw(st.sets(st.sampled_from(["x", "y"])))
            unchanged |= left_out
            if left_out:
                positions = sorted(KEYED.get_field_index(name) for name in left_out)
                row["_cdc_unchanged"] = f".{'.'.join(map(str, positions))}."
                row |= dict.fromkeys(left_out)
                hops = draw(
                    st.lists(
                        st.tuples(keys, st.integers(0, 12)), max_size=3, unique_by=lambda h: h[1]
                    )
                )
                if hops:
                    row["_cdc_ref"] = next(refs)
                    rows += [
                        {
                            "a": c,
                            "b": d,
                            "_cdc_lsn": at,
                            "_cdc_op": "H",
                            "_cdc_ref": row["_cdc_ref"],
                        }
                        for (c, d), at in hops
                    ]
        rows.append(stamped(row))
    schema = pa.schema([*KEYED, *METADATA_FIELDS, *KEYED_CONTROL_FIELDS])
    return KeyedMerge(
        TargetTable("", KEYED),
        ("a", "b"),
        pa.Table.from_pylist(rows, schema),
        None if truncated_at is None else Lsn(truncated_at),
        tuple(sorted(unchanged)),
        has_hops=any(row["_cdc_op"] == "H" for row in rows),
        soft_deletes=soft_deletes,
        truncated_time=truncated_at,
    )


@st.composite
def bag_rows(draw: st.DrawFn) -> list[Row]:
    rows = draw(st.lists(st.tuples(texts, any_floats, held_lsns, st.integers(1, 3)), max_size=5))
    return [
        stamped({"x": x, "y": y, "z": None, "_cdc_lsn": lsn})
        for x, y, lsn, copies in rows
        for _ in range(copies)
    ]


@st.composite
def bag_merges(draw: st.DrawFn) -> MultisetMerge:
    truncated_at = draw(st.none() | lsns)
    newer = st.integers(truncated_at or 1, 12)
    events = draw(st.lists(st.tuples(texts, any_floats, newer, st.booleans()), max_size=10))
    events.sort(key=lambda event: event[2])
    rows = [
        stamped(
            {"x": x, "y": y, "_cdc_lsn": lsn, "_cdc_op": "D" if deleted else "U", "_cdc_ref": ref}
        )
        for ref, (x, y, lsn, deleted) in enumerate(events)
    ]
    schema = pa.schema([*BAG, *METADATA_FIELDS, *MULTISET_CONTROL_FIELDS])
    return MultisetMerge(
        TargetTable("", BAG),
        pa.Table.from_pylist(rows, schema),
        ("x", "y", "z"),
        None if truncated_at is None else Lsn(truncated_at),
    )


def comparable(rows: list[Row]) -> Counter[str]:
    return Counter(
        repr([(name, _plain(value)) for name, value in sorted(row.items())]) for row in rows
    )


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, dt.datetime) else value
