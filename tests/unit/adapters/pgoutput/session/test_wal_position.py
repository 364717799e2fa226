"""A connection that answers as PostgreSQL 19 does, which no package has yet."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from adapters.pgoutput.session.wal_position import require_logical_wal
from cdc_core.values.errors import OperatorNeeded

if TYPE_CHECKING:
    from adapters.pgoutput.session.connection import Connection


def server(version: int, level: str, effective: str | None, *, standby: bool) -> Connection:
    answer: Any = SimpleNamespace(fetchone=lambda: (level, effective, standby))
    info = SimpleNamespace(server_version=version)
    return cast("Connection", SimpleNamespace(info=info, execute=lambda _query: answer))


@pytest.mark.parametrize(
    ("version", "level", "effective", "standby"),
    [
        (180006, "logical", None, False),
        (190000, "logical", "logical", False),
        (190000, "replica", "replica", False),
        (190001, "replica", "logical", False),
        (190000, "replica", "logical", True),
    ],
)
def test_a_server_that_decodes(
    version: int, level: str, effective: str | None, standby: bool
) -> None:
    require_logical_wal(server(version, level, effective, standby=standby))


@pytest.mark.parametrize(
    ("version", "level", "effective", "standby"),
    [
        (180006, "replica", None, False),
        (190000, "minimal", "minimal", False),
        (190000, "replica", "replica", True),
    ],
)
def test_a_server_that_does_not(
    version: int, level: str, effective: str | None, standby: bool
) -> None:
    with pytest.raises(OperatorNeeded, match=f"wal_level is {level}"):
        require_logical_wal(server(version, level, effective, standby=standby))
