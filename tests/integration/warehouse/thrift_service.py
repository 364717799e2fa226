"""The warehouse's Thrift service, on the interface that the connector itself was generated with.

Results are Arrow batches without their schema message, inline; a failed statement is an operation
in ERROR_STATE whose message is `[CLASS] … SQLSTATE: …`. A statement that takes longer than a few
seconds is answered as running and polled for, as a warehouse does.
"""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from databricks.sql.thrift_api.TCLIService import TCLIService as _Service
from databricks.sql.thrift_api.TCLIService import ttypes as _types
from thrift.protocol.TBinaryProtocol import TBinaryProtocol
from thrift.transport.TTransport import TMemoryBuffer, TTransportException

from .engine import literal
from .errors import SqlError
from .faults import CONFLICT, DropConnection, HttpFault
from .session import Result, Session

if TYPE_CHECKING:
    from .faults import Fault, Recorder, Statement
    from .statements import Statements

# Generated code without types.
TCLIService: Any = _Service
ttypes: Any = _types

#: How long a statement may run before the client is told to poll.
INLINE_SECONDS = 5.0
_BATCH_ROWS = 20_000
_FETCH_BYTES = 16 << 20
_OK = ttypes.TStatus(statusCode=ttypes.TStatusCode.SUCCESS_STATUS)


class Interrupt(TTransportException):  # type: ignore[misc]
    """Carries a `DropConnection` or `HttpFault` through the generated code."""

    def __init__(self, cause: DropConnection | HttpFault) -> None:
        super().__init__(message=str(cause))
        self.cause = cause


@dataclass
class Operation:
    """A statement in execution, or executed and being fetched."""

    handle: Any
    future: Future[Result]
    batches: list[pa.RecordBatch] | None = None
    next_batch: int = 0
    rows_sent: int = 0
    canceled: bool = False


