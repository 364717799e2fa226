"""What a destination must hold, told from PostgreSQL's own text and the contract alone.

Knows nothing of the product: it asks the catalog for types, reads every cell as the text that the
type's output function prints, and says for each what the contract makes of it. A cell is compared
as text, in a form in which equal text means equal value: floats in hexadecimal, so that -0.0 is not
0.0.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Protocol

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from decimal import Decimal

    import psycopg

    Connection = psycopg.Connection[tuple[object, ...]]

METADATA = ("_cdc_lsn", "_cdc_committed_at")
UNREPRESENTABLE = "_cdc_unrepresentable"

_SESSION = """
SET TimeZone = 'UTC'; SET DateStyle = 'ISO, YMD'; SET IntervalStyle = 'postgres';
SET bytea_output = 'hex'; SET extra_float_digits = 1; SET client_encoding = 'UTF8';
SET search_path = pg_catalog, public
"""

#: What a destination may make of a type: Arrow's names, where they are not text.
_HELD: dict[str, tuple[pa.DataType, ...]] = {
    "boolean": (pa.bool_(),),
    "smallint": (pa.int16(), pa.int32(), pa.int64()),
    "integer": (pa.int32(), pa.int64()),
    "bigint": (pa.int64(),),
    "real": (pa.float32(), pa.float64()),
    "double precision": (pa.float64(),),
    "bytea": (pa.binary(), pa.large_binary()),
    "date": (pa.date32(),),
    "timestamp without time zone": (pa.timestamp("us"),),
    "timestamp with time zone": (pa.timestamp("us", "UTC"),),
}
_INTEGERS = ("smallint", "integer", "bigint")
_NUMBERS = (*_INTEGERS, "real", "double precision", "numeric")


class Odd(str):
    """A text that the destination's type cannot hold."""

    __slots__ = ()


Cell = str | None


class Lake(Protocol):
    """A destination as a stranger reads it."""

    def read(self, table: str) -> pa.Table:
        """The whole table with every column, in the columns' order."""
        ...


@dataclass(frozen=True)
class Type:
    """A type below all domains: its name without a modifier, and an array's element."""

    name: str
    typmod: int
    element: Type | None = None
    delimiter: str = ","

    @property
    def decimal(self) -> tuple[int, int] | None:
        if self.name != "numeric" or self.typmod < 4:
            return None
        packed = self.typmod - 4
        precision, scale = packed >> 16, packed & 0x7FF
        scale = scale - 0x800 if scale >= 0x400 else scale
        return (precision, scale) if precision <= 38 and 0 <= scale <= precision else None

    def held_as(self) -> tuple[pa.DataType, ...]:
        if self.decimal:
            return (pa.decimal128(*self.decimal),)
        return _HELD.get(self.name, (pa.string(), pa.large_string()))

    def expected(self, text: str | None) -> Cell:
        """What the destination must hold for PostgreSQL's text; `Odd` where it cannot."""
        if text is None:
            return None
        if self.element is not None:
            return _json(_items(text, self.element.delimiter), self.element)
        match self.name:
            case "real":
                return float(np.float32(text)).hex()
            case "double precision":
                return float(text).hex()
            case "numeric" if self.decimal:
                return text if re.fullmatch(r"-?[0-9.]+", text) else Odd(text)
            case "date":
                return text if re.fullmatch(r"\d{4}-\d\d-\d\d", text) else Odd(text)
            case "timestamp without time zone" | "timestamp with time zone":
                return _instant(text)
            case _:
                return text


def _instant(text: str) -> str:
    if not re.fullmatch(r"\d{4}-\d\d-\d\d [0-9:.]+(\+00)?", text):
        return Odd(text)
    return datetime.fromisoformat(text).isoformat()


