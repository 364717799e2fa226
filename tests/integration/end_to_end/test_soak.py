"""A short soak: two rounds or more on each destination, by a seed that is always the same."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from adapters.pgoutput.embedded import EmbeddedPostgres
from tests.soak.rounds import SERVER, Soak
from tests.support.postgres import BIN

if TYPE_CHECKING:
    from pathlib import Path

SECONDS = 25.0


@pytest.mark.parametrize("destination", ["duckdb", "delta"])
def test_rounds_of_a_soak_end_equal(destination: str, tmp_path: Path) -> None:
    begun = time.monotonic()
    with EmbeddedPostgres(bin_dir=os.environ.get(BIN), settings=SERVER) as server:
        soak = Soak(server, destination, tmp_path, seed=20, steps=100)
        soak.prepare()
        while soak.rounds < 2 or time.monotonic() - begun < SECONDS:
            soak.round()
    assert soak.counts["bulk"]
    assert soak.counts["streaming"]
    assert soak.counts["committed"] > 100
