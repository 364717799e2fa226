"""A Spark session with the interface of `databricks-sql-connector`, as far as we and dlt use it.

Statements go through `spark.sql`. PUT, LIST and REMOVE, which the connector itself carries out, are
done on the paths of volumes, where a job on Databricks finds them as files. Errors become those of
the connector, with the error class and SQLSTATE that Spark gives, so that the same rules judge
them. Documentation: Databricks, "Work with files in Unity Catalog volumes"; PySpark, "Spark Session
APIs".
"""

from __future__ import annotations

import re
import shutil
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from databricks.sql import exc, utils

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

#: As in a SQL warehouse: without them, a value that does not fit becomes NULL in silence. These are
#: the defaults of serverless compute, which may refuse to set them.
_AS_IN_A_WAREHOUSE = {
    "spark.sql.ansi.enabled": "true",
    "spark.sql.storeAssignmentPolicy": "ANSI",
}

_PUT = re.compile(r"\s*PUT '(?P<local>[^']*)' INTO '(?P<place>[^']*)' OVERWRITE\s*;?\s*\Z")
_LIST = re.compile(r"\s*LIST '(?P<place>[^']*)'\s*;?\s*\Z")
_REMOVE = re.compile(r"\s*REMOVE '(?P<place>[^']*)'\s*;?\s*\Z")
#: Statements that return rows. Others are done when `spark.sql` returns.
_QUERY = re.compile(r"[\s(]*(?:SELECT|WITH|VALUES|TABLE|DESC|DESCRIBE|SHOW)\b", re.IGNORECASE)


# They have no types.
ServerOperationError: Any = exc.ServerOperationError
_escaper: Any = utils.ParamEscaper()


class SparkGone(exc.ServerOperationError):
    """The Spark session has ended, and this process has no other."""

    def __init__(self) -> None:
        super().__init__("the Spark session has ended")  # type: ignore[no-untyped-call]


class SparkConnection:
    """Safe to share between threads, as a Spark session is."""

    #: The connector's setting for the folder of files to upload; any folder will do here.
    staging_allowed_local_path: str | None = None

    def __init__(self, spark: Any, configuration: Mapping[str, str]) -> None:
        self._spark = spark
        for name, value in {**_AS_IN_A_WAREHOUSE, **configuration}.items():
            try:
                with _connectors_errors():
                    spark.conf.set(name, value)
            except ServerOperationError as error:
                if name not in _AS_IN_A_WAREHOUSE or "CONFIG_NOT_AVAILABLE" not in str(error):
                    raise

    def cursor(self) -> SparkCursor:
        return SparkCursor(self._spark)

    def close(self) -> None:
        """Leaves the session to the job, which it belongs to."""


class SparkCursor:
    """Runs one statement after another."""

    #: Query History shows no ID for statements of a session.
    query_id: str | None = None
    rowcount = -1

    def __init__(self, spark: Any) -> None:
        self._spark = spark
        self._tables: Iterator[pa.Table] | None = None
        self._names: list[str] = []

    def execute(self, statement: str, parameters: Any = None) -> SparkCursor:
        """`parameters` replace `%s`, as SQL literals."""
        if parameters:
            statement = utils.inject_parameters(statement, _escaper.escape_args(parameters))
        self._tables, self._names = None, []
        with _connectors_errors():
            if file := _PUT.match(statement):
                _upload(Path(file["local"]), volume_path(file["place"]))
            elif file := _REMOVE.match(statement):
                _remove(volume_path(file["place"]))
            elif file := _LIST.match(statement):
                found = _listed(file["place"], volume_path(file["place"]))
                self._tables, self._names = iter([found]), found.column_names
            else:
                frame = self._spark.sql(statement)
                if _QUERY.match(statement):
                    self._names, self._tables = _rows(frame)
        return self

    @property
    def description(self) -> list[tuple[Any, ...]] | None:
        """The names of the result's columns; None without a result."""
        if self._tables is None:
            return None
        return [(name, None, None, None, None, None, True) for name in self._names]

    def fetchmany_arrow(self, size: int) -> pa.Table:  # noqa: ARG002 - Spark bounds its batches
        """The next rows; none at the end."""
        with _connectors_errors():
            for table in self._tables or ():
                if len(table):
                    return table
        return pa.table({})

    def fetchall(self) -> list[tuple[Any, ...]]:
        rows: list[tuple[Any, ...]] = []
        while len(table := self.fetchmany_arrow(0)):
            rows += zip(*(column.to_pylist() for column in table.columns), strict=True)
        return rows

    def fetchone(self) -> tuple[Any, ...] | None:
        rows = self.fetchall()
        return rows[0] if rows else None

    def fetchmany(self, size: int) -> Sequence[tuple[Any, ...]]:  # noqa: ARG002 - all that is left
        return self.fetchall()

    def fetchall_arrow(self) -> pa.Table:
        tables = []
        while len(table := self.fetchmany_arrow(0)):
            tables.append(table)
        return pa.concat_tables(tables) if tables else pa.table({})

    def close(self) -> None:
        self._tables = None