@dataclass
class Service:
    """The generated interface's methods."""

    statements: Statements
    recorder: Recorder
    default_catalog: str
    user: str
    _sessions: dict[bytes, Session] = field(default_factory=dict)
    _operations: dict[bytes, Operation] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(64, "statement"))

    def handle(self, request: bytes) -> bytes:
        """One Thrift request to its answer. Raises `DropConnection` and `HttpFault`."""
        source, answer = TMemoryBuffer(request), TMemoryBuffer()
        try:
            TCLIService.Processor(self).process(TBinaryProtocol(source), TBinaryProtocol(answer))
        except Interrupt as interrupt:
            raise interrupt.cause from None
        return bytes(answer.getvalue())

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _strike(self, text: str) -> Fault | None:
        """For an event of the protocol itself, a `delay` is over when this returns."""
        fault = self._struck(text)
        if fault is not None and fault.kind == "delay":
            fault.wait()
            return None
        return fault

    def _struck(self, text: str) -> Fault | None:
        try:
            return self.recorder.before(text)
        except (DropConnection, HttpFault) as cause:
            raise Interrupt(cause) from None

    # -- sessions

    def OpenSession(self, req: Any) -> Any:
        fault = self._strike("THRIFT OpenSession")
        namespace = req.initialNamespace
        session = Session(
            catalog=((namespace and namespace.catalogName) or self.default_catalog).lower(),
            schema=((namespace and namespace.schemaName) or "default").lower(),
            user=self.user,
            settings=dict(req.configuration or {}),
        )
        with self._lock:
            self._sessions[session.id.bytes] = session
        self.recorder.count("sessions")
        if fault is not None and fault.kind == "drop_after":
            raise Interrupt(DropConnection())
        if fault is not None:
            return ttypes.TOpenSessionResp(status=_failed(f"[{fault.error_class}] {fault.message}"))
        handle = ttypes.THandleIdentifier(guid=session.id.bytes, secret=session.id.bytes)
        return ttypes.TOpenSessionResp(
            status=_OK,
            serverProtocolVersion=ttypes.TProtocolVersion.SPARK_CLI_SERVICE_PROTOCOL_V7,
            sessionHandle=ttypes.TSessionHandle(
                sessionId=handle,
                serverProtocolVersion=ttypes.TProtocolVersion.SPARK_CLI_SERVICE_PROTOCOL_V7,
            ),
            initialNamespace=ttypes.TNamespace(session.catalog, session.schema),
            canUseMultipleCatalogs=True,
        )

    def CloseSession(self, req: Any) -> Any:
        fault = self._strike("THRIFT CloseSession")
        with self._lock:
            self._sessions.pop(req.sessionHandle.sessionId.guid, None)
        self.recorder.count("sessions_closed")
        _answered(fault)
        return ttypes.TCloseSessionResp(status=_OK)

    def forget_sessions(self) -> None:
        """End every session, as a restart of the warehouse does."""
        with self._lock:
            self._sessions.clear()

    @property
    def open_sessions(self) -> int:
        return len(self._sessions)

    # -- statements

    def new_session(self) -> Session:
        """A session of a client that speaks another protocol."""
        return Session(self.default_catalog, "default", self.user)

    def run(self, session: Session, text: str) -> tuple[Result, bool]:
        """A statement of such a client, and whether its answer is lost. Raises `SqlError`, and
        `Interrupt` if it was not executed."""
        entry = self.recorder.begin(str(session.id), text)
        try:
            fault = self._struck(text)
        except Interrupt as interrupt:
            entry.status, entry.fault = "not executed", str(interrupt.cause) or "drop_before"
            raise
        entry.fault = fault.kind if fault is not None else None
        result = self._run(session, text, {}, entry, fault)
        return result, fault is not None and fault.kind == "drop_after"

    def ExecuteStatement(self, req: Any) -> Any:
        with self._lock:
            session = self._sessions.get(req.sessionHandle.sessionId.guid)
        if session is None:
            return ttypes.TExecuteStatementResp(
                status=ttypes.TStatus(
                    statusCode=ttypes.TStatusCode.INVALID_HANDLE_STATUS,
                    errorMessage="Invalid SessionHandle: the session is closed or was never open.",
                )
            )
        entry = self.recorder.begin(str(session.id), req.statement)
        try:
            fault = self._struck(req.statement)
        except Interrupt as interrupt:
            entry.status, entry.fault = "not executed", str(interrupt.cause) or "drop_before"
            raise
        entry.fault = fault.kind if fault is not None else None
        parameters = _parameters(req.parameters or ())
        future = self._pool.submit(self._run, session, req.statement, parameters, entry, fault)
        if fault is not None and fault.kind == "drop_after":
            future.exception()
            raise Interrupt(DropConnection())
        statement_id = uuid.uuid4()
        guid, entry.id = statement_id.bytes, str(statement_id)
        handle = ttypes.TOperationHandle(
            operationId=ttypes.THandleIdentifier(guid=guid, secret=guid),
            operationType=ttypes.TOperationType.EXECUTE_STATEMENT,
            hasResultSet=True,
        )
        operation = Operation(handle, future)
        with self._lock:
            self._operations[guid] = operation
        direct = None
        if req.getDirectResults is not None:
            later = fault is not None and fault.kind in ("delay", "hold")
            wait = 0.0 if later else INLINE_SECONDS
            direct = self._direct_results(operation, req.getDirectResults.maxRows, wait)
        return ttypes.TExecuteStatementResp(
            status=_OK, operationHandle=handle, directResults=direct
        )

    def _run(
        self,
        session: Session,
        text: str,
        parameters: dict[str | int, str],
        entry: Statement,
        fault: Fault | None,
    ) -> Result:
        began = time.perf_counter()
        try:
            if fault is not None:
                fault.wait()
            if fault is not None and fault.kind in ("error", "conflict"):
                error_class = CONFLICT if fault.kind == "conflict" else fault.error_class
                raise SqlError(error_class, fault.message)  # noqa: TRY301
            result = self.statements.execute(session, text, parameters)
        except SqlError as error:
            entry.status, entry.error_class = "failed", error.error_class
            raise
        except Exception as error:
            entry.status, entry.error_class = "failed", "INTERNAL_ERROR"
            raise SqlError("INTERNAL_ERROR", f"{type(error).__name__}: {error}") from error
        else:
            entry.status = "finished"
            entry.rows = result.rows.num_rows if result.modified is None else result.modified
            return result
        finally:
            entry.seconds = time.perf_counter() - began

    def _direct_results(self, operation: Operation, max_rows: int, wait: float) -> Any:
        try:
            operation.future.exception(wait)
        except NotYet:
            return ttypes.TSparkDirectResults(operationStatus=self._status(operation))
        status = self._status(operation)
        if operation.future.exception() is not None:
            return ttypes.TSparkDirectResults(operationStatus=status)
        rows, more = self._next_rows(operation, max_rows)
        metadata = _metadata(operation.future.result())
        closed = None
        if not more:
            closed = ttypes.TCloseOperationResp(status=_OK)
            self._forget(operation)
        return ttypes.TSparkDirectResults(
            operationStatus=status,
            resultSetMetadata=metadata,
            resultSet=ttypes.TFetchResultsResp(
                status=_OK, hasMoreRows=more, results=rows, resultSetMetadata=metadata
            ),
            closeOperation=closed,
        )

    def _status(self, operation: Operation) -> Any:
        states = ttypes.TOperationState
        if operation.canceled:
            return ttypes.TGetOperationStatusResp(status=_OK, operationState=states.CANCELED_STATE)
        if not operation.future.done():
            return ttypes.TGetOperationStatusResp(status=_OK, operationState=states.RUNNING_STATE)
        error = operation.future.exception()
        if error is None:
            return ttypes.TGetOperationStatusResp(
                status=_OK,
                operationState=states.FINISHED_STATE,
                hasResultSet=True,
                numModifiedRows=operation.future.result().modified,
            )
        self._forget(operation)
        return ttypes.TGetOperationStatusResp(
            status=_OK,
            operationState=states.ERROR_STATE,
            sqlState=getattr(error, "sql_state", "XX000"),
            errorMessage=str(error),
            displayMessage=str(error),
            diagnosticInfo=str(error),
        )

    def _forget(self, operation: Operation) -> None:
        with self._lock:
            self._operations.pop(operation.handle.operationId.guid, None)

    def _operation(self, req: Any) -> Operation | None:
        with self._lock:
            return self._operations.get(req.operationHandle.operationId.guid)

    def GetOperationStatus(self, req: Any) -> Any:
        fault = self._strike("THRIFT GetOperationStatus")
        operation = self._operation(req)
        if operation is None:
            return ttypes.TGetOperationStatusResp(status=_no_operation())
        with contextlib.suppress(NotYet):
            operation.future.exception(INLINE_SECONDS)
        status = self._status(operation)
        _answered(fault)
        return status

    def CancelOperation(self, req: Any) -> Any:
        operation = self._operation(req)
        if operation is not None:
            operation.canceled = True
        return ttypes.TCancelOperationResp(status=_OK)

    def CloseOperation(self, req: Any) -> Any:
        operation = self._operation(req)
        if operation is not None:
            self._forget(operation)
        return ttypes.TCloseOperationResp(status=_OK)

    def GetResultSetMetadata(self, req: Any) -> Any:
        operation = self._operation(req)
        if operation is None:
            return ttypes.TGetResultSetMetadataResp(status=_no_operation())
        return _metadata(operation.future.result())

    def FetchResults(self, req: Any) -> Any:
        fault = self._strike("THRIFT FetchResults")
        operation = self._operation(req)
        if operation is None:
            return ttypes.TFetchResultsResp(status=_no_operation())
        rows, more = self._next_rows(operation, req.maxRows)
        _answered(fault)
        return ttypes.TFetchResultsResp(
            status=_OK,
            hasMoreRows=more,
            results=rows,
            resultSetMetadata=_metadata(operation.future.result()),
        )

    def _next_rows(self, operation: Operation, max_rows: int) -> tuple[Any, bool]:
        if operation.batches is None:
            rows = operation.future.result().rows
            operation.batches = rows.to_batches(max_chunksize=min(_BATCH_ROWS, max(max_rows, 1)))
        start, count, size = operation.rows_sent, 0, 0
        sent: list[Any] = []
        while operation.next_batch < len(operation.batches):
            batch = operation.batches[operation.next_batch]
            if sent and (count + batch.num_rows > max_rows or size + batch.nbytes > _FETCH_BYTES):
                break
            data = batch.serialize().to_pybytes()
            sent.append(ttypes.TSparkArrowBatch(batch=data, rowCount=batch.num_rows))
            count, size = count + batch.num_rows, size + batch.nbytes
            operation.next_batch += 1
        operation.rows_sent += count
        row_set = ttypes.TRowSet(startRowOffset=start, rows=[], arrowBatches=sent)
        return row_set, operation.next_batch < len(operation.batches)

    # -- metadata calls of the connector's cursor

    def GetCatalogs(self, req: Any) -> Any:
        return self._metadata_call(req, ttypes.TGetCatalogsResp, "SHOW CATALOGS")

    def GetSchemas(self, req: Any) -> Any:
        query = (
            "SELECT schema_name AS TABLE_SCHEM, catalog_name AS TABLE_CATALOG "
            f"FROM {self._information_schema(req)}.schemata WHERE "
            f"schema_name LIKE {literal(req.schemaName or '%')} ORDER BY 1"
        )
        return self._metadata_call(req, ttypes.TGetSchemasResp, query)

    def GetTables(self, req: Any) -> Any:
        query = (
            "SELECT table_catalog AS TABLE_CAT, table_schema AS TABLE_SCHEM, "
            "table_name AS TABLE_NAME, "
            "'TABLE' AS TABLE_TYPE, coalesce(comment, '') AS REMARKS "
            f"FROM {self._information_schema(req)}.tables "
            f"WHERE table_schema LIKE {literal(req.schemaName or '%')} "
            f"AND table_name LIKE {literal(req.tableName or '%')} ORDER BY 2, 3"
        )
        return self._metadata_call(req, ttypes.TGetTablesResp, query)

    def GetColumns(self, req: Any) -> Any:
        query = (
            "SELECT table_catalog AS TABLE_CAT, table_schema AS TABLE_SCHEM, "
            "table_name AS TABLE_NAME, "
            "column_name AS COLUMN_NAME, upper(full_data_type) AS TYPE_NAME, "
            "ordinal_position AS ORDINAL_POSITION, is_nullable AS IS_NULLABLE "
            f"FROM {self._information_schema(req)}.columns "
            f"WHERE table_schema LIKE {literal(req.schemaName or '%')} "
            f"AND table_name LIKE {literal(req.tableName or '%')} "
            f"AND column_name LIKE {literal(req.columnName or '%')} ORDER BY 2, 3, 6"
        )
        return self._metadata_call(req, ttypes.TGetColumnsResp, query)

    def _information_schema(self, req: Any) -> str:
        session = self._sessions.get(req.sessionHandle.sessionId.guid)
        catalog = req.catalogName or (session.catalog if session else self.default_catalog)
        return f"`{catalog}`.information_schema"

    def _metadata_call(self, req: Any, response: Any, query: str) -> Any:
        execute = ttypes.TExecuteStatementReq(
            sessionHandle=req.sessionHandle,
            statement=query,
            getDirectResults=ttypes.TSparkGetDirectResults(maxRows=_BATCH_ROWS),
        )
        made = self.ExecuteStatement(execute)
        return response(
            status=made.status,
            operationHandle=made.operationHandle,
            directResults=made.directResults,
        )


