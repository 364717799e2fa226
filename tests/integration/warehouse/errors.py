"""Errors as a SQL warehouse words them: `[CLASS] message SQLSTATE: state`.

Clients classify by the class in the text, so the classes here are the ones of the Databricks error
reference, and nothing but this file spells a SQLSTATE.
"""

from __future__ import annotations

import re

#: Error class -> SQLSTATE.
SQLSTATES = {
    "CAST_INVALID_INPUT": "22018",
    "CAST_OVERFLOW": "22003",
    "COPY_INTO_SCHEMA_MISMATCH_WITH_TARGET_TABLE": "42KDG",
    "COPY_INTO_SOURCE_SCHEMA_INFERENCE_FAILED": "42KD9",
    "DATATYPE_MISMATCH": "42K09",
    "DELTA_CONCURRENT_APPEND": "2D521",
    "DELTA_CONCURRENT_DELETE_DELETE": "2D521",
    "DELTA_CONCURRENT_DELETE_READ": "2D521",
    "DELTA_CONCURRENT_TRANSACTION": "2D521",
    "DELTA_CONCURRENT_WRITE": "2D521",
    "DELTA_DUPLICATE_COLUMNS_FOUND": "42711",
    "DELTA_CONSTRAINT_ALREADY_EXISTS": "42710",
    "DELTA_CONSTRAINT_DOES_NOT_EXIST": "42704",
    "DELTA_CONSTRAINT_DEPENDENT_COLUMN_CHANGE": "42K09",
    "DELTA_FAILED_TO_MERGE_FIELDS": "22005",
    "DELTA_FEATURES_REQUIRE_MANUAL_ENABLEMENT": "0AKDE",
    "DELTA_IDENTITY_COLUMNS_EXPLICIT_INSERT_NOT_SUPPORTED": "42808",
    "DELTA_NEW_CHECK_CONSTRAINT_VIOLATION": "23512",
    "DELTA_NEW_NOT_NULL_VIOLATION": "23512",
    "DELTA_INSERT_COLUMN_ARITY_MISMATCH": "42802",
    "DELTA_INVALID_CHARACTERS_IN_COLUMN_NAMES": "42K05",
    "DELTA_METADATA_CHANGED": "2D521",
    "DELTA_MULTIPLE_SOURCE_ROW_MATCHING_TARGET_ROW_IN_MERGE": "21506",
    "DELTA_NESTED_SUBQUERY_NOT_SUPPORTED": "0A000",
    "DELTA_NOT_NULL_CONSTRAINT_VIOLATED": "23502",
    "DELTA_PROTOCOL_CHANGED": "2D521",
    "DELTA_UNSUPPORTED_ALTER_TABLE_CHANGE_COL_OP": "0AKDC",
    "DELTA_UNSUPPORTED_DROP_COLUMN": "0AKDC",
    "DELTA_UNSUPPORTED_RENAME_COLUMN": "0AKDC",
    "DELTA_VIOLATE_CONSTRAINT_WITH_VALUES": "23001",
    "DIVIDE_BY_ZERO": "22012",
    "FEATURE_NOT_IN_LOCAL_WAREHOUSE": "0A000",
    "FIELD_ALREADY_EXISTS": "42710",
    "INCOMPATIBLE_DATA_FOR_TABLE.CANNOT_SAFELY_CAST": "KD000",
    "INSUFFICIENT_PERMISSIONS": "42501",
    "INTERNAL_ERROR": "XX000",
    "INVALID_PARAMETER_VALUE": "22023",
    "NO_SUCH_CATALOG_EXCEPTION": "42704",
    "PARSE_SYNTAX_ERROR": "42601",
    "PATH_NOT_FOUND": "42K03",
    "PERMISSION_DENIED": "42501",
    "SCHEMA_ALREADY_EXISTS": "42P06",
    "SCHEMA_NOT_EMPTY": "2BP01",
    "SCHEMA_NOT_FOUND": "42704",
    "TABLE_OR_VIEW_ALREADY_EXISTS": "42P07",
    "TABLE_OR_VIEW_NOT_FOUND": "42P01",
    "TEMP_TABLE_OR_VIEW_ALREADY_EXISTS": "42P07",
    "TRANSACTION_NOT_SUPPORTED": "0A000",
    "UNAUTHORIZED_ACCESS": "42501",
    "UNRESOLVED_COLUMN.WITH_SUGGESTION": "42703",
    "VOLUME_ALREADY_EXISTS": "42000",
    "VOLUME_DOES_NOT_EXIST": "42000",
    "WRONG_COLUMN_DEFAULTS_FOR_DELTA_ALTER_TABLE_ADD_COLUMN_NOT_SUPPORTED": "0AKDC",
    "WRONG_COLUMN_DEFAULTS_FOR_DELTA_FEATURE_NOT_ENABLED": "0AKDE",
}


