"""The real PgBouncer in front of a server, in any pool mode; one session of the server at most."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import psycopg

from adapters.embedded_postgres import _account, _free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Debian has it where only root's PATH finds it.
PROGRAM = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


def kind() -> str:
    """Which PgBouncer the tests use."""
    if PROGRAM is None:
        return "none, so tests of poolers are SKIPPED; run: apt-get install pgbouncer"
    told = subprocess.run([PROGRAM, "--version"], capture_output=True, text=True, check=True)
    return f"{told.stdout.splitlines()[0]} ({PROGRAM})"


@contextmanager
def pgbouncer(dsn: str, mode: str, **settings: str) -> Iterator[str]:
    """The DSN of `dsn`'s database through a pooler."""
    assert PROGRAM is not None
    server, port = urlsplit(dsn), _free_port()
    database = server.path[1:]
    values = {
        "listen_addr": "127.0.0.1",
        "listen_port": str(port),
        "auth_type": "plain",
        "pool_mode": mode,
        "default_pool_size": "1",
        "unix_socket_dir": "",
        **settings,
    }
    user, group = _account()
    # A temporary folder of tests may be closed to other accounts.
    with tempfile.TemporaryDirectory(prefix="pgbouncer-", dir="/tmp") as name:
        folder = Path(name)
        users = folder / "users.txt"
        users.write_text(f'"{server.username}" "{server.password}"\n')
        file = folder / "pgbouncer.ini"
        file.write_text(
            f"[databases]\n{database} = host={server.hostname} port={server.port}"
            f" dbname={database}\n[pgbouncer]\nauth_file = {users}\n"
            + "".join(f"{key} = {value}\n" for key, value in values.items())
        )
        if user is not None:
            for path in (folder, users, file):
                shutil.chown(path, user, group)
        process = subprocess.Popen(
            [PROGRAM, str(file)], stderr=subprocess.DEVNULL, user=user, group=group
        )
        try:
            _wait_for(port)
            yield f"postgresql://{server.username}:{server.password}@127.0.0.1:{port}/{database}"
        finally:
            process.terminate()
            process.wait()


def session_state(dsn: str) -> list[tuple[object, ...]]:
    """What the next client of the pool finds in the only server session: its process, all settings
    that were set in it, locks and temporary objects."""
    with psycopg.connect(dsn, autocommit=True) as client:
        return client.execute(
            "SELECT 'process', pg_backend_pid()::text"
            " UNION ALL SELECT name, setting FROM pg_settings WHERE source = 'session'"
            " AND name <> 'application_name'"
            " UNION ALL SELECT locktype, objid::text FROM pg_locks WHERE locktype = 'advisory'"
            " UNION ALL SELECT 'temporary', relname FROM pg_class WHERE relpersistence = 't'"
            " ORDER BY 1, 2"
        ).fetchall()


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return
