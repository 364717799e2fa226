"""The product as its users run it: the command as a process, or the use cases in a service.

`Pipeline` forks its processes from one that has imported the product, `Installed` starts the
console script, and `InProcess` runs in the process of the tests.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from unittest import mock

from tests.support.forked import Process
from tests.support.spark_engine import ENGINE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cdc_core.ports.destination import Destination

COMMAND = str(Path(sys.executable).with_name("pgbronze"))
#: The same with the folders of volumes, as in a job on Databricks.
IN_A_JOB = f"""
import sys
sys.path.append({str(Path(__file__).parents[2])!r})
from tests.support.spark_engine import find_volumes
find_volumes()
from entrypoints.wheel import command
command()
"""


class Settled(Protocol):
    """A destination: the settings that name it, and the folder in which the command runs."""

    @property
    def environment(self) -> Mapping[str, str]: ...

    @property
    def path(self) -> Path: ...


class Pipeline:
    """`pgbronze` as its user runs it, on one database and one lake."""

    def __init__(self, dsn: str, lake: Settled, **settings: str) -> None:
        self.lake = lake
        self.environment = (
            os.environ
            | dict(lake.environment)
            | {
                "SOURCES__PG_REPLICATION__CREDENTIALS": dsn,
                "SOURCES__PG_REPLICATION__BATCH_MAX_ROWS": "40",
            }
            | settings
        )

    def start(self, *arguments: str) -> Process | subprocess.Popen[str]:
        return Process(arguments, self.environment, self.lake.path)

    def run(self, *arguments: str, code: int = 0) -> str:
        process = self.start(*arguments)
        output, _ = process.communicate(timeout=120)
        assert process.returncode == code, output
        return output

    def call(self, *arguments: str, code: int = 0) -> str:
        """As `run`, in this process, which has imported everything already."""
        from entrypoints.cli import main as cli

        root, output = logging.getLogger(), io.StringIO()
        handlers, level = list(root.handlers), root.level
        try:
            with (
                mock.patch.dict(os.environ, self.environment),
                contextlib.chdir(self.lake.path),
                contextlib.redirect_stdout(output),
                contextlib.redirect_stderr(output),
            ):
                found = cli.main(arguments)
        finally:
            root.handlers[:] = handlers
            root.setLevel(level)
            logging.captureWarnings(capture=False)
        assert found == code, output.getvalue()
        return output.getvalue()

    def killed(self, *arguments: str, after: float) -> None:
        """Kill the whole process group after so many seconds, unless it ended before."""
        process = self.start(*arguments)
        time.sleep(after)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


class Installed(Pipeline):
    """As `Pipeline`, by the console script: with its own interpreter and all of its imports."""

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        by_warehouse = ENGINE == "warehouse"
        command = [COMMAND] if by_warehouse else [sys.executable, "-c", IN_A_JOB]
        return subprocess.Popen(
            [*command, *arguments],
            env=self.environment,
            cwd=self.lake.path,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


class InProcess(Pipeline):
    """As `Pipeline`, but in this process: for many short runs, none of which is killed."""

    def run(self, *arguments: str, code: int = 0) -> str:
        from entrypoints.cli.main import main
        from entrypoints.output.log import redact

        output = io.StringIO()
        root = logging.getLogger()
        handlers, level = list(root.handlers), root.level
        environment = {**self.environment, "DLT_PROJECT_DIR": str(self.lake.path)}
        try:
            with (
                mock.patch.dict(os.environ, environment, clear=True),
                contextlib.chdir(self.lake.path),
                contextlib.redirect_stdout(output),
                contextlib.redirect_stderr(output),
            ):
                found = main(arguments)
        finally:
            root.handlers[:] = handlers
            root.setLevel(level)
            logging.captureWarnings(capture=False)
            redact._secrets.clear()
            redact.add(())
        assert found == code, output.getvalue()
        return output.getvalue()


@dataclass
class Service:
    """`snapshot` and `cdc` in this process, as a service that embeds the library runs them.

    `destination` makes another in place of the one that the settings name.
    """

    dsn: str
    lake: Settled
    destination: Callable[[], Destination] | None = None
    settings: Mapping[str, str] = field(default_factory=dict)

    def run(self, command: str, *tables: str) -> None:
        from entrypoints.container import Container
        from entrypoints.settings import load_settings

        environ = {**self.lake.environment, "SOURCES__PG_REPLICATION__CREDENTIALS": self.dsn}
        environ |= self.settings
        # dlt's files of settings are sought where the command would have run.
        environ["DLT_PROJECT_DIR"] = str(self.lake.path)
        session = {name: value for name, value in environ.items() if name == "SPARK_REMOTE"}
        container = Container.from_settings(load_settings(environ=environ))
        if self.destination is not None:
            container.destination.override(self.destination())
        try:
            with mock.patch.dict(os.environ, session):
                match command:
                    case "snapshot":
                        container.take_snapshot().run(tables)
                    case "cdc":
                        container.stream_changes().run()
                    case _:
                        raise AssertionError(command)
        finally:
            container.shutdown_resources()
