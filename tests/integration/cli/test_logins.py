"""Passwords that are replaced while pgbronze uses them, on a server that checks them (SCRAM)."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from adapters.pgoutput.changes.change_source import PgChangeSource
from adapters.pgoutput.session import password_command
from adapters.pgoutput.session.arrow_session import ArrowSession
from adapters.pgoutput.session.connection import connect
from adapters.pgoutput.session.settings import SourceSettings
from adapters.pgoutput.snapshot import sql_database
from cdc_core.ports.progress import TableFinished
from cdc_core.use_cases import stream_changes
from cdc_core.values.errors import SettingsError
from entrypoints.container import Container
from entrypoints.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cdc_core.ports.progress import Event
    from tests.integration.cli.conftest import Shop


@dataclass
class Account:
    """A role of the server whose password can be replaced; `file` has what its owner knows."""

    shop: Shop
    role: str
    file: Path
    password: str = ""

    def rotate(self, *, known: bool = True) -> None:
        """Replace the password. With `known`, the file gets it too."""
        self.password = f"pw-{uuid4().hex}"
        self.shop.sql(f"ALTER ROLE {self.role} PASSWORD '{self.password}'")
        if known:
            self.publish()

    def publish(self) -> None:
        self.file.write_text(self.password + "\n")

    def dsn(self, password: str = "") -> str:
        return self.shop.server.database_dsn(self.shop.database, self.role, password or "old")

    def secrets(self) -> None:
        """Write the connection string with the known password where a user keeps it."""
        folder = self.shop.folder / ".dlt"
        folder.mkdir(exist_ok=True)
        text = f'[sources.pg_replication]\ncredentials = "{self.dsn(self.password)}"\n'
        (folder / "secrets.toml").write_text(text)


@pytest.fixture
def account(shop: Shop) -> Iterator[Account]:
    found = Account(shop, f"app_{shop.database}", shop.folder / "password")
    shop.sql(f"CREATE ROLE {found.role} LOGIN SUPERUSER")
    found.rotate()
    yield found
    shop.sql(f"DROP OWNED BY {found.role}; DROP ROLE {found.role}")


def _lock_session(settings: SourceSettings) -> None:
    with PgChangeSource(settings) as source:
        source.current_lsn()


def _sql_database(settings: SourceSettings) -> None:
    class Guards:
        name = ""

    engine = sql_database._Engine(settings, Guards())  # type: ignore[arg-type]
    with closing(engine):
        engine.engine.raw_connection().close()


SESSIONS: dict[str, Callable[[SourceSettings], object]] = {
    "psycopg": lambda settings: connect(settings).close(),
    "replication": lambda settings: connect(settings, replication=True).close(),
    "arrow": lambda settings: ArrowSession(settings, 14).close(),
    "lock": _lock_session,
    "sql_database": _sql_database,
}


@pytest.mark.parametrize("session", SESSIONS)
def test_the_password_command_runs_for_each_connection(account: Account, session: str) -> None:
    redacted: list[str] = []
    command = ("cat", str(account.file))
    settings = SourceSettings(account.dsn(), password_command=command, redact=redacted.append)
    for _ in range(2):
        account.rotate()
        SESSIONS[session](settings)
        assert redacted[-1] == account.password


@pytest.mark.parametrize("session", ["psycopg", "arrow"])
def test_a_rejected_login_asks_the_command_once_more(account: Account, session: str) -> None:
    """The token that it gave first had expired."""
    calls = account.shop.folder / "calls"
    late = f"echo x >> {calls}; test $(wc -l < {calls}) = 1 && echo early || cat {account.file}"
    settings = SourceSettings(account.dsn(), password_command=("sh", "-c", late))
    SESSIONS[session](settings)
    assert calls.read_text() == "x\nx\n"
    account.rotate(known=False)
    with pytest.raises(SettingsError, match="password authentication failed") as refused:
        SESSIONS[session](settings)
    assert calls.read_text() == "x\n" * 4
    assert "password_command" in refused.value.cure


def test_a_rejected_password_is_read_again_if_it_changed(account: Account) -> None:
    reads: list[str] = []

    def read_again() -> str:
        reads.append("once")
        return account.dsn(account.file.read_text().strip())

    redacted: list[str] = []
    settings = SourceSettings(
        account.dsn(account.password), read_again=read_again, redact=redacted.append
    )
    connect(settings).close()
    assert not reads
    account.rotate(known=False)
    with pytest.raises(SettingsError, match="password authentication failed"):
        connect(settings)
    assert len(reads) == 1
    account.publish()
    for session in SESSIONS.values():
        session(settings)
    # The sessions after the first know the new one.
    assert len(reads) == 2
    assert redacted == [account.password]


def test_what_names_another_server_is_not_followed(account: Account) -> None:
    elsewhere = account.dsn(account.password).replace("127.0.0.1", "localhost")
    settings = SourceSettings(account.dsn("wrong"), read_again=lambda: elsewhere)
    with pytest.raises(SettingsError, match="password authentication failed"):
        connect(settings)


def test_a_secret_that_rotates_while_a_run_follows(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new table is read through sessions that are opened then."""
    shop = account.shop
    account.secrets()
    monkeypatch.setattr(stream_changes, "LOOK_SECONDS", 0.0)
    environ = {**shop.environ}
    del environ["SOURCES__PG_REPLICATION__CREDENTIALS"]
    container = Container.from_settings(load_settings(environ=environ))
    shop.sql("CREATE TABLE orders (id int PRIMARY KEY); INSERT INTO orders VALUES (1)")
    container.take_snapshot().run()
    read, deadline = threading.Event(), time.monotonic() + 60

    class Listener:
        def emit(self, event: Event) -> None:
            if isinstance(event, TableFinished) and "late" in event.table:
                read.set()

    container.progress().add(Listener())

    def ended() -> bool:
        return read.is_set() or time.monotonic() > deadline

    with ThreadPoolExecutor() as pool:
        run = pool.submit(container.stream_changes().run, follow=True, stop=ended)
        account.rotate(known=False)
        account.secrets()
        shop.sql("CREATE TABLE late (id int PRIMARY KEY); INSERT INTO late VALUES (7)")
        run.result()
    container.shutdown_resources()
    assert shop.lake_sql("SELECT id FROM bronze.late") == [(7,)]


