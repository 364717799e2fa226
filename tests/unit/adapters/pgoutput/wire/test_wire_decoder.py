"""The rules of decoding, one by one, on messages written by hand."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING

import numpy as np
import pytest

from adapters.pgoutput.wire.decoder import BinaryValue, DecodedBatch, PgoutputDecoder
from adapters.pgoutput.wire.types import TypeMap
from cdc_core.values.changes import TableChanges, Unrepresentable
from cdc_core.values.errors import DecodeError
from cdc_core.values.lsn import Lsn
from cdc_core.values.relation import ReplicaIdentity, TableName
from tests.unit.adapters.pgoutput.wire import encoder
from tests.unit.adapters.pgoutput.wire.encoder import UNCHANGED, Binary
from tests.unit.adapters.pgoutput.wire.records import binary

if TYPE_CHECKING:
    from collections.abc import Sequence

OID = 16400
TYPES = TypeMap()
COLUMNS = [(True, "id", 23, -1), (False, "a", 25, -1), (False, "b", 25, -1)]
NO_KEY = [(False, *column[1:]) for column in COLUMNS]
ALL_KEY = [(True, *column[1:]) for column in COLUMNS]


def relation(
    identity: str = "d",
    columns: Sequence[tuple[bool, str, int, int]] = COLUMNS,
    oid: int = OID,
    name: str = "t",
) -> bytes:
    return encoder.relation(oid, "public", name, identity, columns)


def transaction(*body: bytes, lsn: int = 100) -> list[bytes]:
    return [encoder.begin(lsn, 5), *body, encoder.commit(lsn, lsn + 20, 5)]


def decoder(key: tuple[str, ...] | None = None) -> PgoutputDecoder:
    return PgoutputDecoder(lambda _: TYPES, lambda _: key)


def decode(*body: bytes, key: tuple[str, ...] | None = None) -> TableChanges:
    batch = decoder(key).decode(*encoder.stream(transaction(*body)))
    (changes,) = batch.tables
    return changes


def refused(*messages: bytes) -> str:
    with pytest.raises(DecodeError) as caught:
        decoder().decode(*encoder.stream(messages))
    return str(caught.value)


def values(changes: TableChanges) -> list[tuple[str, ...]]:
    ops = bytes(changes.op).decode()
    return [(op, *row.values()) for op, row in zip(ops, changes.rows.to_pylist(), strict=True)]


BOTH_FORMATS = [
    (20, -1, -7, "-7"),
    (1700, (9 << 16 | 2) + 4, Decimal("-1234567.80"), "-1234567.80"),
    (1184, -1, datetime(1999, 12, 31, 23, 59, 59, 1, UTC), "1999-12-31 23:59:59.000001+00"),
    (701, -1, 0.1, "0.1"),
    (16, -1, True, "t"),
    (3802, -1, '{"a": 1}', '{"a": 1}'),
    (25, -1, "\N{SNOWMAN}", "\N{SNOWMAN}"),
    (1700, (9 << 16 | 2) + 4, Decimal("NaN"), "NaN"),
]


def test_values_in_binary_format_are_those_in_text() -> None:
    """Also NULL, unchanged, a changed key, and whatever stands last in the buffer."""
    columns = [(n == 0, f"c{n}", oid, typmod) for n, (oid, typmod, *_) in enumerate(BOTH_FORMATS)]
    told = []
    for chosen in (
        [Binary(binary(oid, value)) for oid, _, value, _ in BOTH_FORMATS],
        [text for *_, text in BOTH_FORMATS],
    ):
        nothing = [None] * (len(chosen) - 1)
        changes = decode(
            relation(columns=columns),
            encoder.insert(OID, chosen),
            encoder.insert(OID, [chosen[0], *nothing]),
            encoder.update(OID, [*chosen[:5], UNCHANGED, *chosen[6:]]),
            encoder.update(OID, chosen, key=[chosen[0], *nothing]),
            encoder.delete(OID, key=[chosen[0], *nothing]),
            encoder.insert(OID, chosen),
        )
        told.append((values(changes), changes.unrepresentable, changes.unchanged["c5"].tolist()))
    assert told[0] == told[1]


def test_binary_values_of_other_types_are_not_read() -> None:
    columns = [(True, "id", 2950, -1)]
    with pytest.raises(BinaryValue, match=r"public\.t\.id"):
        decode(relation(columns=columns), encoder.insert(OID, [Binary(b"0123456789abcdef")]))


def test_relation_message_becomes_a_relation() -> None:
    columns = [(True, "id", 20, -1), (False, "price", 1700, (9 << 16 | 2) + 4)]
    changes = decode(relation("i", columns), encoder.insert(OID, ["1", "2.50"]))
    described = changes.relation
    assert described.oid == OID
    assert described.table == TableName("public", "t")
    assert described.identity is ReplicaIdentity.INDEX
    assert described.key == ("id",)
    assert [column.pg_type for column in described.columns] == ["bigint", "numeric(9,2)"]
    assert [str(column.arrow_type) for column in described.columns] == ["int64", "decimal128(9, 2)"]
    assert [column.attnum for column in described.columns] == [0, 0]


def test_an_empty_namespace_is_pg_catalog() -> None:
    message = encoder.relation(OID, "", "t", "d", COLUMNS)
    assert decode(message, encoder.insert(OID, ["1", None, ""])).relation.table.schema == (
        "pg_catalog"
    )


def test_null_empty_and_unchanged_are_three_things() -> None:
    changes = decode(
        relation(), encoder.insert(OID, ["1", None, ""]), encoder.update(OID, ["1", UNCHANGED, "x"])
    )
    assert values(changes) == [("I", 1, None, ""), ("U", 1, None, "x")]
    assert {name: mask.tolist() for name, mask in changes.unchanged.items()} == {"a": [False, True]}


def test_a_key_change_is_delete_and_update() -> None:
    changes = decode(
        relation(),
        encoder.update(OID, ["1", "x", "y"]),
        encoder.update(OID, ["2", "x", UNCHANGED], key=["1", None, None]),
        encoder.delete(OID, key=["2", None, None]),
    )
    assert values(changes) == [
        ("U", 1, "x", "y"),
        ("D", 1, None, None),
        ("U", 2, "x", None),
        ("D", 2, None, None),
    ]
    assert changes.moved_from.tolist() == [-1, -1, 1, -1]
    assert changes.unchanged["b"].tolist() == [False, False, True, False]


def test_an_old_key_equal_to_the_new_is_a_plain_update() -> None:
    changes = decode(relation(), encoder.update(OID, ["1", "x", "y"], key=["1", None, None]))
    assert values(changes) == [("U", 1, "x", "y")]
    assert changes.moved_from.tolist() == [-1]


def test_full_identity_with_primary_key_fills_unchanged_values() -> None:
    changes = decode(
        relation("f", ALL_KEY),
        encoder.update(OID, ["1", UNCHANGED, "y"], old=["1", "big", "x"]),
        encoder.update(OID, ["2", UNCHANGED, "z"], old=["1", "big", "y"]),
        encoder.delete(OID, old=["2", "big", "z"]),
        key=("id",),
    )
    assert changes.relation.key == ("id",)
    assert values(changes) == [
        ("U", 1, "big", "y"),
        ("D", 1, "big", "y"),
        ("U", 2, "big", "z"),
        ("D", 2, "big", "z"),
    ]
    assert changes.moved_from.tolist() == [-1, -1, 1, -1]
    assert changes.unchanged == {}


def test_full_identity_of_a_root_over_a_leaf_that_sends_only_its_key() -> None:
    changes = decode(
        relation("f", ALL_KEY),
        encoder.update(OID, ["2", UNCHANGED, None], old=["1", None, None]),
        key=("id",),
    )
    assert values(changes) == [("D", 1, None, None), ("U", 2, None, None)]
    assert changes.moved_from.tolist() == [-1, 0]
    assert {name: mask.tolist() for name, mask in changes.unchanged.items()} == {"a": [False, True]}


@pytest.mark.parametrize("key", [None, (), ("renamed",)])
def test_full_identity_without_key_is_a_multiset(key: tuple[str, ...] | None) -> None:
    changes = decode(
        relation("f", ALL_KEY),
        encoder.insert(OID, ["1", "x", None]),
        encoder.update(OID, ["1", UNCHANGED, "z"], old=["1", "x", None]),
        encoder.update(OID, ["1", "x", "z"], old=["1", "x", "z"]),
        encoder.delete(OID, old=["1", "x", "z"]),
        key=key,
    )
    assert changes.relation.key == ()
    assert values(changes) == [
        ("I", 1, "x", None),
        ("D", 1, "x", None),
        ("I", 1, "x", "z"),
        ("D", 1, "x", "z"),
        ("I", 1, "x", "z"),
        ("D", 1, "x", "z"),
    ]
    assert changes.moved_from.tolist() == [-1, -1, 1, -1, 3, -1]


def test_a_whole_old_row_under_a_key_identity_leaves_only_the_key() -> None:
    changes = decode(
        relation("d"),
        encoder.update(OID, ["2", UNCHANGED, "y"], old=["1", "big", "x"]),
        encoder.delete(OID, old=["2", "big", "y"]),
    )
    assert values(changes) == [("D", 1, None, None), ("U", 2, "big", "y"), ("D", 2, None, None)]


def test_an_unchanged_key_is_copied_from_the_old_key() -> None:
    columns = [(True, "id", 25, -1), (True, "more", 25, -1), (False, "b", 25, -1)]
    changes = decode(
        relation("d", columns),
        encoder.update(OID, [UNCHANGED, "new", "x"], key=["long", "old", None]),
        encoder.update(OID, [UNCHANGED, "new", "y"], key=["long", "new", None]),
    )
    assert values(changes) == [
        ("D", "long", "old", None),
        ("U", "long", "new", "x"),
        ("U", "long", "new", "y"),
    ]


@pytest.mark.parametrize("before", [[], [encoder.delete(OID, key=["1", None])]])
def test_an_unchanged_key_without_old_key_is_refused_with_the_cure(before: list[bytes]) -> None:
    told = refused(
        *transaction(
            relation("d", [(True, "id", 25, -1), (False, "b", 25, -1)]),
            *before,
            encoder.update(OID, [UNCHANGED, "secret"]),
        )
    )
    assert "public.t" in told
    assert "'id'" in told
    assert "0/64" in told
    assert "REPLICA IDENTITY FULL" in told
    assert "secret" not in told


def test_truncate_of_several_tables_keeps_its_place() -> None:
    batch = decoder().decode(
        *encoder.stream(
            transaction(
                relation(),
                relation(oid=OID + 1, name="u"),
                encoder.insert(OID, ["1", "x", "y"]),
                encoder.truncate([OID, OID + 1], options=3),
                encoder.insert(OID, ["2", "x", "y"]),
                encoder.insert(OID + 1, ["3", "x", "y"]),
            )
        )
    )
    first, second = batch.tables
    assert values(first) == [("I", 1, "x", "y"), ("T", None, None, None), ("I", 2, "x", "y")]
    assert values(second) == [("T", None, None, None), ("I", 3, "x", "y")]


def test_relation_messages_are_remembered_and_only_a_change_makes_a_version() -> None:
    wider = [*COLUMNS, (False, "c", 16, -1)]
    reader = decoder()
    reader.decode(*encoder.stream(transaction(relation())))
    batch = reader.decode(
        *encoder.stream(
            transaction(
                encoder.insert(OID, ["1", "x", "y"]),
                relation(),
                encoder.insert(OID, ["2", "x", "y"]),
                relation(columns=wider),
                encoder.insert(OID, ["3", "x", "y", "t"]),
                relation(),
                encoder.insert(OID, ["4", "x", "y"]),
            )
        )
    )
    assert [values(changes) for changes in batch.tables] == [
        [("I", 1, "x", "y"), ("I", 2, "x", "y")],
        [("I", 3, "x", "y", True)],
        [("I", 4, "x", "y")],
    ]


def test_types_are_asked_for_once_a_shape() -> None:
    asked: list[set[int]] = []

    def types(oids: object) -> TypeMap:
        asked.append(set(oids))  # type: ignore[call-overload]
        return TYPES.with_user_types([(90001, "mood", "e", "E", 0, -1, 0, ",")])

    reader = PgoutputDecoder(types, lambda _: None)
    columns = [(True, "id", 23, -1), (False, "m", 90001, -1)]
    for lsn in (100, 200):
        body = [relation(columns=columns), encoder.insert(OID, ["1", "sad"])]
        (changes,) = reader.decode(*encoder.stream(transaction(*body, lsn=lsn))).tables
        assert changes.relation.columns[1].pg_type == "mood"
        assert values(changes) == [("I", 1, "sad")]
    assert asked == [{23, 90001}]


def test_the_catalog_is_asked_for_a_key_after_each_relation_message() -> None:
    asked: list[int] = []

    def key_for(oid: int) -> tuple[str, ...]:
        asked.append(oid)
        return ("id",) if len(asked) > 1 else ()

    reader = PgoutputDecoder(lambda _: TYPES, key_for)
    row = encoder.insert(OID, ["1", "x", "y"])
    keys = []
    for body in ([relation("f", ALL_KEY), row], [row], [relation("f", ALL_KEY), row], [row]):
        (changes,) = reader.decode(*encoder.stream(transaction(*body))).tables
        keys.append(changes.relation.key)
    assert keys == [(), (), ("id",), ("id",)]
    assert asked == [OID, OID]


def test_a_value_that_cannot_be_decoded_is_reported_with_its_transaction() -> None:
    bad = encoder.insert(OID, ["hidden", "x", "y"])
    told = refused(*transaction(relation(), GOOD), *transaction(GOOD, bad, lsn=0x1000000A0))
    assert "'public.t.id' of type integer" in told
    assert "from 0/64 to 1/A0" in told


def two_transactions() -> tuple[bytes, np.ndarray]:
    return encoder.stream(
        [
            *transaction(relation(), encoder.insert(OID, ["1", "x", "y"])),
            *transaction(
                relation(oid=OID + 1, name="u"), encoder.insert(OID + 1, ["2", "x", "y"]), lsn=200
            ),
        ]
    )


def test_after_drops_transactions_that_commit_before() -> None:
    def read(after: int) -> DecodedBatch:
        return decoder().decode(*two_transactions(), after=Lsn(after))

    found = [len(read(after).tables) for after in (100, 101, 120, 200, 201, 220)]
    assert found == [2, 1, 1, 1, 0, 0]
    dropped = read(220)
    assert (dropped.end_lsn, dropped.last_commit_lsn, dropped.transactions) == (220, None, 0)
    kept = read(120)
    assert (kept.end_lsn, kept.last_commit_lsn, kept.transactions) == (220, 200, 1)
    assert kept.last_committed_at == 946_684_800_000_005
    assert kept.tables[0].commit_lsn.tolist() == [200]


def test_relation_messages_of_dropped_transactions_are_kept() -> None:
    reader = decoder()
    reader.decode(*two_transactions(), after=Lsn(220))
    body = encoder.insert(OID, ["3", "x", "y"])
    batch = reader.decode(*encoder.stream(transaction(body, lsn=300)))
    assert values(batch.tables[0]) == [("I", 3, "x", "y")]


def test_other_tables_are_not_even_decoded() -> None:
    stream = encoder.stream(
        transaction(
            relation(),
            encoder.insert(OID, ["not a number", "x", "y"]),
            encoder.truncate([OID, 99]),
        )
    )
    batch = decoder().decode(*stream, tables=[OID + 1])
    assert batch.tables == []
    assert batch.transactions == 1


def test_messages_without_rows_are_counted() -> None:
    batch = decoder().decode(
        *encoder.stream(
            [
                encoder.logical_message(1, "outside", b"of any transaction"),
                *transaction(
                    encoder.origin(1, "elsewhere"),
                    encoder.type_message(90001, "public", "mood"),
                    encoder.type_message(90002, "public", "weather"),
                    b"~",
                ),
                b"~",
            ]
        )
    )
    assert batch.skipped == {"message": 1, "origin": 1, "type": 2, "unknown": 2}
    assert batch.tables == []


def test_an_empty_batch_is_one() -> None:
    batch = decoder().decode(b"", np.zeros(1, dtype=np.int64))
    assert (batch.tables, batch.end_lsn, batch.transactions) == ([], None, 0)


def test_messages_may_lie_apart_in_any_kind_of_buffer() -> None:
    messages = transaction(relation(), encoder.insert(OID, ["1", "x", "y"]))
    buffer, offsets = encoder.stream(messages)
    for given in (buffer, memoryview(buffer), np.frombuffer(buffer, dtype=np.uint8)):
        assert values(decoder().decode(given, offsets).tables[0]) == [("I", 1, "x", "y")]


def test_unrepresentable_values_are_null_and_listed() -> None:
    changes = decode(
        relation(columns=[(True, "id", 23, -1), (False, "d", 1082, -1)]),
        encoder.insert(OID, ["1", "2020-01-01"]),
        encoder.insert(OID, ["2", "infinity"]),
    )
    assert changes.rows.column("d").null_count == 1
    assert changes.unrepresentable == (Unrepresentable("d", 1, "infinity"),)


def test_a_table_without_columns_has_rows() -> None:
    changes = decode(relation("f", []), encoder.insert(OID, []), encoder.insert(OID, []))
    assert (changes.rows.num_rows, changes.rows.num_columns) == (2, 0)


HEAD = [encoder.begin(100), relation()]
TAIL = [encoder.commit(100, 120)]
GOOD = encoder.insert(OID, ["1", "x", "y"])
PREPARED = (b"b", b"P", b"K", b"r", b"p")
OLD = encoder.update(OID, ["1", "x", "y"], key=["1", None, None])


@pytest.mark.parametrize(
    ("messages", "told"),
    [
        ([GOOD, *TAIL], "do not alternate"),
        ([*TAIL, *HEAD], "do not alternate"),
        ([*HEAD, *TAIL, *TAIL], "do not alternate"),
        ([encoder.begin(100), encoder.begin(100), *TAIL, *TAIL], "do not alternate"),
        ([encoder.begin(100), encoder.commit(101, 120)], "does not belong to the open transaction"),
        ([encoder.begin(100) + b"x", *TAIL], "wrong length"),
        ([encoder.begin(100), encoder.commit(100, 120)[:-1]], "wrong length"),
        ([encoder.begin(100, 2**63 - 1), *TAIL], "commit time"),
        ([*HEAD, *TAIL, GOOD], "outside of any transaction"),
        ([GOOD, *HEAD, *TAIL], "outside of any transaction"),
        ([encoder.begin(100), GOOD, *TAIL], "precedes its Relation message"),
        ([encoder.begin(100), GOOD, relation(), *TAIL], "precedes its Relation message"),
        ([*HEAD, GOOD[:5], *TAIL], "0/64 is cut off"),
        ([*HEAD, GOOD[:-1], *TAIL], "INSERT message of public.t"),
        ([*HEAD, GOOD[:-4], *TAIL], "is cut off"),
        ([*HEAD, GOOD[:8], *TAIL], "is cut off"),
        ([*HEAD, GOOD + b"x", *TAIL], "longer than its tuple"),
        ([*HEAD, GOOD.replace(b"N", b"K"), *TAIL], "malformed tuple"),
        ([*HEAD, encoder.update(OID, ["1"] * 3).replace(b"N", b"X"), *TAIL], "malformed tuple"),
        ([*HEAD, GOOD.replace(b"t", b"b", 1), *TAIL], "has not 4 bytes"),
        ([*HEAD, GOOD, GOOD.replace(b"t", b"b", 1), *TAIL], "in text and in binary format"),
        ([*HEAD, GOOD.replace(b"t", b"z", 1), *TAIL], "malformed value"),
        ([*HEAD, GOOD.replace(b"\0\0\0\1x", b"\xff\0\0\1x"), *TAIL], "is cut off"),
        ([*HEAD, encoder.insert(OID, ["1", "x"]), *TAIL], "number of columns"),
        ([*HEAD, encoder.insert(OID, ["x", "x", "y"]), *TAIL], "'public.t.id' of type integer"),
        ([*HEAD, encoder.insert(OID, ["1", b"\xff", "y"]), *TAIL], "not UTF-8"),
        ([*HEAD, OLD[: OLD.index(b"N")], b"N", *TAIL], "malformed tuple"),
        ([*HEAD, encoder.update(OID, ["1", "x", "y"], key=[None] * 3), *TAIL], "old key without"),
        (
            [*HEAD, encoder.update(OID, ["1", "x", "y"], old=["1", UNCHANGED, "y"]), *TAIL],
            "old row without a value",
        ),
        ([*HEAD, encoder.delete(OID, key=["1", None, None]) + b"x", *TAIL], "longer than"),
        ([*HEAD, encoder.delete(OID, key=["1"]).replace(b"K", b"N"), *TAIL], "malformed tuple"),
        (
            [*HEAD, relation("n", NO_KEY), encoder.update(OID, ["1", "x", "y"]), *TAIL],
            "has no old row",
        ),
        (
            [*HEAD, relation("f", ALL_KEY), encoder.delete(OID, key=["1", "x", "y"]), *TAIL],
            "has no old row",
        ),
        ([*HEAD, encoder.truncate([OID])[:-1], *TAIL], "Truncate message has a wrong length"),
        ([*HEAD, b"T\0\0", *TAIL], "Truncate message is cut off"),
        ([*HEAD, b"T\xff\xff\xff\xff\0", *TAIL], "wrong length"),
        ([*HEAD, relation()[:-1], *TAIL], "is cut off"),
        ([*HEAD, relation()[:8], *TAIL], "is cut off"),
        ([*HEAD, relation() + b"x", *TAIL], "malformed"),
        ([*HEAD, relation("x"), *TAIL], "malformed"),
        ([*HEAD, relation(columns=COLUMNS[:1] * 2), *TAIL], "malformed"),
        ([*HEAD, relation(name="tt").replace(b"tt", b"t\xff"), *TAIL], "not UTF-8"),
        ([*HEAD, b"", *TAIL], "offsets"),
        *(([*HEAD, *TAIL, kind + bytes(30)], "prepared transaction") for kind in PREPARED),
    ],
)
def test_what_breaks_the_protocol_is_refused(messages: list[bytes], told: str) -> None:
    assert told in refused(*messages)


def test_a_commit_of_another_transaction_than_the_open_one_is_refused() -> None:
    reader = decoder()
    reader.decode(*encoder.stream([*HEAD, GOOD]))
    for messages in ([encoder.commit(101, 120)], [encoder.begin(200), *TAIL]):
        with pytest.raises(DecodeError):
            reader.decode(*encoder.stream(messages))


@pytest.mark.parametrize(
    "offsets", [[], [0, 5, 3], [-1, 4], [0, 9], [0, 10**6], [2**40, 2**41], [0, 0], [-3, -1]]
)
def test_offsets_outside_of_the_buffer_are_refused(offsets: list[int]) -> None:
    with pytest.raises(DecodeError):
        decoder().decode(b"12345678", np.array(offsets, dtype=np.int64))


def test_no_error_contains_a_value() -> None:
    for bad in (["hidden", "x", "y"], ["1", b"hidden\xff", "y"]):
        with pytest.raises(DecodeError) as caught:
            decoder().decode(*encoder.stream([*HEAD, encoder.insert(OID, bad), *TAIL]))
        error: BaseException | None = caught.value
        while error is not None:
            assert "hidden" not in str(error)
            error = error.__cause__ or error.__context__


def test_many_transactions_over_20_tables_interleaved() -> None:
    messages = []
    for number in range(20_000):
        lsn = 100 * number + 50
        oid = OID + number % 20
        messages.append(encoder.begin(lsn, number))
        if number < 20:
            messages.append(relation(oid=oid, name=f"t{oid}"))
        messages.append(encoder.insert(oid, [str(number), "x", None]))
        messages.append(encoder.commit(lsn, lsn + 20, number))
    buffer, offsets = encoder.stream(messages)
    batch = decoder().decode(buffer, offsets)
    assert batch.transactions == 20_000
    assert [changes.relation.oid for changes in batch.tables] == list(range(OID, OID + 20))
    for place, changes in enumerate(batch.tables):
        ids = list(range(place, 20_000, 20))
        assert changes.rows.column("id").to_pylist() == ids
        assert changes.commit_lsn.tolist() == [100 * number + 50 for number in ids]
        assert changes.committed_at.tolist() == [946_684_800_000_000 + number for number in ids]
