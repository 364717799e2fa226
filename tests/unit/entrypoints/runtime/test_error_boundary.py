"""The traceback at DEBUG: code and harmless locals, never a row's value."""

from __future__ import annotations

import pytest

from cdc_core.values.errors import SourceUnavailable
from cdc_core.values.lsn import Lsn
from cdc_core.values.relation import ReplicaIdentity, TableName
from entrypoints.runtime import error_boundary

VALUE = "alice@example.com"
NUMBER = 123456789


def _work(monkeypatch_table: TableName) -> None:
    position, identity, rows, number = Lsn(0x1_00000A0B), ReplicaIdentity.FULL, [VALUE], NUMBER
    try:
        raise ValueError(f"duplicate key {rows} {number}")  # noqa: TRY301
    except ValueError as error:
        raise SourceUnavailable("PostgreSQL went away", "run again") from error
    finally:
        del position, identity


@pytest.fixture
def ours(monkeypatch):
    """Count this file among the project's own code."""
    monkeypatch.setattr(error_boundary, "OUR_PACKAGES", (__file__.rpartition("/")[0],))


def _traceback():
    try:
        _work(TableName("public", "orders"))
    except SourceUnavailable as error:
        return error_boundary.safe_traceback(error)
    raise AssertionError


@pytest.mark.usefixtures("ours")
def test_locals_of_harmless_types_show_and_values_do_not():
    told = _traceback()
    assert "TableName(schema='public', name='orders')" in told
    assert "rows = <list of 1>" in told
    assert "number = <int>" in told
    assert VALUE not in told
    assert str(NUMBER) not in told


def test_text_of_other_errors_is_omitted_and_causes_are_reported():
    told = _traceback()
    assert told.startswith("Traceback (most recent call last):\n")
    assert "\nValueError\nwhich led to:\nTraceback (most recent call last):\n" in told
    assert told.endswith("SourceUnavailable: PostgreSQL went away; run again")
    assert "position" not in told.replace("position, identity", "")


def test_code_lines_show():
    assert 'raise SourceUnavailable("PostgreSQL went away", "run again") from error' in _traceback()
