"""The fault switch and the log of what clients asked.

A fault waits for the n-th *event* whose text matches its pattern. Events are statements (their
text), Thrift calls (`THRIFT OpenSession`) and plain requests (`HTTP PUT /_presigned/…`), so one
pattern language reaches all three.
"""

from __future__ import annotations

import re
import threading
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from .rest import Response, refused

Kind = Literal["error", "conflict", "drop_before", "drop_after", "http", "delay", "hold"]
HELD_AT_MOST = 120.0
COME_AGAIN = (429, 503)
CONFLICT = "DELTA_CONCURRENT_APPEND"


@dataclass
class Fault:
    """What to do to events number `nth` to `nth + times - 1` that match `pattern`.

    - `error`: the statement is not executed and fails with `error_class`; `conflict` is that with a
      concurrency conflict's class;
    - `drop_before`, `drop_after`: the connection is cut before or after it is executed;
    - `http`: it is not executed and answered with `status`, and `Retry-After` where it is one to
      come again after; by `body` as a store of files would, else by `message` as the gateway of a
      workspace, whose code is `error_class`;
    - `delay`: it is executed `seconds` later; a statement is said to be running until then;
    - `hold`: a statement is said to be running, and executed when the faults are cleared.

    With `cycle`, events of the same text are counted by themselves, and the fault strikes number
    `nth` of every `cycle` of them: a statement that is sent again until it passes meets each of
    several faults once, wherever it occurs.
    """

    pattern: str
    kind: Kind = "error"
    nth: int = 1
    times: int = 1
    error_class: str = "INTERNAL_ERROR"
    message: str = "A fault that a test asked for."
    status: int = 503
    retry_after: int | None = 1
    body: str | None = None
    seconds: float = 0.0
    cycle: int = 0
    seen: int = 0
    fired: int = 0

    def __post_init__(self) -> None:
        self._compiled = re.compile(self.pattern, re.IGNORECASE | re.DOTALL)
        self._by_text: Counter[str] = Counter()
        self.cleared = threading.Event()

    def wait(self) -> None:
        """Until a statement that is executed later is executed."""
        if self.kind == "delay":
            time.sleep(self.seconds)
        if self.kind == "hold":
            self.cleared.wait(HELD_AT_MOST)

    @property
    def response(self) -> Response:
        """The answer of `http`."""
        if self.body is not None:
            return Response(self.body.encode(), self.status, {"Content-Type": "application/xml"})
        answer = refused(self.status, self.message, self.error_class)
        if self.status in COME_AGAIN and self.retry_after is not None:
            answer.headers["Retry-After"] = str(self.retry_after)
        return answer

    def matches(self, text: str) -> bool:
        """Count `text` if it matches, and say whether the fault strikes."""
        if not self._compiled.search(text):
            return False
        self.seen += 1
        if self.cycle:
            self._by_text[text] += 1
            return self._by_text[text] % self.cycle == self.nth % self.cycle
        return self.nth <= self.seen < self.nth + self.times


class DropConnection(Exception):
    """Close the connection without an answer."""


class HttpFault(Exception):
    """Answer so."""

    def __init__(self, response: Response) -> None:
        super().__init__(f"status {response.status}")
        self.response = response


@dataclass
class Statement:
    """One statement as it was received."""

    number: int
    session: str
    text: str
    started: float
    seconds: float | None = None
    status: str = "running"
    error_class: str | None = None
    rows: int | None = None
    fault: str | None = None
    #: As the client and Query History know it; None if the client was given none.
    id: str | None = None


@dataclass
class Recorder:
    """Faults, statements and counters of a server; safe to share between threads."""

    faults: list[Fault] = field(default_factory=list)
    statements: list[Statement] = field(default_factory=list)
    counters: Counter[str] = field(default_factory=Counter)
    #: Of the last Thrift request.
    headers: dict[str, str] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, what: str) -> None:
        with self._lock:
            self.counters[what] += 1

    def begin(self, session: str, text: str) -> Statement:
        with self._lock:
            entry = Statement(len(self.statements) + 1, session, text, time.time())
            self.statements.append(entry)
            self.counters["statements"] += 1
        return entry

    def before(self, text: str) -> Fault | None:
        """The fault that this event meets, raising where it forbids to go on."""
        with self._lock:
            struck = [fault for fault in self.faults if fault.matches(text)]
            for fault in struck:
                fault.fired += 1
        fault = next(iter(sorted(struck, key=lambda fault: fault.kind == "delay")), None)
        if fault is not None and fault.kind == "drop_before":
            raise DropConnection
        if fault is not None and fault.kind == "http":
            raise HttpFault(fault.response)
        return fault

    def add_fault(self, **settings: Any) -> None:
        fault = Fault(**settings)
        with self._lock:
            self.faults.append(fault)

    def clear(self, *, faults: bool = True, log: bool = True) -> None:
        with self._lock:
            if faults:
                for fault in self.faults:
                    fault.cleared.set()
                self.faults.clear()
            if log:
                self.statements.clear()
                self.counters.clear()

    def snapshot(self) -> dict[str, Any]:
        with self._lock:
            return {
                "statements": [asdict(entry) for entry in self.statements],
                "counters": dict(self.counters),
                "headers": self.headers,
                "faults": [asdict(fault) for fault in self.faults],
            }