def _answered(fault: Fault | None) -> None:
    """The answer is on its way, and may be lost."""
    if fault is not None and fault.kind == "drop_after":
        raise Interrupt(DropConnection())


def _failed(message: str) -> Any:
    return ttypes.TStatus(statusCode=ttypes.TStatusCode.ERROR_STATUS, errorMessage=message)


def _no_operation() -> Any:
    return ttypes.TStatus(
        statusCode=ttypes.TStatusCode.INVALID_HANDLE_STATUS,
        errorMessage="Invalid OperationHandle: the operation is closed or was never open.",
    )


def _parameters(given: Any) -> dict[str | int, str]:
    """Native parameters as SQL text, by name or position."""
    found: dict[str | int, str] = {}
    for number, parameter in enumerate(given):
        value = parameter.value and parameter.value.stringValue
        kind = (parameter.type or "STRING").upper()
        text = "NULL" if value is None or kind == "VOID" else f"CAST({literal(value)} AS {kind})"
        found[parameter.name or number] = text
    return found


# -- results


_TYPE_IDS = {
    pa.bool_(): "BOOLEAN_TYPE",
    pa.int8(): "TINYINT_TYPE",
    pa.int16(): "SMALLINT_TYPE",
    pa.int32(): "INT_TYPE",
    pa.int64(): "BIGINT_TYPE",
    pa.float32(): "FLOAT_TYPE",
    pa.float64(): "DOUBLE_TYPE",
    pa.binary(): "BINARY_TYPE",
    pa.large_binary(): "BINARY_TYPE",
    pa.date32(): "DATE_TYPE",
    pa.null(): "NULL_TYPE",
}


