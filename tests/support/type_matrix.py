"""Every type of the contract with its odd values, and wide tables that hold them all.

One column a type, one row a value. Three tables are made of the same list: the types themselves,
a domain over each, and an array of each. What is expected is never written here: PostgreSQL's own
text is (see `tests.support.oracle`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import psycopg

#: Types of the user's own that the list names.
SETUP = """
CREATE TYPE mood AS ENUM ('sad', 'so so', 'qu"ote', 'ünï', 'a,b', '');
CREATE TYPE pair AS (n int, note text);
CREATE TYPE textrange AS RANGE (subtype = text);
CREATE DOMAIN positive AS int CHECK (value > 0);
CREATE DOMAIN more_positive AS positive CHECK (value > 1);
CREATE DOMAIN price AS numeric(6,2);
CREATE DOMAIN ids AS int[];
CREATE CAST (bytea AS xml) WITHOUT FUNCTION;
"""

_ODD_TEXTS = (
    "", " ", "NULL", "null", "\\N", "\\", "\\\\.", "\\.", "a\tb", "a\nb", "a\r\nb", "\x01\x1f\x7f",
    "'", '"', "';--", "a,b", "{}", "{a}", "[1]", "%s", "$1", "äöü", "e\u0301", "🐘𝒳", "\ufeffbom",
    "\u2028", "\u200f", "\ufffd", "\uffff", "𠀋" * 40, "  both  ",
)  # fmt: skip
_LONG = "".join(chr(0x21 + n * 7 % 90) for n in range(3000))
_DIGITS = "1234567890"


@dataclass(frozen=True)
class TypeCase:
    """A type and values of it, each as text that its input function takes.

    `long` is a value that is stored out of line. `since` is the first major that knows the type;
    `extension` what must be installed. `late` are values that only newer majors take.
    """

    declaration: str
    values: tuple[str, ...]
    long: str | None = None
    since: int = 14
    extension: str = ""
    late: tuple[tuple[int, str], ...] = ()
    #: The SQL that makes a value of a text; else the input function does.
    made_by: str = "{}"

    @property
    def name(self) -> str:
        """A column's name that tells the type."""
        plain = self.declaration.replace("[]", "_array").replace('"', "quoted_", 1)
        kept = "".join(c if c.isalnum() else "_" for c in plain)
        return kept.strip("_").replace("__", "_")

    def texts(self, major: int) -> tuple[str, ...]:
        late = tuple(text for since, text in self.late if major >= since)
        return (*self.values, *late, *((self.long,) if self.long else ()))


def _many(text: str, count: int) -> str:
    return ",".join(text for _ in range(count))


