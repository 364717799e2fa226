"""A full load leaves the server's lock table, and every migration, to the application."""

from __future__ import annotations

import pytest

from tests.support import lock_load
from tests.support.postgres import server_kind


@pytest.mark.skipif(server_kind() == "a container", reason="it starts a server of its own")
def test_a_full_load_beside_an_application_and_migrations() -> None:
    found = lock_load.measure(tables=120, indexes=17, partitions=60, large_rows=60_000)
    assert found.errors == []
    assert found.transactions > 10
    assert found.migrations > 10
    assert found.most_locks <= 200
    assert found.longest_wait <= 1.0
    assert found.alter <= 5.0
