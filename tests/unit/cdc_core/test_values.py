"""LSNs, names, checkpoints and the rules of history: values and their text."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
import pytest

from cdc_core.values.checkpoint import (
    Checkpoint,
    ColumnState,
    SourceIdentity,
    TableState,
    TableStatus,
)
from cdc_core.values.errors import (
    CdcError,
    DestinationForbidden,
    DestinationRefused,
    DestinationUnavailable,
    NeverLoaded,
    OperatorNeeded,
    SettingsError,
    SourceUnavailable,
    TablesLocked,
    TablesNeedSnapshot,
    WriterBusy,
)
from cdc_core.values.fingerprint import ITSELF, Attributes, Fingerprint, Label
from cdc_core.values.lsn import Lsn
from cdc_core.values.partition_bounds import Bound
from cdc_core.values.relation import TableName

SOURCE = SourceIdentity("7", "db", "slot")


@pytest.mark.parametrize("text", ["0/0", "16/B374D848", "FFFFFFFF/FFFFFFFF", "0/16B3748"])
def test_lsn_prints_as_it_reads(text: str) -> None:
    assert str(Lsn.parse(text)) == text


@pytest.mark.parametrize("text", ["", "16", "/", "1/", "/1", "x/1", "1/123456789", "1/2/3"])
def test_what_is_no_lsn_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        Lsn.parse(text)


@pytest.mark.parametrize("value", [-1, 1 << 64])
def test_lsn_has_64_bits(value: int) -> None:
    with pytest.raises(ValueError, match="not an LSN"):
        Lsn(value)


def test_lsn_is_ordered_by_both_halves() -> None:
    assert Lsn.parse("1/0") > Lsn.parse("0/FFFFFFFF")


def test_checkpoint_survives_its_text() -> None:
    column = ColumnState(1, "id", "id", 20, -1, pa.int64())
    table = TableState(
        16385, TableName("public", "t"), "t", (column,), ("id",), Lsn(5),
        TableStatus.NEEDS_SNAPSHOT, "why", Fingerprint("1", "2", ((3, True, 7),)),
    )  # fmt: skip
    checkpoint = Checkpoint(SOURCE, Lsn(9), {16385: table}, 12)
    assert Checkpoint.from_state(checkpoint.to_state()) == checkpoint


def test_a_checkpoint_of_another_version_is_refused() -> None:
    state = Checkpoint(SOURCE, Lsn(9)).to_state() | {"version": 99}
    with pytest.raises(ValueError, match="version 99"):
        Checkpoint.from_state(state)


def test_a_checkpoint_never_moves_back() -> None:
    assert Checkpoint(SOURCE, Lsn(9)).advanced(Lsn(5)).lsn == 9


@pytest.mark.parametrize(
    ("globs", "found"),
    [
        (["orders"], True),
        (["public.*"], True),
        (["public.order?"], True),
        (["sales.*"], False),
        (["Orders"], False),
        ([], False),
    ],
)
def test_globs_match_the_qualified_or_the_bare_name(globs: list[str], found: bool) -> None:
    assert TableName("public", "orders").matches(globs) is found


def test_errors_carry_exit_code_and_cure_on_one_line() -> None:
    error = OperatorNeeded("slot\nis lost", "run:\n  pgbronze snapshot")
    assert str(error) == "slot is lost; run: pgbronze snapshot"
    assert (CdcError("x").exit_code, SettingsError("x").exit_code, error.exit_code) == (1, 2, 3)


def test_tables_that_need_a_snapshot_are_named_with_the_command() -> None:
    error = TablesNeedSnapshot({"public.b": "why", "public.a": "because"})
    assert "public.a (because), public.b (why)" in str(error)
    assert "pgbronze snapshot --tables public.a public.b" in error.cure


RED, BLUE = Label(20, "red", 9, "a"), Label(22, "blue", 9, "a")
GREEN = Label(21, "green", 9, "b")
BEFORE = Fingerprint(
    "1",
    "1",
    ((10, False, 5),),
    labels=(RED, BLUE),
    attributes=(Attributes(30, "x"),),
    persistence="logged",
)


@pytest.mark.parametrize(
    ("now", "reason"),
    [
        (BEFORE, ""),
        (replace(BEFORE, storage="2"), ""),
        (replace(BEFORE, storage="2", persistence="7"), "UNLOGGED"),
        (replace(BEFORE, storage="2", persistence=""), "UNLOGGED"),
        (replace(BEFORE, persistence="7"), ""),
        (Fingerprint("1", "2", ((10, False, 5),)), ""),
        (Fingerprint("2", "2", ((10, False, 5),)), "rewritten"),
        (Fingerprint("1", "1", ((10, False, 5), (11, False, 11), (12, False, 0))), ""),
        (Fingerprint("1", "1", ((10, False, 5), (11, False, 6))), "new partition was truncated"),
        (Fingerprint("1", "1", ((10, False, 5), (11, True, 6))), "attached"),
        (Fingerprint("1", "1", ()), "detached or dropped"),
        (Fingerprint("1", "1", ((10, False, 8),)), "truncated or rewritten"),
        (replace(BEFORE, labels=(RED, GREEN, BLUE)), ""),
        (replace(BEFORE, labels=(RED, GREEN, BLUE), within=(9,)), "labels were added"),
        (replace(BEFORE, labels=(RED, GREEN._replace(original=True)), within=(9,)), ""),
        (replace(BEFORE, labels=()), ""),
        (
            replace(BEFORE, labels=(RED._replace(text="blue"), BLUE._replace(text="red"))),
            "label of an enum was renamed",
        ),
        # Renamed, and back.
        (replace(BEFORE, labels=(RED, BLUE._replace(mark="c"))), "label of an enum was renamed"),
        (
            replace(BEFORE, attributes=(Attributes(30, "y"), Attributes(31, "x"))),
            "attributes of a composite type",
        ),
        (replace(BEFORE, attributes=(Attributes(31, "x"),)), "new to it may have been changed"),
        (replace(BEFORE, attributes=(Attributes(31, "x", original=True),)), ""),
    ],
)
def test_changes_without_row_events_cause_a_read(now: Fingerprint, reason: str) -> None:
    assert reason in now.reread_reason(BEFORE)
    assert bool(now.reread_reason(BEFORE)) is bool(reason)


def test_marks_that_an_older_checkpoint_lacks_are_not_known() -> None:
    old = Fingerprint.from_text(
        '{"storage":"1","definition":"1","partitions":[[10,false,5]],"labels":[[20,"red"]]}'
    )
    now = Fingerprint("1", "1", ((10, False, 5),), paths=((10, "7/8"),), unsent=(2,), place="9")
    assert now.reread_reason(old) == ""
    assert "label" in replace(now, labels=(RED,)).reread_reason(old)
    assert "composite" in replace(now, attributes=(Attributes(30, "x"),)).reread_reason(old)
    assert "UNLOGGED" in replace(now, storage="2").reread_reason(old)
    assert Fingerprint.from_text(now.to_text()) == now
    assert Fingerprint.from_text(BEFORE.to_text()) == BEFORE


@pytest.mark.parametrize("settled", [(), (11,), (10, 11, 12, ITSELF)])
def test_what_is_known_to_have_its_rows_is_not_read_again(settled: tuple[int, ...]) -> None:
    before = Fingerprint("1", "1", ((10, False, 5), (11, False, 11)))
    now = Fingerprint("2", "2", ((10, False, 6), (11, False, 12), (12, True, 12)))
    assert now.moved(before) == {10, 11, ITSELF}
    assert now.attached(before) == {12}
    assert bool(now.reread_reason(before, settled)) is (len(settled) < 4)
    # One that was truncated or rewritten after it was attached, or before.
    now = replace(now, partitions=(*now.partitions[:2], (12, True, 13)))
    assert now.attached(before) == set()
    assert now.reread_reason(before, settled)


def test_partitions_that_are_gone_are_kept_until_their_rows_are_removed() -> None:
    bounds = tuple((oid, (Bound(1, None, str(oid), str(oid + 1)),)) for oid in (10, 11))
    before = Fingerprint(
        "", "1", ((10, False, 10), (11, False, 11)), paths=((10, "a"), (11, "b")), bounds=bounds
    )
    now = before.without({10})
    assert now == Fingerprint("", "1", ((11, False, 11),), paths=((11, "b"),), bounds=bounds[1:])
    assert now.gone(before) == {10}
    assert "detached" in now.reread_reason(before)
    assert now.reread_reason(before, {10}) == ""
    kept = now.keeping({10}, before)
    assert now.gone(kept) == {10}
    assert kept.without({10}) == now
    assert Fingerprint.from_text(kept.to_text()) == kept


def test_of_several_new_labels_each_may_have_had_the_name_of_another() -> None:
    pink, grey = Label(23, "pink", 9, "c"), Label(24, "grey", 9, "d")
    one = replace(BEFORE, labels=(RED, BLUE, pink)).following(BEFORE, lambda: Lsn(7))
    assert [label.doubted_until for label in one.labels] == [0, 0, 0]
    two = replace(BEFORE, labels=(RED, BLUE, pink, grey)).following(BEFORE, lambda: Lsn(7))
    assert [label.doubted_until for label in two.labels] == [0, 0, 7, 7]
    later = replace(BEFORE, labels=(RED, BLUE, pink, grey)).following(two, lambda: Lsn(9))
    assert later == two


def test_a_service_can_decide_whether_to_retry() -> None:
    later = [SourceUnavailable, DestinationUnavailable, TablesLocked, WriterBusy]
    never = [
        SettingsError,
        OperatorNeeded,
        NeverLoaded,
        TablesNeedSnapshot,
        DestinationForbidden,
        DestinationRefused,
    ]
    assert all(error.retryable for error in later)
    assert not any(error.retryable for error in never)
