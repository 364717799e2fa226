"""The wheel's scripts for real: parameters only, beside a simulated Delta Live Tables."""

from __future__ import annotations

import os
import subprocess
import sys

import psycopg

from entrypoints.demo import _compare
from entrypoints.simulate import TABLES
from tests.support.delta_live_tables import HOOK, STUB

PASSWORD = "Zebra-Crossing-77"

#: A workspace whose scope holds the connection string; nothing else is set but by parameters.
WORKSPACE = """
import types, sys
class Secrets:
    def get(self, scope, key):
        return {dsn!r} if (scope, key) == ("team", "shop") else 1 / 0
import databricks.sdk
databricks.sdk.WorkspaceClient = lambda: types.SimpleNamespace(
    dbutils=types.SimpleNamespace(secrets=Secrets()))
"""


def _task(shop, dsn, script, *parameters, code=0):
    (shop.folder / "stubs" / "dlt").mkdir(parents=True, exist_ok=True)
    (shop.folder / "stubs" / "dlt" / "__init__.py").write_text(STUB)
    given = [
        *parameters,
        "--dlt-scope", "team", "--secret-key", "shop", "--destination", "duckdb",
        "--duckdb-credentials", str(shop.lake), "--slot-name", shop.database,
    ]  # fmt: skip
    program = (
        WORKSPACE.replace("{dsn!r}", repr(dsn))
        + HOOK
        + f"sys.path.insert(0, {str(shop.folder / 'stubs')!r}); sys.meta_path.insert(0, hook)\n"
        + f"sys.argv = {[script, *given]!r}\n"
        + f"from entrypoints.wheel import {script}\n{script}()"
    )
    environ = {k: v for k, v in os.environ.items() if "__" not in k}
    environ |= {"DATABRICKS_RUNTIME_VERSION": "client.4", "DLT_PROJECT_DIR": str(shop.folder)}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=shop.folder,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert PASSWORD not in done.stdout + done.stderr
    return done.stderr


def test_full_load_then_cdc_then_a_failing_task(shop):
    shop.run("simulate", "20", "0", "0")
    shop.sql(f"ALTER ROLE postgres PASSWORD '{PASSWORD}'")
    dsn = shop.server.database_dsn(shop.database, password=PASSWORD)
    try:
        told = _task(shop, dsn, "full_load", "--log-level", "DEBUG")
        assert "site-packages/dlt/__init__.py" in told
        assert "snapshot done: 3 tables, 20 rows" in told
        with psycopg.connect(dsn) as source:
            source.execute(b"DELETE FROM demo_orders WHERE id % 2 = 0")
        assert "cdc done" in _task(shop, dsn, "pipeline_main", "--mode", "cdc")
        with psycopg.connect(dsn) as source:
            assert all(_compare(source, shop.lake, table).differing == 0 for table in TABLES)
            source.execute(b"SELECT pg_drop_replication_slot(%s)", (shop.database,))
        assert "does not exist" in _task(shop, dsn, "cdc_load", code=3)
    finally:
        with psycopg.connect(dsn, autocommit=True) as source:
            source.execute(f"ALTER ROLE postgres PASSWORD '{shop.server.password}'".encode())
