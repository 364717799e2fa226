"""The Spark session of this process: the one at hand, or one that the environment names.

On Databricks it is the job's own. Elsewhere `SPARK_REMOTE` names a Spark Connect server, and
without it Spark starts on this machine.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from cdc_core.values.errors import SettingsError, SourceUnavailable

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

#: Set by the runtime of Databricks.
ON_DATABRICKS = "DATABRICKS_RUNTIME_VERSION"


def spark_session() -> SparkSession:
    """Raises `SettingsError` without pyspark, `SourceUnavailable` if Spark does not start."""
    try:
        from pyspark.sql import SparkSession
    except ImportError:
        raise SettingsError(
            "Spark is not installed", 'run: pip install "pgbronze[spark]"'
        ) from None
    if ON_DATABRICKS not in os.environ:
        # Workers of this machine need our packages too.
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    try:
        found = SparkSession.getActiveSession()
        if found is not None:
            return found
        builder = SparkSession.builder.appName("pgbronze")
        if not {ON_DATABRICKS, "SPARK_REMOTE"} & os.environ.keys():
            builder = builder.config("spark.ui.enabled", "false")
        return builder.getOrCreate()
    except Exception as error:
        # Its text may be pages long, and name the connection with a token.
        raise SourceUnavailable(
            f"Spark does not start ({type(error).__name__})",
            "check SPARK_REMOTE, or that Java 17 is installed, then run again",
        ) from error
