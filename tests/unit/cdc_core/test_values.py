"""LSNs, names, checkpoints and the rules of history: values and their text."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cdc_core.checkpoint import (
    Checkpoint,
    ColumnState,
    SourceIdentity,
    TableState,
    TableStatus,
)
from cdc_core.errors import CdcError, OperatorNeeded, SettingsError, TablesNeedSnapshot
from cdc_core.fingerprint import Fingerprint
from cdc_core.lsn import Lsn
from cdc_core.relation import TableName

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
    column = ColumnState(1, "id", "id", 20, -1, "int64")
    table = TableState(
        16385, TableName("public", "t"), "t", (column,), ("id",), Lsn(5),
        TableStatus.NEEDS_SNAPSHOT, "why", Fingerprint("1", "2", ((3, True, 7),)).to_text(),
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
    error = OperatorNeeded("slot\nis lost", "run:\n  wal2delta snapshot")
    assert str(error) == "slot is lost; run: wal2delta snapshot"
    assert (CdcError("x").exit_code, SettingsError("x").exit_code, error.exit_code) == (1, 2, 3)


def test_tables_that_need_a_snapshot_are_named_with_the_command() -> None:
    error = TablesNeedSnapshot({"public.b": "why", "public.a": "because"})
    assert "public.a (because), public.b (why)" in str(error)
    assert "wal2delta snapshot --tables public.a public.b" in error.cure


BEFORE = Fingerprint(
    "1", "1", ((10, False, 5),), labels=((20, "red"), (22, "blue")), attributes=((30, "x"),)
)


@pytest.mark.parametrize(
    ("now", "reason"),
    [
        (BEFORE, ""),
        (Fingerprint("2", "1", ((10, False, 5),)), ""),
        (Fingerprint("1", "2", ((10, False, 5),)), ""),
        (Fingerprint("2", "2", ((10, False, 5),)), "rewritten"),
        (Fingerprint("1", "1", ((10, False, 5), (11, False, 11), (12, False, 0))), ""),
        (Fingerprint("1", "1", ((10, False, 5), (11, False, 6))), "new partition was truncated"),
        (Fingerprint("1", "1", ((10, False, 5), (11, True, 6))), "attached"),
        (Fingerprint("1", "1", ()), "detached or dropped"),
        (Fingerprint("1", "1", ((10, False, 8),)), "truncated or rewritten"),
        (replace(BEFORE, labels=((20, "red"), (21, "green"), (22, "blue"))), ""),
        (replace(BEFORE, labels=()), ""),
        (replace(BEFORE, labels=((20, "blue"), (22, "red"))), "label of an enum was renamed"),
        (replace(BEFORE, attributes=((30, "y"), (31, "x"))), "attributes of a composite type"),
        (replace(BEFORE, attributes=((31, "x"),)), ""),
    ],
)
def test_what_leaves_no_row_events_asks_for_a_reading(now: Fingerprint, reason: str) -> None:
    assert reason in now.reread_reason(BEFORE)
    assert bool(now.reread_reason(BEFORE)) is bool(reason)


def test_marks_that_an_older_checkpoint_lacks_are_no_change() -> None:
    old = '{"storage":"1","definition":"1","partitions":[[10,false,5]]}'
    now = Fingerprint("1", "1", ((10, False, 5),), paths=((10, "7/8"),), attributes=((30, "x"),))
    now = replace(now, unsent=(2,), place="9")
    assert now.reread_reason(Fingerprint.from_text(old)) == ""
    assert Fingerprint.from_text(now.to_text()) == now