def held(value: object) -> Cell:
    """A destination's value in the form of `Type.expected`."""
    match value:
        case None | str():
            return value
        case bool():
            return "t" if value else "f"
        case int():
            return str(value)
        case float():
            return value.hex()
        case bytes():
            return "\\x" + value.hex()
        case datetime():
            return (value.astimezone(UTC) if value.tzinfo else value).isoformat()
        case date():
            return value.isoformat()
    number: Decimal = value  # type: ignore[assignment]
    return format(number, "f")


def _items(text: str, delimiter: str) -> list[object]:
    """PostgreSQL's text of an array as nested lists of texts and None."""
    if text.startswith("["):
        text = text[text.index("=") + 1 :]
    place = 0

    def array() -> list[object]:
        nonlocal place
        place += 1
        found: list[object] = []
        while text[place] != "}":
            if text[place] == delimiter:
                place += 1
            elif text[place] == "{":
                found.append(array())
            elif text[place] == '"':
                found.append(quoted())
            else:
                end = place
                while text[end] not in delimiter + "}":
                    end += 1
                word, place = text[place:end], end
                found.append(None if word == "NULL" else word)
        place += 1
        return found

    def quoted() -> str:
        nonlocal place
        place += 1
        letters = []
        while text[place] != '"':
            place += text[place] == "\\"
            letters.append(text[place])
            place += 1
        place += 1
        return "".join(letters)

    return array()


def _json(item: object, element: Type) -> str:
    match item:
        case None:
            return "null"
        case list():
            return f"[{','.join(_json(inner, element) for inner in item)}]"
    text = str(item)
    if element.element is not None:
        return _json(_items(text, element.element.delimiter), element.element)
    if element.name == "boolean":
        return {"t": "true", "f": "false"}[text]
    if element.name in _NUMBERS and text not in ("NaN", "Infinity", "-Infinity"):
        return text
    return json.dumps(text, ensure_ascii=False)


@dataclass(frozen=True)
class Column:
    name: str
    type: Type


@dataclass(frozen=True)
class SourceRows:
    """A table of the source: columns in their order, and every row's texts."""

    columns: tuple[Column, ...]
    rows: list[tuple[Cell, ...]]
    key: tuple[str, ...]


