"""The process of `forked`: imports the product, then forks a child for each request.

`fork_server.py FD KIND`: requests come by the socket FD until it is closed. Every child ends by the
interpreter's own way out, from the top of the stack.
"""

from __future__ import annotations

import gc
import importlib
import io
import json
import os
import pkgutil
import random
import select
import signal
import socket
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

#: Imported by commands when they need them: beside the modules of the product, theirs of dlt.
_LATER = (
    "adapters.metrics.opentelemetry",
    "adbc_driver_postgresql.dbapi",
    "dlt._workspace.cli._plugins",
    "dlt.common.libs.pyarrow",
    "dlt.destinations.impl.destination.destination",
    "dlt.extract.extract",
    "dlt.load.load",
    "dlt.normalize.normalize",
    "dlt.pipeline.pipeline",
    "dlt.sources.helpers.requests",
    "duckdb",
    "pendulum.locales.en.locale",
    "pyarrow.dataset",
    "pyarrow.parquet",
    "rich.console",
    "rich.progress",
)
_OF_DESTINATIONS = {
    "": (),
    "duckdb": ("dlt.common.libs.sql_alchemy_compat", "dlt.destinations.impl.duckdb.duck"),
    "delta": (
        "deltalake.fs",
        "dlt.common.libs.deltalake",
        "dlt.destinations.impl.filesystem.filesystem",
        "fsspec.implementations.local",
    ),
    "databricks": (
        "databricks.sdk",
        "databricks.sql.backend.thrift_backend",
        "dlt.destinations.impl.databricks.databricks",
    ),
}

#: What a task on Databricks finds or imports, except dlt and what imports it: something else has
#: that name there, until the task takes it out of the way.
_OF_TASKS = (
    "databricks.sdk",
    "databricks.sql.backend.thrift_backend",
    "IPython.core.interactiveshell",
    "pendulum",
    "psycopg",
    "pyarrow.dataset",
    "pyarrow.parquet",
    "pydantic",
    "requests",
    "rich.console",
    "rich.progress",
)


def _import_all(kind: str) -> None:
    """What commands into `kind` import. The others' packages stay out, pandas among them."""
    if kind == "task":
        for name in _OF_TASKS:
            importlib.import_module(name)
        return
    roots = ["entrypoints.cli", "entrypoints.output", "entrypoints.runtime", "entrypoints.settings"]
    roots += ["cdc_core", "adapters.pgoutput", "adapters.dlt_destination", "adapters.secrets"]
    others = [name for name in _OF_DESTINATIONS if name not in {"", kind}]
    skipped = (*(f"adapters.dlt_destination.{other}" for other in others),)
    later = {"adapters.pgoutput.snapshot.sql_database"}
    for root in roots:
        package = importlib.import_module(root)
        for module in pkgutil.walk_packages(package.__path__, f"{root}."):
            spark = "spark" in module.name
            if not spark and not module.name.startswith(skipped) and module.name not in later:
                importlib.import_module(module.name)
    for name in ("entrypoints.container", "entrypoints.wheel", *_LATER, *_OF_DESTINATIONS[kind]):
        importlib.import_module(name)
    if kind == "databricks" and os.environ.get("PGBRONZE_TEST_ENGINE") == "spark":
        importlib.import_module("pyspark.sql.connect.session")


def _serve(requests: socket.socket) -> Callable[[], object] | None:
    """In the server, None at the end of requests, when children that are left are killed; in a
    child, the work to do."""
    woken, wakes = os.pipe()
    for end in (woken, wakes):
        os.set_blocking(end, False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wakes)
    #: The connection of each child, and those whose end was reported: zombies until that is closed.
    children: dict[int, socket.socket] = {}
    ended: dict[int, socket.socket] = {}
    while True:
        ready, _, _ = select.select([requests, woken, *ended.values()], [], [])
        with suppress(BlockingIOError):
            os.read(woken, 1 << 12)
        for pid, reports in [*ended.items()]:
            if reports in ready:
                os.waitpid(pid, 0)
                ended.pop(pid).close()
        if requests in ready:
            packet, streams, _, _ = socket.recv_fds(requests, 1 << 17, 4)
            if not packet:
                for pid in children:
                    os.kill(pid, signal.SIGKILL)
                return None
            reports = socket.socket(fileno=streams.pop())
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                for other in (requests, reports, *children.values(), *ended.values()):
                    other.close()
                os.close(woken)
                os.close(wakes)
                return _become(json.loads(packet), streams)
            for stream in streams:
                os.close(stream)
            children[pid] = reports
            reports.send(str(pid).encode())
        for pid in [*children]:
            flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
            if (end := os.waitid(os.P_PID, pid, flags)) is not None:
                reports = ended[pid] = children.pop(pid)
                exited = end.si_code == os.CLD_EXITED
                status = end.si_status << 8 if exited else end.si_status
                with suppress(OSError):
                    reports.send(str(status).encode())


def _open_streams() -> None:
    """As the interpreter does: whether they can seek is asked once, and those of the server can."""
    encoding = os.environ.get("PYTHONIOENCODING")
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        before = getattr(sys, name)
        stream = io.TextIOWrapper(
            open(number, "wb" if number else "rb", closefd=False),  # noqa: SIM115
            encoding=encoding or before.encoding,
            errors=before.errors,
            line_buffering=number == 2 or os.isatty(number),
            write_through=before.write_through,
        )
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def _become(request: dict[str, Any], streams: list[int]) -> Callable[[], object]:
    """Make this child the process that was asked for, up to its first line of Python."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    if request["session"]:
        os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(request["environment"])
    _open_streams()
    os.chdir(request["folder"])
    time.tzset()
    tempfile.tempdir = None
    if "PGBRONZE_TEST_VOLUMES" in os.environ:
        from tests.support.spark_engine import find_volumes

        find_volumes()
    random.seed()
    script, arguments = request["script"], request["arguments"]
    if script:
        sys.argv = ["-c", *arguments]
        if not sys.flags.safe_path:
            sys.path[0] = ""
        code = compile(script, "<string>", "exec")
        return lambda: exec(code, {"__name__": "__main__"})
    from entrypoints.wheel import command

    program = Path(sys.executable).with_name("pgbronze")
    sys.argv = [str(program), *arguments]
    sys.path[0] = str(program.parent)
    return command


if __name__ == "__main__":
    _import_all(sys.argv[2])
    gc.collect()
    work = _serve(socket.socket(fileno=int(sys.argv[1])))
    if work is not None:
        sys.exit(work())