SCALARS: tuple[TypeCase, ...] = (
    TypeCase("boolean", ("t", "f")),
    TypeCase("smallint", ("0", "-32768", "32767")),
    TypeCase("integer", ("0", "-2147483648", "2147483647")),
    TypeCase("bigint", ("0", "-9223372036854775808", "9223372036854775807", "9007199254740993")),
    TypeCase(
        "real",
        ("0", "-0", "0.1", "NaN", "Infinity", "-Infinity", "3.4028235e38", "1e-45", "16777216",
         "1.17549435e-38", "-1.5"),
    ),
    TypeCase(
        "double precision",
        ("0", "-0", "0.1", "NaN", "Infinity", "-Infinity", "5e-324", "1.7976931348623157e308",
         "2.2250738585072014e-308", "1e23", "9007199254740993", "-1.5"),
    ),
    TypeCase("numeric(12,2)", ("0", "-0.01", "9999999999.99", "-9999999999.99", "1.5", "NaN")),
    TypeCase("numeric(38,0)", ("9" * 38, "-" + "9" * 38, "0", "NaN")),
    TypeCase("numeric(38,38)", ("0." + "9" * 38, "-0." + "0" * 37 + "1", "0", "NaN")),
    TypeCase("numeric(38,10)", ("9" * 28 + "." + "9" * 10, "-1", "NaN")),
    TypeCase("numeric(5,5)", ("0.99999", "-0.00001", "0")),
    TypeCase("numeric(1,0)", ("9", "-9", "0.4")),
    TypeCase("numeric(39,2)", ("9" * 37 + ".99", "-0.01", "NaN")),
    TypeCase("numeric(1000,500)", ("1", "9" * 500 + "." + "9" * 500, "NaN")),
    TypeCase("numeric(5,-2)", ("12345", "0", "-9999900", "NaN"), since=15),
    TypeCase("numeric(3,5)", ("0.00123", "-0.00999", "0", "NaN"), since=15),
    TypeCase(
        "numeric",
        ("0", "0.00", "-0.10", "1e131071", "1e-16383", "NaN", "Infinity", "-Infinity",
         _DIGITS * 5 + "." + _DIGITS * 5),
        long=_DIGITS * 900,
    ),
    TypeCase("text", _ODD_TEXTS, long=_LONG),
    TypeCase("character varying", _ODD_TEXTS, long=_LONG),
    TypeCase("character varying(10)", ("", "🐘" * 10, "  x  ")),
    TypeCase("character(5)", ("", "a", "🐘", " ä", "abcde")),
    TypeCase("bpchar", ("", "a  ", " a")),
    TypeCase("name", ("", "a", "Ä" * 31, '"quoted"')),
    TypeCase('"char"', ("", "a", " ", "\\")),
    TypeCase("citext", ("Aa", "aA", "", "ÄÖ"), long=_LONG, extension="citext"),
    TypeCase("mood", ("sad", "so so", 'qu"ote', "ünï", "a,b", "")),
    TypeCase(
        "uuid",
        ("00000000-0000-0000-0000-000000000000", "{A0EEBC99-9C0B4EF8-BB6D6BB9-BD380A11}"),
    ),
    # A server that was built without libxml has the type, but no way to make a value of text.
    TypeCase("xml", ("<a>&amp;</a>", "<a b='\"'/>", "text", "<ä>🐘\n</ä>"), long="<a/>" * 800,
             made_by="convert_to({}, 'UTF8')::xml"),
    TypeCase("inet", ("10.0.0.1", "10.0.0.1/8", "::1", "::1/64", "::ffff:1.2.3.4", "0.0.0.0/0")),
    TypeCase("cidr", ("10.0.0.0/8", "10.0.0.1/32", "::/0", "2001:db8::/32")),
    TypeCase("macaddr", ("08:00:2b:01:02:03", "ff-ff-ff-ff-ff-ff")),
    TypeCase("macaddr8", ("08:00:2b:01:02:03:04:05", "08:00:2b:01:02:03")),
    TypeCase("bit(3)", ("101", "000")),
    TypeCase("bit varying", ("", "1", "0" * 40), long="10" * 9000),
    TypeCase("bit varying(5)", ("", "10101")),
    TypeCase("money", ("0", "-1000.5", "92233720368547758.07", "-92233720368547758.08")),
    TypeCase("tsvector", ("", "a:1A b:2,3", "'it''s' 'a b' '\\\\'"), long=" ".join(
        f"w{n:04}:{n + 1}" for n in range(600))),
    TypeCase("tsquery", ("a & !b", "'a b':*A | (c <2> d)")),
    TypeCase("int4range", ("empty", "[1,5]", "(,)", "[-2147483648,)")),
    TypeCase("int8range", ("empty", "[1,9223372036854775807)")),
    TypeCase("numrange", ("empty", "[1.50,2.0]", "(,NaN]", "[-Infinity,1e100)")),
    TypeCase("tsrange", ("empty", "[2020-01-01 00:00:00.5,infinity)", "(,'0044-03-15 BC']")),
    TypeCase("tstzrange", ("empty", "[2020-01-01 00:00:00+02,2020-01-02 00:00:00-07]", "(,)")),
    TypeCase("daterange", ("empty", "[2020-01-01,2020-02-29]", "[-infinity,infinity]")),
    TypeCase("textrange", ('["a,b","c""d"]', "(,)", '["",z)', '["\\\\",]'),
             long=f"[a,{'z' * 3000}]"),
    TypeCase("int4multirange", ("{}", "{[1,3),[5,9)}", "{(,)}"), long="{" + ",".join(
        f"[{n},{n + 1})" for n in range(0, 1000, 2)) + "}"),
    TypeCase("nummultirange", ("{}", "{[1.5,2.50]}")),
    TypeCase("tsmultirange", ("{}", "{[2020-01-01,2020-01-02)}")),
    TypeCase("tstzmultirange", ("{}", "{[2020-01-01 00:00+02,infinity)}")),
    TypeCase("datemultirange", ("{}", "{[2020-01-01,2020-02-29]}")),
    TypeCase("int8multirange", ("{}", "{[1,3),[5,9)}")),
    TypeCase("point", ("(0,0)", "(-0,1.5)", "(NaN,Infinity)", "(1e300,5e-324)")),
    TypeCase("line", ("{1,-1,0}", "{0.5,0,-3}")),
    TypeCase("lseg", ("[(0,0),(1,1)]",)),
    TypeCase("box", ("(1,1),(0,0)", "(0,0),(-1,2)")),
    TypeCase("path", ("[(0,0),(1,1)]", "((0,0),(1,1),(2,0))"), long=f"[{_many('(1.5,2)', 200)}]"),
    TypeCase("polygon", ("((0,0),(1,1),(2,0))",), long=f"({_many('(1.5,2)', 200)})"),
    TypeCase("circle", ("<(0,0),1>", "<(1.5,-0),0>")),
    TypeCase("pair", ("(1,a)", '(1,"a b")', "(,)", '(,"")', '(2,"(x,""y"")")', '(3,"\\\\")',
                      '(4,"a,b")'),
             long=f"(1,{'z' * 3000})"),
    TypeCase(
        "hstore",
        ("", "a=>1,b=>NULL", '"a b"=>"c\\"d", ""=>""', "ä=>🐘"),
        long=",".join(f"k{n}=>v{n}" for n in range(400)),
        extension="hstore",
    ),
    TypeCase(
        "interval",
        ("0", "1 year -1 mons +3 days -04:05:06.789", "-1 day 24:00:00", "178000000 years",
         "-00:00:00.000001", "1 day ago"),
        late=((17, "infinity"), (17, "-infinity")),
    ),
    TypeCase("interval day to second(3)", ("1 day 02:03:04.5678",)),
    TypeCase("time", ("00:00", "24:00:00", "23:59:59.999999", "12:00:00.1")),
    TypeCase("time(0)", ("23:59:59.6",)),
    TypeCase("timetz", ("00:00+00", "24:00:00-15:59:59", "12:00:00.5+05:30")),
    TypeCase(
        "date",
        ("1970-01-01", "0001-01-01", "9999-12-31", "1582-10-04", "1582-10-15", "1900-02-28",
         "2024-02-29", "infinity", "-infinity", "0044-03-15 BC", "4713-01-01 BC", "10000-01-01",
         "5874897-12-31"),
    ),
    TypeCase(
        "timestamp",
        ("1970-01-01", "0001-01-01 00:00:00", "9999-12-31 23:59:59.999999",
         "1969-12-31 23:59:59.999999", "1582-10-04 12:00:00", "2024-03-31 02:30:00.000001",
         "2016-12-31 23:59:60", "infinity", "-infinity", "4713-01-01 00:00:00 BC",
         "10000-01-01 00:00:00", "294276-12-31 23:59:59.999999"),
    ),
    TypeCase("timestamp(0)", ("2020-01-01 00:00:00.5", "9999-12-31 23:59:59.4")),
    TypeCase(
        "timestamptz",
        ("1970-01-01 00:00+00", "0001-01-01 00:00:00+00", "9999-12-31 23:59:59.999999+00",
         "1900-01-01 00:00:00+05:30", "2024-03-31 02:30:00 Europe/Berlin",
         "2024-10-27 02:30:00 Europe/Berlin", "1883-11-18 12:03:57 America/New_York",
         "infinity", "-infinity", "4714-11-24 00:00:00+00 BC", "0001-01-01 00:00:00+01",
         "9999-12-31 23:59:59-01", "294276-12-31 23:59:59.999999+00"),
    ),
    TypeCase("timestamptz(3)", ("2020-01-01 00:00:00.0005+00",)),
    TypeCase("bytea", ("\\x", "\\x00", "\\x00ff5c2278", "\\x" + bytes(range(256)).hex()),
             long="\\x" + "00ff" * 2000),
    TypeCase(
        "json",
        ("null", "1e400", '{"a" :  1, "a": 2}', '"\\u0000"', '" \\ud83d\\udc18 "', " [1 ,2]\n",
         '{"ä": "🐘"}', "-0.0", "1.10"),
        long='["' + "y" * 3000 + '"]',
    ),
    TypeCase(
        "jsonb",
        ("null", "1e400", '{"b": 1, "a": [null, 1.10, -0.0]}', '" \\ud83d\\udc18 "', "[]", '""',
         "12345678901234567890.12345678901234567890", '{"": {"a b": "\\t"}}'),
        long='["' + "y" * 3000 + '"]',
    ),
    TypeCase("jsonpath", ('$."a b"[*] ? (@ > 1)', "strict $.x"),
             long=f'$."{"z" * 3000}"'),
    TypeCase("pg_lsn", ("0/0", "FFFFFFFF/FFFFFFFF", "16/B374D848")),
    TypeCase("oid", ("0", "4294967295")),
    TypeCase("xid", ("4294967295",)),
    TypeCase("xid8", ("18446744073709551615",)),
    TypeCase("cid", ("1",)),
    TypeCase("tid", ("(0,1)", "(4294967295,65535)")),
    TypeCase("regclass", ("pg_class", "-", '"pg_catalog"."pg_type"')),
    TypeCase("regtype", ("integer", "pg_catalog.\"char\"")),
    TypeCase("regproc", ("now",)),
    TypeCase("regprocedure", ("abs(integer)",)),
    TypeCase("regoperator", ("+(integer,integer)",)),
    TypeCase("regrole", ("pg_monitor",)),
    TypeCase("regnamespace", ("pg_catalog",)),
    TypeCase("regconfig", ("english",)),
    TypeCase("refcursor", ("a b",)),
    TypeCase("int2vector", ("", "1 2 -3")),
    TypeCase("oidvector", ("", "1 4294967295")),
    TypeCase("txid_snapshot", ("10:20:10,14",)),
    TypeCase("pg_snapshot", ("10:20:10,14",)),
    TypeCase("aclitem", ("=r/postgres",)),
    TypeCase("positive", ("1",)),
    TypeCase("more_positive", ("2147483647",)),
    TypeCase("price", ("12.50", "-9999.99", "NaN")),
    TypeCase("ids", ("{}", "{1,NULL}", "[0:1]={1,2}")),
)  # fmt: skip