class Source:
    """Reads tables of a database as they are now."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        connection.execute(_SESSION)
        self._types = {
            oid: (str(name), base, typmod, element, str(delimiter))
            for oid, name, base, typmod, element, delimiter in connection.execute(
                "SELECT oid, format_type(oid, NULL), typbasetype, typtypmod, "
                "CASE WHEN typcategory = 'A' AND typlen = -1 AND typsubscript <> 0 "
                "AND oid NOT IN (22, 30) THEN typelem ELSE 0 END, typdelim FROM pg_type"
            )
        }

    def _type(self, oid: object, typmod: object) -> Type:
        name, base, base_typmod, element, delimiter = self._types[oid]
        if base:
            return self._type(base, base_typmod)
        inner = self._type(element, typmod) if element else None
        return Type(name, int(str(typmod)), inner, delimiter)

    def columns(self, table: str) -> tuple[Column, ...]:
        """Live columns, in order; without generated ones that the server does not send."""
        kinds = ("", "s") if self._connection.info.server_version >= 180_000 else ("",)
        found = self._connection.execute(
            "SELECT attname::text, atttypid, atttypmod FROM pg_attribute "
            "WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped "
            "AND attgenerated::text = ANY (%s) ORDER BY attnum",
            [table, list(kinds)],
        )
        return tuple(Column(str(name), self._type(oid, typmod)) for name, oid, typmod in found)

    def read(self, table: str) -> SourceRows:
        """`table` as SQL names it; a partitioned one with its partitions, else itself only."""
        columns = self.columns(table)
        kind = self._connection.execute(
            "SELECT relkind::text FROM pg_class WHERE oid = %s::regclass", [table]
        ).fetchone()
        only = "" if kind == ("p",) else "ONLY "
        names = ", ".join(_quote(column.name) for column in columns)
        # Below the driver, which would make Python values of the texts.
        result = self._connection.pgconn.exec_(f"SELECT {names} FROM {only}{table}".encode())
        if result.error_message:
            raise AssertionError(result.error_message.decode())
        rows = [
            tuple(
                None if (cell := result.get_value(row, place)) is None else cell.decode()
                for place in range(len(columns))
            )
            for row in range(result.ntuples)
        ]
        key = self._connection.execute(
            "SELECT a.attname::text FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid "
            "AND a.attnum = ANY (i.indkey) WHERE i.indrelid = %s::regclass AND i.indisprimary "
            "ORDER BY a.attnum",
            [table],
        ).fetchall()
        return SourceRows(columns, rows, tuple(str(name) for (name,) in key))


def _quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def differences(
    source: SourceRows, stored: pa.Table, columns: Iterable[str] | None = None
) -> Iterator[str]:
    """What differs between a table and its copy, a sentence each; `columns` limits it to these."""
    chosen = [
        (place, column)
        for place, column in enumerate(source.columns)
        if columns is None or column.name in columns
    ]
    own = [name for name in stored.column_names if not name.startswith(("_cdc_", "_dlt_"))]
    missing = [column.name for _, column in chosen if column.name not in own]
    if missing:
        yield f"columns {missing} are missing"
        return
    live = [column.name for column in source.columns]
    if [name for name in own if name in live] != live:
        yield f"columns are in another order: {own}, not {live}"
    for _, column in chosen:
        found = stored.schema.field(column.name).type
        if found not in column.type.held_as():
            yield f"column {column.name} of type {column.type.name} is {found}"
    wanted = Counter(
        tuple(_known(column.type.expected(row[place])) for place, column in chosen)
        for row in source.rows
    )
    lists = [stored.column(column.name).to_pylist() for _, column in chosen]
    held_rows = (
        Counter(tuple(held(value) for value in row) for row in zip(*lists, strict=True))
        if lists
        else Counter({(): len(stored)})
    )
    for row, count in (wanted - held_rows).items():
        yield f"missing {count}: {_brief(row)}"
    for row, count in (held_rows - wanted).items():
        yield f"surplus {count}: {_brief(row)}"


def _brief(row: tuple[Cell, ...]) -> tuple[Cell, ...]:
    return tuple(c if c is None or len(c) < 100 else f"{c[:20]}… of {len(c)}" for c in row)


def _known(cell: Cell) -> Cell:
    return None if isinstance(cell, Odd) else cell


def unexpected_columns(source: SourceRows, stored: pa.Table, dropped: Sequence[str]) -> list[str]:
    """Columns that are neither the source's, nor were, nor metadata."""
    known = {*(column.name for column in source.columns), *dropped, *METADATA}
    return [n for n in stored.column_names if n not in known and not n.startswith("_dlt_")]


def odd_cells(source: SourceRows, table: str) -> Counter[tuple[str, str, str, str]]:
    """(table, column, key, text) of every cell that its destination type cannot hold."""
    places = {column.name: place for place, column in enumerate(source.columns)}
    found: Counter[tuple[str, str, str, str]] = Counter()
    for row in source.rows:
        for column, text in zip(source.columns, row, strict=True):
            cell = column.type.expected(text)
            if isinstance(cell, Odd):
                key = {name: row[places[name]] for name in source.key}
                found[table, column.name, json.dumps(key, ensure_ascii=False), str(cell)] += 1
    return found


def recorded_cells(lake: Lake) -> Counter[tuple[str, str, str, str]]:
    rows = lake.read(UNREPRESENTABLE).to_pylist()
    return Counter(
        (row["table_name"], row["column_name"], row["key"], row["value_text"]) for row in rows
    )


def assert_equal(connection: Connection, lake: Lake, tables: Iterable[str]) -> None:
    """Every one of these tables of schema public, cell by cell."""
    source = Source(connection)
    try:
        for table in tables:
            found = list(differences(source.read(_quote(table)), lake.read(table)))
            assert not found, f"table {table}: " + "\n".join(found[:20])
    finally:
        connection.execute("RESET ALL")  # the session is the caller's