class SqlError(Exception):
    """A statement failed; `str()` is the text that the client sees."""

    def __init__(self, error_class: str, message: str) -> None:
        self.error_class = error_class
        main = error_class.partition(".")[0]
        self.sql_state = SQLSTATES.get(error_class, SQLSTATES.get(main, "XX000"))
        super().__init__(f"[{error_class}] {message} SQLSTATE: {self.sql_state}")


def table_not_found(name: str) -> SqlError:
    return SqlError(
        "TABLE_OR_VIEW_NOT_FOUND",
        f"The table or view {name} cannot be found. Verify the spelling and correctness of the "
        "schema and catalog.",
    )


def schema_not_found(name: str) -> SqlError:
    return SqlError(
        "SCHEMA_NOT_FOUND",
        f"The schema {name} cannot be found. Verify the spelling and correctness of the schema "
        "and catalog.",
    )


def syntax_error(detail: str) -> SqlError:
    return SqlError("PARSE_SYNTAX_ERROR", f"Syntax error: {detail}.")


def unsupported(what: str) -> SqlError:
    return SqlError("FEATURE_NOT_IN_LOCAL_WAREHOUSE", f"The local warehouse has no {what}.")


#: What the engine says -> the class that a warehouse gives; the first match counts.
_ENGINE_ERRORS = (
    ("MERGE_CARDINALITY_VIOLATION", "DELTA_MULTIPLE_SOURCE_ROW_MATCHING_TARGET_ROW_IN_MERGE"),
    ("TABLE_OR_VIEW_NOT_FOUND", "TABLE_OR_VIEW_NOT_FOUND"),
    ("parse error", "PARSE_SYNTAX_ERROR"),
    (
        r"cannot resolve|is missing from the schema|No field named",
        "UNRESOLVED_COLUMN.WITH_SUGGESTION",
    ),
    ("Cannot cast string|Error parsing", "CAST_INVALID_INPUT"),
    ("Can't cast value|[Oo]verflow", "CAST_OVERFLOW"),
    ("Divide by zero", "DIVIDE_BY_ZERO"),
    ("incompatible types", "DATATYPE_MISMATCH"),
    (r"non-nullable|NOT NULL|contains null|DELTA_NOT_NULL", "DELTA_NOT_NULL_CONSTRAINT_VIOLATED"),
    ("[Cc]ommit conflict|concurrent", "DELTA_CONCURRENT_APPEND"),
    ("not implemented|unsupported|not supported", "FEATURE_NOT_IN_LOCAL_WAREHOUSE"),
)


def from_engine(text: str) -> SqlError:
    """The engine's failure as the warehouse would report it, its own words kept as the detail."""
    detail = re.sub(r"^.*?(?:\[FlightSQL\]|error, with message:) ", "", text, flags=re.DOTALL)
    detail = re.sub(r"\s+", " ", re.split(r"\. (?:gRPC|Client) ", detail)[0])[:2000]
    if own := re.search(r"\[([A-Z][A-Z_]+(?:\.[A-Z_]+)?)\] ", detail):
        return SqlError(own[1], detail[own.end() :])
    for pattern, error_class in _ENGINE_ERRORS:
        if re.search(pattern, text):
            return SqlError(error_class, detail)
    return SqlError("INTERNAL_ERROR", detail)
