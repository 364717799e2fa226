"""A Spark Connect server in front of the same statements, as a job on Databricks has a session.

A real client of PySpark talks to it. It carries `spark.sql` and the rows of its results, nothing
else, with the rules, the faults and the log of the warehouse. What only the connector understands
(PUT, GET, LIST, REMOVE) is a syntax error here, as it is in Spark.
Source: Apache Spark, `sql/connect/common/src/main/protobuf`.
"""

from __future__ import annotations

import json
import re
import threading
import uuid
from concurrent import futures
from typing import TYPE_CHECKING, Any

import grpc
import pyarrow as pa
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status
from pyspark.sql.connect.proto import base_pb2 as base
from pyspark.sql.connect.proto import base_pb2_grpc as base_grpc
from pyspark.sql.connect.proto import relations_pb2 as relations
from pyspark.sql.connect.types import pyspark_types_to_proto_types
from pyspark.sql.pandas.types import from_arrow_schema

from . import errors
from .thrift_service import Interrupt

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .session import Session
    from .thrift_service import Service

_QUERY = re.compile(r"[\s(]*(?:SELECT|WITH|VALUES|TABLE|DESC|DESCRIBE|SHOW)\b", re.IGNORECASE)
_CONNECTORS_OWN = re.compile(r"\s*(?:PUT|GET|LIST|REMOVE)\b", re.IGNORECASE)
_BATCH_ROWS = 10_000