COMMAND = "SOURCES__PG_REPLICATION__PASSWORD_COMMAND"


def test_a_run_with_a_password_command(account: Account) -> None:
    shop = account.shop
    shop.environ["SOURCES__PG_REPLICATION__CREDENTIALS"] = account.dsn()
    shop.sql("CREATE TABLE orders (id int PRIMARY KEY); INSERT INTO orders VALUES (1)")
    command = json.dumps(["cat", str(account.file)])
    account.rotate()
    shown = shop.run("snapshot", f"--password-command={command}", LOG_LEVEL="DEBUG")
    shop.sql("INSERT INTO orders VALUES (2)")
    account.rotate()
    again = shop.run("cdc", LOG_LEVEL="DEBUG", **{COMMAND: command})
    assert shop.lake_sql("SELECT id FROM bronze.orders ORDER BY id") == [(1,), (2,)]
    for output in (shown, again):
        assert "pw-" not in output.out + output.error


@pytest.mark.parametrize(
    ("command", "line"),
    [
        (["cat", "/no/such/file"], "the password command 'cat' failed (exit code 1): cat: "),
        (["no-such-program"], "the program 'no-such-program' of the password command was not f"),
        (["sleep", "600"], "the password command 'sleep' did not end within 0.2 seconds"),
        (["echo", "wrong-s3cret"], "PostgreSQL refuses the connection: "),
        (
            ["sh", "-c", "echo wrong-s3cret; echo no wrong-s3cret >&2; exit 1"],
            "(exit code 1): no *",
        ),
    ],
)
def test_a_password_command_that_fails_is_exit_2(
    account: Account, monkeypatch: pytest.MonkeyPatch, command: list[str], line: str
) -> None:
    monkeypatch.setattr(password_command, "TIMEOUT_SECONDS", 0.2)
    account.shop.environ["SOURCES__PG_REPLICATION__CREDENTIALS"] = account.dsn()
    for level in ("INFO", "DEBUG"):
        shown = account.shop.run(
            "slot", "show", code=2, LOG_LEVEL=level, **{COMMAND: json.dumps(command)}
        )
        assert line in shown.line
        assert "wrong-s3cret" not in shown.error


@pytest.mark.parametrize("command", ["plan", "status", "verify", "snapshot", "cdc", "record"])
def test_every_command_ends_with_2_if_the_password_command_fails(
    account: Account, command: str
) -> None:
    account.shop.environ["SOURCES__PG_REPLICATION__CREDENTIALS"] = account.dsn()
    file = ["bug"] if command == "record" else []
    shown = account.shop.run(command, *file, code=2, **{COMMAND: '["false"]'})
    assert "the password command 'false' failed (exit code 1)" in shown.line


def test_check_says_that_the_password_command_fails(account: Account) -> None:
    account.shop.environ["SOURCES__PG_REPLICATION__CREDENTIALS"] = account.dsn()
    shown = account.shop.run("check", code=3, **{COMMAND: '["false"]'})
    assert "the password command 'false' failed (exit code 1)" in " ".join(shown.out.split())


@pytest.mark.parametrize("given", ["cat file", '"cat"', "[]", '[""]', "[1]", '["a", null]', "{}"])
def test_a_command_that_is_no_list_is_exit_2(shop: Shop, given: str) -> None:
    shown = shop.run("slot", "show", code=2, **{COMMAND: given})
    assert "sources.pg_replication.password_command" in shown.line
    assert given not in shown.line