def volume_path(place: str) -> Path:
    """Where this process finds a file of a volume, `/Volumes/catalog/schema/volume/…`."""
    return Path(place)


def _upload(local: Path, place: Path) -> None:
    try:
        shutil.copyfile(local, place)
    except FileNotFoundError:
        raise ServerOperationError(
            "[VOLUME_DOES_NOT_EXIST] The volume does not exist. SQLSTATE: 42000"
        ) from None


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _listed(place: str, folder: Path) -> pa.Table:
    try:
        found = sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        raise ServerOperationError(
            "[PATH_NOT_FOUND] Path does not exist. SQLSTATE: 42K03"
        ) from None
    names = [entry.name + "/" * entry.is_dir() for entry in found]
    paths = [f"{place.rstrip('/')}/{name}" for name in names]
    return pa.table({"path": pa.array(paths, pa.string()), "name": pa.array(names, pa.string())})


def _rows(frame: Any) -> tuple[list[str], Iterator[pa.Table]]:
    """The columns of a DataFrame, and its rows in Arrow tables of limited size, times in UTC.

    Spark Connect sends them as such. Classic Spark has no public way to get them one by one, so its
    workers pack each into a binary value.
    """
    if not type(frame).__module__.startswith("pyspark.sql.connect"):
        return list(frame.columns), _unpacked(frame)
    client, plan = frame._session.client, frame._plan
    stream = client.to_table_as_iterator(plan.to_proto(client), plan.observations)
    # The schema precedes the rows; to get it runs the query.
    first = next(stream)
    names = first.column_names if isinstance(first, pa.Table) else first.names
    return list(names), (found for found in chain([first], stream) if isinstance(found, pa.Table))


def _unpacked(frame: Any) -> Iterator[pa.Table]:
    for row in frame.mapInArrow(_packed, "rows BINARY").toLocalIterator(prefetchPartitions=True):
        yield pa.ipc.open_stream(row[0]).read_all()


def _packed(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, batch.schema) as writer:
            writer.write_batch(batch)
        rows = pa.array([sink.getvalue().to_pybytes()], pa.binary())
        yield pa.RecordBatch.from_arrays([rows], names=["rows"])


@contextmanager
def _connectors_errors() -> Iterator[None]:
    """Raise the connector's errors for those of Spark, Java, gRPC and files."""
    try:
        yield
    except PermissionError:
        # Without a SQLSTATE, because it is no matter of one table.
        raise ServerOperationError(
            "[PERMISSION_DENIED] The volume may not be written or read."
        ) from None
    except OSError as error:
        raise ServerOperationError(f"a file of the volume: {error.strerror}") from None
    except Exception as error:
        if not type(error).__module__.startswith(("pyspark", "grpc", "py4j")):
            raise
        text = str(error)
        if _GONE.search(text):
            raise SparkGone from None
        raise ServerOperationError(text) from None


#: The session was closed or timed out, or its server ended.
_GONE = re.compile(
    r"INVALID_HANDLE\.SESSION_|NO_ACTIVE_SESSION|SESSION_ALREADY_EXIST"
    r"|StatusCode\.UNAVAILABLE|RETRIES_EXCEEDED|Cannot invoke RPC"
    r"|Answer from Java side is empty|SparkContext was shut down|stopped SparkContext"
)