def _type_entry(arrow: pa.DataType) -> Any:
    ids = ttypes.TTypeId
    if pa.types.is_decimal(arrow):
        value = ttypes.TTypeQualifierValue
        qualifiers = {
            "precision": value(i32Value=arrow.precision),
            "scale": value(i32Value=arrow.scale),
        }
        return ttypes.TPrimitiveTypeEntry(
            type=ids.DECIMAL_TYPE, typeQualifiers=ttypes.TTypeQualifiers(qualifiers=qualifiers)
        )
    name = _TYPE_IDS.get(arrow, "STRING_TYPE")
    if pa.types.is_timestamp(arrow):
        name = "TIMESTAMP_TYPE"
    elif pa.types.is_list(arrow) or pa.types.is_large_list(arrow):
        name = "ARRAY_TYPE"
    elif pa.types.is_map(arrow):
        name = "MAP_TYPE"
    elif pa.types.is_struct(arrow):
        name = "STRUCT_TYPE"
    return ttypes.TPrimitiveTypeEntry(type=getattr(ids, name))


def _metadata(result: Result) -> Any:
    schema = result.rows.schema
    columns = [
        ttypes.TColumnDesc(
            columnName=field.name,
            position=position,
            typeDesc=ttypes.TTypeDesc(
                types=[ttypes.TTypeEntry(primitiveEntry=_type_entry(field.type))]
            ),
        )
        for position, field in enumerate(schema, start=1)
    ]
    return ttypes.TGetResultSetMetadataResp(
        status=_OK,
        schema=ttypes.TTableSchema(columns=columns),
        resultFormat=ttypes.TSparkRowSetType.ARROW_BASED_SET,
        lz4Compressed=False,
        arrowSchema=schema.serialize().to_pybytes(),
        isStagingOperation=result.staging,
    )