#: Arrays whose shape matters; arrays of every type are made of `SCALARS`.
ARRAYS: tuple[TypeCase, ...] = (
    TypeCase(
        "integer[]",
        ("{}", "{NULL}", "{1,NULL,3}", "{{1,2},{3,NULL}}", "[0:1]={1,2}",
         "[-2:-1][5:6]={{1,2},{3,NULL}}", "{{{{{{1}}}}}}", "{-2147483648,2147483647}"),
        long="{" + _many("1234567", 900) + "}",
    ),
    TypeCase("boolean[]", ("{}", "{t,f,NULL}", "{{t},{f}}")),
    TypeCase("double precision[]", ("{NaN,Infinity,-Infinity,-0,0,1e300,5e-324,NULL}", "{{1.5}}")),
    TypeCase("numeric[]", ("{1.50,NaN,-Infinity,1e100,NULL}", "{{0.00},{1e-10}}"),
             long="{" + _many("1.10", 900) + "}"),
    TypeCase("numeric(5,2)[]", ("{1,NaN}",)),
    TypeCase(
        "text[]",
        ("{}", "{NULL}", '{"NULL",null,NULL}', '{""}', '{"a\\"b","c\\\\d","{","}","a,b"," "}',
         "[5:6]={a,b}", '{{a,NULL},{"\n\t","🐘"}}', '{"\x01\x7f",ä}', "{{{a}}}", '{"\ufeff"}'),
        long="{" + _many("abcdefg", 900) + "}",
    ),
    TypeCase("mood[]", ('{sad,"so so","qu\\"ote",NULL,""}',)),
    TypeCase("box[]", ("{(1,1),(0,0);(2,2),(1,1)}", "{}")),
    TypeCase("ids[]", ('{"{1,2}","{NULL}","{}"}',)),
    TypeCase("pair[]", ('{"(1,\\"a b\\")",NULL,"(,)"}',)),
)  # fmt: skip

