"""Some rounds of a soak on each destination, by a seed that is always the same."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from adapters.embedded_postgres import EmbeddedPostgres
from tests.soak.rounds import SERVER, Soak
from tests.support.lakes import lake_of
from tests.support.postgres import BIN

if TYPE_CHECKING:
    from pathlib import Path

ROUNDS = 3


@pytest.mark.parametrize("destination", ["duckdb", "delta", "databricks"])
def test_rounds_of_a_soak_end_equal(
    destination: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    lake = lake_of(destination, tmp_path, request)
    with EmbeddedPostgres(bin_dir=os.environ.get(BIN), settings=SERVER) as server:
        soak = Soak(server, lake, seed=20, history=destination != "databricks")
        soak.prepare()
        for _ in range(ROUNDS):
            soak.round()
    assert soak.counts["bulk"]
    assert soak.counts["committed"] > 50
