"""Every type of the contract, every odd value, cell by cell, by snapshot and by every change."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.support.lakes import lake_of
from tests.support.pipeline import Service
from tests.support.type_evidence import WAYS, Evidence, gather
from tests.support.type_matrix import CASES, TypeCase

if TYPE_CHECKING:
    from tests.support.postgres import Server


@pytest.fixture(scope="module", params=["duckdb", "delta", "databricks"])
def evidence(
    request: pytest.FixtureRequest, postgres: Server, tmp_path_factory: pytest.TempPathFactory
) -> Evidence:
    lake = lake_of(request.param, tmp_path_factory.mktemp("types"), request)
    with postgres.database() as dsn, psycopg.connect(dsn, autocommit=True) as connection:
        return gather(connection, Service(dsn, lake).run, lake)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.declaration)
def test_every_value_is_the_sources(evidence: Evidence, case: TypeCase) -> None:
    if case not in evidence.cases:
        pytest.skip("this server does not know the type")
    found = list(evidence.differences(case))
    assert not found, "\n".join(found[:10])


@pytest.mark.parametrize("way", WAYS)
def test_what_cannot_be_held_is_null_and_recorded(evidence: Evidence, way: str) -> None:
    expected, recorded = evidence.odd[way]
    assert len(expected) > 20
    missing = expected.keys() - recorded.keys()
    assert not missing, sorted(missing)[:5]
    if way == "snapshot":
        assert recorded.keys() == expected.keys()


def test_long_values_were_out_of_line(evidence: Evidence) -> None:
    long = [case for case in evidence.cases if case.long]
    assert len(long) > 15
    assert all(evidence.toasted[name] >= 2 * len(long) for name in ("types", "domains", "heap"))
