"""Commands as processes of their own that cost no imports.

A fork server has imported what a command needs, and forks a child for each command. The child has
its own arguments, environment, folder, standard streams and, if asked for, session; it is waited
for, signalled and killed like any process, and ends like one. Most of what the command takes
otherwise, a second of imports, is paid once for a worker of pytest.

What a child inherits and a started process does not: imported modules, and settings that the
interpreter reads when it starts (`PYTHON*`). Tests of those start the real thing.
"""

from __future__ import annotations

import atexit
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple, Self

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

_ROOT = Path(__file__).resolve().parents[2]
_PROGRAM = Path(__file__).with_name("fork_server.py")
_PYTHON = Path(sys.executable)
#: A request is one packet: the environment and a script at most.
_PACKET = 1 << 17
_servers: dict[tuple[int, Path, str], _Server] = {}


class _Server:
    """The fork server for commands that load into one kind of destination, or for `task`s."""

    def __init__(self, python: Path, kind: str) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._requests = ours
        # Another interpreter sees nothing of this project.
        program = (
            ["-m", "tests.support.fork_server"] if python == _PYTHON else ["-I", str(_PROGRAM)]
        )
        with theirs:
            self._process = subprocess.Popen(
                [str(python), *program, str(theirs.fileno()), kind],
                cwd=_ROOT,
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _PACKET * 2)

    def fork(self, request: Mapping[str, object], streams: list[int]) -> socket.socket:
        """Have a child forked with the three standard streams; a connection reports on it."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            packet = json.dumps(request).encode()
            socket.send_fds(self._requests, [packet], [*streams, theirs.fileno()])
        return ours

    def stop(self) -> None:
        self._requests.close()
        self._process.wait()


def _server(python: Path, kind: str) -> _Server:
    # By process, for a worker that is itself a fork.
    key = (os.getpid(), python, kind)
    if key not in _servers:
        _servers[key] = _Server(python, kind)
        atexit.register(_servers[key].stop)
    return _servers[key]


class Output(NamedTuple):
    out: str
    error: str


class Process:
    """A forked command, with the part of `subprocess.Popen` that tests use; text is UTF-8.

    `arguments` are the command's, or those of `script`, Python that runs as `__main__`. Standard
    error is part of standard output unless it is `apart`; where `inherit`, both are the tests' own.
    With `terminal`, all three streams are that file. `python` is another environment's.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        folder: Path,
        *,
        script: str = "",
        apart: bool = False,
        inherit: bool = False,
        session: bool = True,
        terminal: int | None = None,
        python: Path = _PYTHON,
    ) -> None:
        self.arguments = [*arguments]
        self.returncode: int | None = None
        self.stdout: IO[str] | None = None
        self.stderr: IO[str] | None = None
        read: list[int] = []
        written = [1, 2]
        inherit = inherit or terminal is not None
        if terminal is not None:
            written = [terminal, terminal]
        if not inherit:
            pipes = [os.pipe() for _ in range(1 + apart)]
            read = [pipe[0] for pipe in pipes]
            written = [pipes[0][1], pipes[-1][1]]
        with Path(os.devnull).open() as nothing:
            kind = environment.get("PIPELINE__DESTINATION", "") if python == _PYTHON else "task"
            server = _server(python, kind)
            self._reports = server.fork(
                {
                    "arguments": self.arguments,
                    "environment": dict(environment),
                    "folder": str(folder),
                    "script": script,
                    "session": session,
                },
                [nothing.fileno() if terminal is None else terminal, *written],
            )
        if not inherit:
            for end in set(written):
                os.close(end)
            self.stdout = os.fdopen(read[0], encoding="utf-8")
            self.stderr = os.fdopen(read[1], encoding="utf-8") if apart else None
        self.pid = int(self._reported(None))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        for stream in (self.stdout, self.stderr):
            if stream is not None:
                stream.close()
        self.wait()

    def poll(self) -> int | None:
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, negative for a signal. Raises `TimeoutExpired`."""
        if self.returncode is None:
            self.returncode = os.waitstatus_to_exitcode(int(self._reported(timeout)))
            # It stays a zombie until now, as a child of ours would.
            self._reports.close()
        return self.returncode

    def communicate(self, timeout: float | None = None) -> Output:
        """Read the streams to their ends, and wait. Raises `TimeoutExpired`."""
        end = None if timeout is None else time.monotonic() + timeout
        texts = {stream: b"" for stream in (self.stdout, self.stderr) if stream is not None}
        with selectors.DefaultSelector() as waiting:
            for stream in texts:
                waiting.register(stream, selectors.EVENT_READ)
            while waiting.get_map():
                ready = waiting.select(None if end is None else max(0, end - time.monotonic()))
                if not ready and end is not None and time.monotonic() > end:
                    raise subprocess.TimeoutExpired(self.arguments, timeout or 0)
                for key, _ in ready:
                    piece = os.read(key.fd, 1 << 16)
                    texts[key.fileobj] += piece  # type: ignore[index]
                    if not piece:
                        waiting.unregister(key.fileobj)
        found = [text.decode(stream.encoding) for stream, text in texts.items()]
        for stream in texts:
            stream.close()
        self.wait(None if end is None else max(0, end - time.monotonic()))
        return Output(*[*found, "", ""][:2])

    def send_signal(self, number: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _reported(self, timeout: float | None) -> str:
        self._reports.settimeout(timeout)
        try:
            report = self._reports.recv(64)
        except (TimeoutError, BlockingIOError):
            raise subprocess.TimeoutExpired(self.arguments, timeout or 0) from None
        if not report:
            raise RuntimeError("the fork server ended")
        return report.decode()