class SparkConnectServer(base_grpc.SparkConnectServiceServicer):
    """Listens on a free port of this machine."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._sessions: dict[str, Session] = {}
        self._settings: dict[str, dict[str, str]] = {}
        #: Responses of each operation, which a client may ask for again.
        self._responses: dict[str, list[base.ExecutePlanResponse]] = {}
        self._lock = threading.Lock()
        self._server = grpc.server(futures.ThreadPoolExecutor(32, "spark-connect"))
        base_grpc.add_SparkConnectServiceServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    def stop(self) -> None:
        self._server.stop(None)

    def ExecutePlan(
        self, request: base.ExecutePlanRequest, context: grpc.ServicerContext
    ) -> Iterator[base.ExecutePlanResponse]:
        responses: list[base.ExecutePlanResponse] = []
        try:
            found, lost = self._executed(request)
        except errors.SqlError as error:
            context.abort_with_status(rpc_status.to_status(_status(error)))
        except Interrupt:
            # The client asks for the operation, which is not there, and sends it again.
            context.abort(grpc.StatusCode.UNAVAILABLE, "the connection was dropped")
        responses = [_response(request, **fields) for fields in found]
        complete = base.ExecutePlanResponse.ResultComplete()
        responses.append(_response(request, result_complete=complete))
        with self._lock:
            self._responses[request.operation_id] = responses
        if lost:
            context.abort(grpc.StatusCode.UNAVAILABLE, "the connection was dropped")
        yield from responses

    def _executed(self, request: base.ExecutePlanRequest) -> tuple[list[dict[str, Any]], bool]:
        """The responses of a plan, and whether they are lost on the way."""
        plan, lost = request.plan, False
        if plan.HasField("command"):
            command = plan.command.sql_command
            text = command.input.sql.query or command.sql
            if _QUERY.match(text):
                relation = relations.Relation(sql=relations.SQL(query=text))
            else:
                rows, lost = self._run(request, text)
                local = relations.LocalRelation(data=_stream(rows))
                relation = relations.Relation(local_relation=local)
            result = base.ExecutePlanResponse.SqlCommandResult(relation=relation)
            return [{"sql_command_result": result}], lost
        relation = plan.root
        if relation.HasField("local_relation"):
            rows = pa.ipc.open_stream(relation.local_relation.data).read_all()
        elif relation.HasField("sql"):
            rows, lost = self._run(request, relation.sql.query)
        else:
            raise errors.unsupported(f"a plan of kind {relation.WhichOneof('rel_type')}")
        found: list[dict[str, Any]] = [{"schema": _schema(rows.schema)}]
        start = 0
        for batch in rows.to_batches(max_chunksize=_BATCH_ROWS):
            data = _stream(pa.Table.from_batches([batch]))
            arrow = base.ExecutePlanResponse.ArrowBatch(
                row_count=batch.num_rows, data=data, start_offset=start
            )
            start += batch.num_rows
            found.append({"arrow_batch": arrow})
        return found, lost

    def _run(self, request: base.ExecutePlanRequest, text: str) -> tuple[pa.Table, bool]:
        if _CONNECTORS_OWN.match(text):
            raise errors.syntax_error(f"near '{text.split(maxsplit=1)[0]}'")
        with self._lock:
            if request.session_id not in self._sessions:
                self._service.recorder.count("sessions")
                self._sessions[request.session_id] = self._service.new_session()
            session = self._sessions[request.session_id]
        result, lost = self._service.run(session, text)
        return result.rows, lost

    def ReattachExecute(
        self, request: base.ReattachExecuteRequest, context: grpc.ServicerContext
    ) -> Iterator[base.ExecutePlanResponse]:
        responses = self._responses.get(request.operation_id)
        if responses is None:
            gone = "[INVALID_HANDLE.OPERATION_NOT_FOUND] The operation is not there."
            code = grpc.StatusCode.INTERNAL.value[0]
            context.abort_with_status(
                rpc_status.to_status(status_pb2.Status(code=code, message=gone))
            )
        ids = [response.response_id for response in responses or ()]
        last = request.last_response_id
        yield from (responses or ())[ids.index(last) + 1 if last in ids else 0 :]

    def ReleaseExecute(
        self, request: base.ReleaseExecuteRequest, context: grpc.ServicerContext
    ) -> base.ReleaseExecuteResponse:
        if request.HasField("release_all"):
            with self._lock:
                self._responses.pop(request.operation_id, None)
        return base.ReleaseExecuteResponse(
            session_id=request.session_id, operation_id=request.operation_id
        )

    def AnalyzePlan(
        self, request: base.AnalyzePlanRequest, context: grpc.ServicerContext
    ) -> base.AnalyzePlanResponse:
        answer = base.AnalyzePlanResponse(
            session_id=request.session_id, server_side_session_id=request.session_id
        )
        if request.HasField("spark_version"):
            answer.spark_version.version = "4.0.0"
        else:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "only spark.sql and its rows")
        return answer

    def Config(
        self, request: base.ConfigRequest, context: grpc.ServicerContext
    ) -> base.ConfigResponse:
        settings = self._settings.setdefault(request.session_id, {})
        operation = request.operation
        pairs = []
        if operation.HasField("set"):
            settings |= {pair.key: pair.value for pair in operation.set.pairs}
        elif operation.HasField("get"):
            pairs = [base.KeyValue(key=k, value=settings.get(k)) for k in operation.get.keys]
        elif operation.HasField("get_option"):
            pairs = [base.KeyValue(key=k, value=settings.get(k)) for k in operation.get_option.keys]
        elif operation.HasField("get_with_default"):
            pairs = [
                base.KeyValue(key=pair.key, value=settings.get(pair.key, pair.value))
                for pair in operation.get_with_default.pairs
            ]
        return base.ConfigResponse(
            session_id=request.session_id, server_side_session_id=request.session_id, pairs=pairs
        )

    def ReleaseSession(
        self, request: base.ReleaseSessionRequest, context: grpc.ServicerContext
    ) -> base.ReleaseSessionResponse:
        with self._lock:
            if self._sessions.pop(request.session_id, None) is not None:
                self._service.recorder.count("sessions_closed")
        return base.ReleaseSessionResponse(
            session_id=request.session_id, server_side_session_id=request.session_id
        )


def _response(request: base.ExecutePlanRequest, **fields: Any) -> base.ExecutePlanResponse:
    return base.ExecutePlanResponse(
        session_id=request.session_id,
        server_side_session_id=request.session_id,
        operation_id=request.operation_id,
        response_id=str(uuid.uuid4()),
        **fields,
    )


def _schema(schema: pa.Schema) -> Any:
    """As Spark's own types; a type of no other name is text."""
    plain = pa.schema(
        [pa.field(f.name, pa.string() if pa.types.is_null(f.type) else f.type) for f in schema]
    )
    return pyspark_types_to_proto_types(from_arrow_schema(plain, prefer_timestamp_ntz=True))


def _stream(rows: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows)
    return sink.getvalue().to_pybytes()


def _status(error: errors.SqlError) -> status_pb2.Status:
    """As Spark Connect words the errors of Spark."""
    kind = "org.apache.spark.sql.AnalysisException"
    if error.error_class == "PARSE_SYNTAX_ERROR":
        kind = "org.apache.spark.sql.catalyst.parser.ParseException"
    details = any_pb2.Any()
    details.Pack(
        error_details_pb2.ErrorInfo(
            reason=kind,
            domain="org.apache.spark",
            metadata={
                "classes": json.dumps([kind, "java.lang.Exception"]),
                "errorClass": error.error_class,
                "sqlState": error.sql_state,
            },
        )
    )
    return status_pb2.Status(
        code=grpc.StatusCode.INTERNAL.value[0], message=str(error), details=[details]
    )
