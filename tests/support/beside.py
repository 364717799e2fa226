"""Work that goes on in a thread of its own beside a block of a test."""

from __future__ import annotations

import threading
from typing import Self


class Beside(threading.Thread):
    """Subclasses have `run`, which works until `ended` is set. The block waits for its end."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.ended = threading.Event()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.join()
