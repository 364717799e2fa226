"""The columnar decoder against the plain one, on random streams; and on damaged ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.pgoutput.wire import decoder as decoder_module
from adapters.pgoutput.wire.decoder import DecodedBatch, PgoutputDecoder
from adapters.pgoutput.wire.types import TypeMap
from cdc_core.values.errors import DecodeError
from cdc_core.values.lsn import Lsn
from tests.unit.adapters.pgoutput.wire import encoder
from tests.unit.adapters.pgoutput.wire.encoder import UNCHANGED, Value
from tests.unit.adapters.pgoutput.wire.reference import ReferenceDecoder, Table

if TYPE_CHECKING:
    from cdc_core.values.changes import TableChanges

TYPES = TypeMap()

TEXTS = {
    16: st.sampled_from(["t", "f"]),
    20: st.integers(-(2**63), 2**63 - 1).map(str),
    23: st.integers(-(2**31), 2**31 - 1).map(str),
    25: st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=6),
    701: st.floats(allow_nan=False).map(repr).map(lambda t: t.replace("inf", "Infinity")),
    1700: st.decimals(-99999, 99999, places=2, allow_nan=False).map(lambda d: f"{d:.2f}"),
}
TYPMODS = {1700: (10 << 16 | 2) + 4}


@dataclass
class Relation:
    oid: int
    identity: str
    columns: list[tuple[bool, str, int, int]]
    primary: tuple[str, ...]

    def message(self) -> bytes:
        return encoder.relation(self.oid, "public", f"t{self.oid}", self.identity, self.columns)

    @property
    def key(self) -> set[int]:
        if self.identity == "f":
            return {i for i, c in enumerate(self.columns) if c[1] in self.primary}
        return {i for i, c in enumerate(self.columns) if c[0]}


@st.composite
def relations(draw: st.DrawFn, oid: int, primary: tuple[str, ...] = ("c0",)) -> Relation:
    identity = draw(st.sampled_from("dddfffin"))
    count = draw(st.integers(0 if identity in "fn" and not primary else 1, 4))
    type_oids = draw(st.lists(st.sampled_from(sorted(TEXTS)), min_size=count, max_size=count))
    in_key = [
        identity == "f" or (identity in "di" and (i == 0 or draw(st.booleans())))
        for i in range(count)
    ]
    columns = [
        (in_key[i], f"c{i}", type_oid, TYPMODS.get(type_oid, -1))
        for i, type_oid in enumerate(type_oids)
    ]
    return Relation(oid, identity, columns, primary)


def row(relation: Relation, *, toast: bool) -> st.SearchStrategy[list[Value]]:
    values: list[st.SearchStrategy[Value]] = []
    for position, (_, _, type_oid, _) in enumerate(relation.columns):
        value: st.SearchStrategy[Value] = TEXTS[type_oid]
        if position not in relation.key:
            value = st.none() | value
            if toast:
                value = st.just(UNCHANGED) | value
        values.append(value)
    return st.tuples(*values).map(list)


@st.composite
def operation(draw: st.DrawFn, relation: Relation) -> bytes:
    oid = relation.oid
    has_identity = bool(relation.key) or relation.identity == "f"
    kind = draw(st.sampled_from("IIUUUD" if has_identity else "I"))
    if kind == "I":
        return encoder.insert(oid, draw(row(relation, toast=False)))
    old = draw(row(relation, toast=False))
    key_only = [value if i in relation.key else None for i, value in enumerate(old)]
    # A partition may send whole old rows though its root's identity is the default one.
    whole = relation.identity == "f" or draw(st.integers(0, 3)) == 0
    if kind == "D":
        return encoder.delete(oid, old=old) if whole else encoder.delete(oid, key=key_only)
    new = draw(row(relation, toast=True))
    if draw(st.booleans()):
        new = [old[i] if i in relation.key else value for i, value in enumerate(new)]
    if whole:
        new = [UNCHANGED if draw(st.integers(0, 4)) == 0 else value for value in new]
        return encoder.update(oid, new, old=old)
    if draw(st.booleans()):
        new = [
            UNCHANGED if i in relation.key and draw(st.integers(0, 4)) == 0 else value
            for i, value in enumerate(new)
        ]
        return encoder.update(oid, new, key=key_only)
    return encoder.update(oid, new)


NOISE = [
    encoder.type_message(90001, "public", "mood"),
    encoder.origin(7, "elsewhere"),
    encoder.logical_message(7, "prefix", b"content"),
    b"?whatever",
]


@st.composite
def streams(draw: st.DrawFn) -> tuple[list[list[bytes]], dict[int, tuple[str, ...]]]:
    """Messages of each of a few transactions, and the primary keys by the catalog."""
    keys = {
        oid: draw(st.sampled_from([(), ("c0",), ("c0", "c1"), ("gone",)]))
        for oid in range(1, draw(st.integers(1, 3)) + 1)
    }
    shapes: dict[int, Relation] = {}
    transactions = []
    lsn = 1000
    for _ in range(draw(st.integers(1, 3))):
        lsn += draw(st.integers(1, 10**6))
        time = draw(st.integers(0, 10**15))
        body: list[bytes] = []
        for _ in range(draw(st.integers(0, 6))):
            oid = draw(st.sampled_from(sorted(keys)))
            choice = draw(st.integers(0, 12))
            if oid not in shapes or choice == 0:
                shapes[oid] = draw(relations(oid, keys[oid]))
                body.append(shapes[oid].message())
            elif choice == 1:
                body.append(shapes[oid].message())
            elif choice == 2:
                body.append(draw(st.sampled_from(NOISE)))
            if choice == 3:
                oids = draw(st.lists(st.sampled_from(sorted(shapes)), min_size=1, max_size=3))
                body.append(encoder.truncate(oids, draw(st.integers(0, 3))))
            else:
                body.append(draw(operation(shapes[oid])))
        messages = [
            encoder.begin(lsn, time, 2**32 - 1 - lsn),
            *body,
            encoder.commit(lsn, lsn + 8, time),
        ]
        transactions.append(messages)
        lsn += 8
    return transactions, keys


def assert_same(actual: list[TableChanges], expected: list[Table]) -> None:
    assert len(actual) == len(expected)
    # Versions of a relation are in order; relations are in any.
    for table, reference in zip(
        sorted(actual, key=lambda t: t.relation.oid),
        sorted(expected, key=lambda t: t.oid),
        strict=True,
    ):
        table.rows.validate(full=True)
        assert table.rows.num_rows == len(reference.ops)
        assert table.relation.oid == reference.oid
        assert list(table.relation.column_names) == reference.columns
        assert table.rows.schema.types == [c.arrow_type for c in table.relation.columns]
        assert table.rows.column_names == reference.columns
        assert bytes(table.op).decode() == reference.ops
        if reference.columns:
            assert repr(table.rows.to_pylist()) == repr(reference.rows)
        assert table.commit_lsn.tolist() == reference.commit_lsns
        assert table.committed_at.tolist() == reference.committed_at
        assert table.xid.tolist() == reference.xids
        assert table.moved_from.tolist() == reference.moved_from
        unchanged = [
            {name for name, mask in table.unchanged.items() if mask[row]}
            for row in range(len(table))
        ]
        assert unchanged == reference.unchanged
        assert all(mask.any() for mask in table.unchanged.values())


def new_decoder(keys: dict[int, tuple[str, ...]]) -> PgoutputDecoder:
    return PgoutputDecoder(lambda _: TYPES, keys.get)


@settings(max_examples=200)
@given(streams(), st.data())
def test_decodes_as_the_plain_decoder_does(
    stream: tuple[list[list[bytes]], dict[int, tuple[str, ...]]], data: st.DataObject
) -> None:
    transactions, keys = stream
    after = data.draw(
        st.none() | st.sampled_from([commit_lsn(m) + 8 for m in transactions]), label="after"
    )
    wanted = data.draw(st.none() | st.sets(st.sampled_from(sorted(keys))), label="tables")
    messages = [message for transaction in transactions for message in transaction]
    cut = data.draw(st.integers(0, len(messages)), label="cut at message")
    actual, expected = new_decoder(keys), ReferenceDecoder(keys)
    open_at_end = False
    for piece in (messages[:cut], messages[cut:]):
        decoded = actual.decode(
            *encoder.stream(piece), after=None if after is None else Lsn(after), tables=wanted
        )
        marks = [m[:1] for m in piece if m[:1] in (b"B", b"C")]
        open_at_end = marks[-1] == b"B" if marks else open_at_end
        assert actual.in_transaction == open_at_end
        assert_same(decoded.tables, expected.decode(piece, after, wanted))
        assert_figures(decoded, piece, after)


def commit_lsn(transaction: list[bytes]) -> int:
    return int.from_bytes(transaction[0][1:9], "big")


def assert_figures(decoded: DecodedBatch, piece: list[bytes], after: int | None) -> None:
    commits = [int.from_bytes(m[2:10], "big") for m in piece if m[:1] == b"C"]
    kept = [lsn for lsn in commits if after is None or lsn >= after]
    assert decoded.end_lsn == (commits[-1] + 8 if commits else None)
    assert decoded.transactions == len(kept)
    assert decoded.last_commit_lsn == (kept[-1] if kept else None)
    noise = [m[:1] for m in piece if m[:1] in (b"Y", b"O", b"M", b"?")]
    names = {b"Y": "type", b"O": "origin", b"M": "message", b"?": "unknown"}
    assert decoded.skipped == {names[k]: noise.count(k) for k in set(noise)}


@settings(max_examples=60)
@given(streams())
def test_page_ranges_of_a_table_cover_it_exactly(
    stream: tuple[list[list[bytes]], dict[int, tuple[str, ...]]],
) -> None:
    transactions, keys = stream
    messages = [message for transaction in transactions for message in transaction]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoder_module, "_CHUNK_BYTES", 1)
        patch.setattr(decoder_module, "_FEWEST_EVENTS", 1)
        patch.setattr(decoder_module, "_MOST_EVENTS", 2)
        decoded = new_decoder(keys).decode(*encoder.stream(messages))
    assert_same(decoded.tables, ReferenceDecoder(keys).decode(messages))


def survives(keys: dict[int, tuple[str, ...]], buffer: bytes, offsets: np.ndarray) -> None:
    """Success, or the one documented error."""
    try:
        decoded = new_decoder(keys).decode(buffer, offsets)
    except DecodeError:
        return
    for table in decoded.tables:
        table.rows.validate(full=True)


@settings(max_examples=15)
@given(streams())
def test_every_prefix_is_refused_or_decoded(
    stream: tuple[list[list[bytes]], dict[int, tuple[str, ...]]],
) -> None:
    transactions, keys = stream
    buffer, offsets = encoder.stream([m for transaction in transactions for m in transaction])
    for length in range(len(buffer)):
        whole = offsets[offsets <= length]
        cut = whole if whole[-1] == length else np.append(whole, length)
        survives(keys, buffer[:length], cut)
        # The same with the commit that would follow: the damage then is inside a transaction.
        tail = encoder.commit(int.from_bytes(transactions[0][0][1:9], "big"), 2**40)
        survives(keys, buffer[:length] + tail, np.append(cut, length + len(tail)))


@settings(max_examples=200)
@given(streams(), st.data())
def test_damaged_bytes_are_refused_or_decoded(
    stream: tuple[list[list[bytes]], dict[int, tuple[str, ...]]], data: st.DataObject
) -> None:
    transactions, keys = stream
    buffer, offsets = encoder.stream([m for transaction in transactions for m in transaction])
    damaged = bytearray(buffer)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(damaged) - 1))
        damaged[place] = data.draw(st.integers(0, 255) | st.sampled_from(b"BCRIUDTNKOntu\xff\x7f"))
    survives(keys, bytes(damaged), offsets)


@settings(max_examples=150)
@given(st.lists(st.binary(max_size=40), max_size=6), st.lists(st.integers(-5, 200), max_size=6))
def test_random_bytes_are_refused_or_decoded(messages: list[bytes], offsets: list[int]) -> None:
    framed = [encoder.begin(10), *messages, encoder.commit(10, 20)]
    survives({}, *encoder.stream(framed))
    survives({}, *encoder.stream(messages))
    survives({}, b"".join(framed), np.array(offsets, dtype=np.int64))
