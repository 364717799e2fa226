"""Small parts of the dlt destination, each by itself."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from adapters.dlt_destination.columns import same, widens
from adapters.dlt_destination.dlt.errors import root_cause
from adapters.dlt_destination.failures import scrubbed
from adapters.dlt_destination.files.parquet import write_chunks
from adapters.dlt_destination.sql.dialect import DUCKDB, SPARK, Dialect

if TYPE_CHECKING:
    from pathlib import Path

TYPES = [
    pa.bool_(),
    pa.int16(),
    pa.int32(),
    pa.int64(),
    pa.float32(),
    pa.float64(),
    pa.decimal128(38, 0),
    pa.decimal128(12, 2),
    pa.string(),
    pa.binary(),
    pa.date32(),
    pa.timestamp("us"),
    pa.timestamp("us", tz="UTC"),
]


@pytest.mark.parametrize("dialect", [DUCKDB, SPARK])
@pytest.mark.parametrize("arrow_type", TYPES, ids=str)
def test_types_go_there_and_back(dialect: Dialect, arrow_type: pa.DataType) -> None:
    assert dialect.arrow_type(dialect.sql_type(arrow_type)) == arrow_type


def test_a_foreign_type_has_no_arrow_type() -> None:
    assert DUCKDB.arrow_type("STRUCT(a INTEGER)") is None
    assert not same(None, pa.int64())


def test_quotes_are_doubled() -> None:
    assert DUCKDB.quote('a"b') == '"a""b"'
    assert SPARK.quote("a`b") == "`a``b`"


@pytest.mark.parametrize(
    ("narrow", "wide", "does"),
    [
        (pa.int16(), pa.int32(), True),
        (pa.int16(), pa.int64(), True),
        (pa.int32(), pa.int64(), True),
        (pa.int64(), pa.int32(), False),
        (pa.int32(), pa.float64(), False),
        (pa.float32(), pa.float64(), True),
        (pa.decimal128(5, 2), pa.decimal128(6, 2), True),
        (pa.decimal128(5, 2), pa.decimal128(6, 3), False),
        (pa.decimal128(5, 2), pa.decimal128(5, 2), False),
        (pa.date32(), pa.timestamp("us"), False),
    ],
    ids=str,
)
def test_widening(narrow: pa.DataType, wide: pa.DataType, *, does: bool) -> None:
    assert widens(narrow, wide) is does


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Conversion Error: 'O''Brien' is no INT\nLINE 1: secret", "Conversion Error: … is no INT"),
        ('key "id: 4711" twice, value 42', "key … twice, value …"),
        ("no INT: 'it's a secret' at all", "no INT: … at all"),
        ("an unclosed 'quote with a secret", "an unclosed …"),
        ("", "ValueError"),
    ],
)
def test_values_are_masked(text: str, shown: str) -> None:
    assert scrubbed(ValueError(text)).removeprefix("ValueError: ") == shown


def test_the_root_cause_is_found_in_a_ring_too() -> None:
    outer, inner = ValueError("outer"), KeyError("inner")
    outer.__cause__, inner.__cause__ = inner, outer
    assert root_cause(outer) is inner


def test_files_and_row_groups_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adapters.dlt_destination.files.parquet.ROW_GROUP_ROWS", 10)
    monkeypatch.setattr("adapters.dlt_destination.files.parquet.FILE_ROWS", 40)
    schema = pa.schema([("n", pa.int64())])
    pieces = [pa.table([pa.array(range(size))], schema=schema) for size in (3, 0, 4, 25, 60, 1)]
    paths, rows = write_chunks(iter(pieces), schema, tmp_path, "x")
    assert rows == 93
    assert pa.concat_tables(map(pq.read_table, paths)) == pa.concat_tables(pieces)
    for path in paths:
        with pq.ParquetFile(path) as file:
            groups = [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)]
            assert max(groups) <= 10
    empty, rows = write_chunks(iter(()), schema, tmp_path, "y")
    assert (rows, pq.read_table(empty[0]).schema) == (0, schema)


def test_naming_a_destination_does_not_import_dlt() -> None:
    script = (
        "import sys; from adapters.dlt_destination.register import build;"
        "from adapters.dlt_destination.settings import PipelineSettings as S;"
        "build('duckdb', S('p', 'd'), {'credentials': 'x'}, dict);"
        "build('delta', S('p', 'd'), {'bucket_url': 'x'}, dict);"
        "print({'dlt', 'duckdb', 'deltalake'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.stdout == "set()\n", result.stderr
