"""Spark for tests: one Java process for the whole session, with a classic and a Connect session.

Two workers, and a failed task runs again as on a cluster (`local[2,3]`). Tests that need Spark have
the mark `spark`, and are skipped where Java is missing; the last lines of the run say so.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyspark.sql import SparkSession


@dataclass(frozen=True)
class Sessions:
    """The same Spark, reached in two ways."""

    classic: SparkSession
    connect: SparkSession
    remote: str


def kind() -> str:
    """What tests of Spark run on; empty: they are skipped."""
    java = shutil.which("java")
    if java is None:
        return ""
    said = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    return said.splitlines()[0] if said else java


@contextmanager
def running_spark() -> Iterator[Sessions]:
    with tempfile.TemporaryDirectory() as warehouse:
        yield from _running_spark(warehouse)


def _running_spark(warehouse: str) -> Iterator[Sessions]:
    os.environ["PYSPARK_PYTHON"] = sys.executable
    os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
    from pyspark.sql import SparkSession
    from pyspark.sql.connect.session import SparkSession as ConnectSession

    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    settings = {
        "spark.driver.memory": "1g",
        "spark.ui.enabled": "false",
        "spark.sql.shuffle.partitions": "2",
        "spark.sql.session.timeZone": "UTC",
        "spark.plugins": "org.apache.spark.sql.connect.SparkConnectPlugin",
        "spark.connect.grpc.binding.port": str(port),
        "spark.log.level": "ERROR",
        "spark.sql.warehouse.dir": warehouse,
    }
    builder = SparkSession.builder.master("local[2,3]").appName("tests")
    for name, value in settings.items():
        builder = builder.config(name, value)
    classic = builder.getOrCreate()
    remote = f"sc://127.0.0.1:{port}"
    connect = ConnectSession.builder.remote(remote).create()
    try:
        yield Sessions(classic, connect, remote)
    finally:
        connect.stop()
        classic.stop()