CASES = (*SCALARS, *ARRAYS)


def as_array(case: TypeCase, major: int) -> TypeCase:
    """An array of every value of a type."""
    quoted = (
        '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"' for text in case.texts(major)
    )
    delimiter = ";" if case.declaration == "box" else ","
    everything = "{" + delimiter.join(["NULL", *quoted]) + "}"
    return replace(
        case, declaration=f"{case.declaration}[]", values=("{}", everything), long=None, late=()
    )


def available(connection: psycopg.Connection[tuple[object, ...]]) -> tuple[TypeCase, ...]:
    """The cases that this server knows; extensions are created."""
    major = connection.info.server_version // 10_000
    rows = connection.execute("SELECT name FROM pg_available_extensions").fetchall()
    extensions = {str(name) for (name,) in rows}
    for name in sorted({case.extension for case in CASES if case.extension in extensions}):
        connection.execute(f'CREATE EXTENSION IF NOT EXISTS "{name}"'.encode())
    return tuple(
        case for case in CASES if case.since <= major and case.extension in {"", *extensions}
    )


@dataclass(frozen=True)
class WideTable:
    """A table with a column for each case, an `id` before and an `n` behind them."""

    name: str
    cases: Sequence[TypeCase]
    #: The columns' types: the cases' own, unless they are domains over them.
    types: Sequence[str]
    setup: str = ""

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(case.name for case in self.cases)

    def create(self, key: str = "PRIMARY KEY") -> str:
        columns = ", ".join(
            f'"{case.name}" {type_}' for case, type_ in zip(self.cases, self.types, strict=True)
        )
        external = ", ".join(
            f'ALTER "{case.name}" SET STORAGE EXTERNAL' for case in self.cases if case.long
        )
        alter = f"ALTER TABLE {self.name} {external};" if external else ""
        # What can be out of line is, as far as the row is wide enough for anything to be.
        return (
            f"{self.setup} CREATE TABLE {self.name} (id int {key}, {columns}, n int DEFAULT 0)"
            f" WITH (toast_tuple_target = 128); {alter}"
        )

    def rows(self, major: int) -> Iterator[tuple[str | None, ...]]:
        """Rows until every value of every case has come; the first and the last all NULL."""
        texts = [case.texts(major) for case in self.cases]
        yield (None,) * len(texts)
        for number in range(max(map(len, texts), default=0)):
            # Long values together, in the last row but one.
            yield tuple(
                column[number - max(map(len, texts))]
                if number >= max(map(len, texts)) - len(column)
                else None
                for column in texts
            )
        yield (None,) * len(texts)

    def insert(
        self, connection: psycopg.Connection[tuple[object, ...]], major: int, first_id: int
    ) -> None:
        """Insert `rows` under ids from `first_id` on."""
        names = ", ".join(f'"{name}"' for name in ("id", *self.columns))
        places = ", ".join(
            ["%s"]
            + [
                f"{case.made_by.format('%s')}::{type_}"
                for case, type_ in zip(self.cases, self.types, strict=True)
            ]
        )
        statement = f"INSERT INTO {self.name} ({names}) VALUES ({places})"
        with connection.cursor() as cursor:
            cursor.executemany(
                statement.encode(),
                [(first_id + number, *row) for number, row in enumerate(self.rows(major))],
            )


def wide_tables(cases: Sequence[TypeCase], major: int) -> tuple[WideTable, ...]:
    """The types themselves, a domain over each, an array of each."""
    domains = "".join(f'CREATE DOMAIN "d_{case.name}" AS {case.declaration};' for case in cases)
    arrays = [
        as_array(case, major)
        for case in cases
        if not case.declaration.endswith("[]") and case.declaration != "xml"
    ]
    return (
        WideTable("types", cases, [case.declaration for case in cases]),
        WideTable("domains", cases, [f'"d_{case.name}"' for case in cases], domains),
        WideTable("arrays", arrays, [case.declaration for case in arrays]),
    )
