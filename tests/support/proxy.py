"""A TCP proxy whose connections can be cut at a byte, stall, or stay open with nobody behind."""

from __future__ import annotations

import select
import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit, urlunsplit

if TYPE_CHECKING:
    from collections.abc import Callable


class Proxy:
    """Forwards a free local port to the server of a DSN, asked for anew for every connection; a
    context manager.

    `cut_after` bytes from the server every connection is reset, once; while `stalled` is set
    nothing is forwarded and nothing is closed.
    """

    def __init__(self, server: Callable[[], str]) -> None:
        self._server = server
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.connections = 0
        self.stalled = threading.Event()
        self._left: int | None = None
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        self._lock = threading.Lock()
        self._ended = threading.Event()

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._ended.set()
        self._listener.close()
        self.cut()

    @property
    def dsn(self) -> str:
        """The server's DSN, by way of this proxy."""
        parts = urlsplit(self._server())
        login = parts.netloc.rpartition("@")[0]
        return urlunsplit(parts._replace(netloc=f"{login}@127.0.0.1:{self.port}"))

    def cut(self) -> int:
        """Reset every connection; how many there were."""
        with self._lock:
            pairs, self._pairs = self._pairs, set()
            self._left = None
        for pair in pairs:
            for side in pair:
                with suppress(OSError):
                    # RST rather than FIN: what was under way is lost.
                    side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                    side.shutdown(socket.SHUT_RDWR)
        return len(pairs)

    def cut_after(self, size: int | None) -> None:
        """Reset every connection once the server has sent `size` more bytes; None: never."""
        with self._lock:
            self._left = size

    def _accept(self) -> None:
        while not self._ended.is_set():
            try:
                client, _ = self._listener.accept()
                parts = urlsplit(self._server())
                server = socket.create_connection((parts.hostname or "", parts.port or 5432))
            except OSError:
                if self._ended.is_set():
                    return
                with suppress(OSError, UnboundLocalError):
                    client.close()
                continue
            self.connections += 1
            pair = (client, server)
            with self._lock:
                self._pairs.add(pair)
            threading.Thread(target=self._forward, args=pair, daemon=True).start()

    def _forward(self, client: socket.socket, server: socket.socket) -> None:
        pair = (client, server)
        try:
            while not self._ended.is_set():
                if self.stalled.is_set():
                    self._ended.wait(0.01)
                    continue
                ready, _, _ = select.select(pair, [], [], 0.1)
                for side in ready:
                    data = side.recv(65536)
                    if not data:
                        return
                    allowed = self._allowed(len(data)) if side is server else len(data)
                    (client if side is server else server).sendall(data[:allowed])
                    if allowed < len(data):
                        self.cut()
                        return
        except (OSError, ValueError):
            return
        finally:
            with self._lock:
                self._pairs.discard(pair)
            client.close()
            server.close()

    def _allowed(self, size: int) -> int:
        with self._lock:
            if self._left is None:
                return size
            allowed = min(size, self._left)
            self._left -= allowed
            return allowed
