"""PostgreSQL's types by OID: name, kind, base type, element type, and how a modifier is printed.

Built-in types are known without a catalog, because their OIDs never change. The others come from
rows of `pg_type`. `type_rules` maps a type to Arrow.
Source: PostgreSQL manual, "Data Types", "pg_type"; `src/include/catalog/pg_type.dat`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Kind = Literal["base", "array", "enum", "domain", "composite", "range", "multirange", "other"]

#: A row of `pg_type`: oid, name (as `format_type` prints it), typtype, typcategory, typbasetype,
#: typtypmod, typelem, typdelim.
CatalogRow = tuple[int, str, str, str, int, int, int, str]

BOOL, BYTEA, INT8, INT2, INT4, TEXT = 16, 17, 20, 21, 23, 25
JSON, JSONB = 114, 3802
FLOAT4, FLOAT8, NUMERIC = 700, 701, 1700
DATE, TIMESTAMP, TIMESTAMPTZ = 1082, 1114, 1184
BPCHAR, VARCHAR, BIT, VARBIT = 1042, 1043, 1560, 1562
TIME, TIMETZ, INTERVAL = 1083, 1266, 1186

#: Arrays by category that print as plain text without braces.
_VECTORS = frozenset({22, 30})

_MAX_DECIMAL_DIGITS = 38
_VARHDRSZ = 4


@dataclass(frozen=True)
class PgType:
    """A type.

    `name` is the output of `format_type` without a modifier. `base` is a domain's base type, and
    `typmod` the modifier that the domain gives it. `element` is an array's element type.
    `delimiter` separates values of this type in an array.
    """

    oid: int
    name: str
    kind: Kind = "base"
    base: PgType | None = None
    element: PgType | None = None
    delimiter: str = ","
    typmod: int = -1
    #: An array that is read as a list; `typmod` is then its elements'.
    is_list: bool = False

    def resolve(self, typmod: int = -1) -> tuple[PgType, int]:
        """The type and modifier below all domains."""
        resolved = self
        while resolved.base is not None:
            resolved, typmod = resolved.base, resolved.typmod
        return resolved, typmod


def numeric_shape(typmod: int) -> tuple[int, int] | None:
    """Precision and scale of a DECIMAL; None where only text keeps all digits."""
    if typmod < _VARHDRSZ:
        return None
    precision, scale = _precision_and_scale(typmod)
    if 1 <= precision <= _MAX_DECIMAL_DIGITS and 0 <= scale <= precision:
        return precision, scale
    return None


def format_type(pg_type: PgType, typmod: int = -1) -> str:
    """The type as `format_type(oid, typmod)` prints it (an interval's fields left out)."""
    if pg_type.element is not None:
        return f"{format_type(pg_type.element, typmod)}[]"
    name = pg_type.name
    if typmod < 0:
        return {BPCHAR: "bpchar", BIT: '"bit"'}.get(pg_type.oid, name)
    match pg_type.oid:
        case 1700 if typmod >= _VARHDRSZ:
            precision, scale = _precision_and_scale(typmod)
            return f"{name}({precision},{scale})"
        case 1042 | 1043 if typmod >= _VARHDRSZ:
            return f"{name}({typmod - _VARHDRSZ})"
        case 1560 | 1562:
            return f"{name}({typmod})"
        case 1083 | 1266 | 1114 | 1184:
            head, _, tail = name.partition(" ")
            return f"{head}({typmod}) {tail}"
        case 1186:
            precision = typmod & 0xFFFF
            return name if precision == 0xFFFF else f"{name}({precision})"
        case _:
            return name


def _precision_and_scale(typmod: int) -> tuple[int, int]:
    packed = typmod - _VARHDRSZ
    return packed >> 16 & 0xFFFF, ((packed & 0x7FF) ^ 0x400) - 0x400


class TypeMap:
    """Types by OID."""

    def __init__(self, types: Mapping[int, PgType] | None = None) -> None:
        self._types = dict(_BUILT_IN if types is None else types)

    def __contains__(self, oid: int) -> bool:
        return oid in self._types

    def __getitem__(self, oid: int) -> PgType:
        """The type. An unknown one is text, named after its OID."""
        known = self._types.get(oid)
        return PgType(oid, f"type {oid}", "other") if known is None else known

    def with_user_types(self, rows: Iterable[CatalogRow]) -> TypeMap:
        """This map plus rows of the catalog, in any order. Built-in types stay as they are."""
        return TypeMap(_resolved(self._types, {row[0]: row for row in rows}))


_KINDS: Mapping[str, Kind] = {
    "b": "base",
    "c": "composite",
    "d": "domain",
    "e": "enum",
    "r": "range",
    "m": "multirange",
}


def _resolved(known: Mapping[int, PgType], rows: Mapping[int, CatalogRow]) -> dict[int, PgType]:
    types = dict(known)
    in_progress: set[int] = set()

    def resolve(oid: int) -> PgType:
        if oid in types:
            return types[oid]
        row = rows.get(oid)
        if row is None or oid in in_progress:
            return PgType(oid, f"type {oid}", "other")
        in_progress.add(oid)
        _, name, typtype, category, base, typmod, element, delimiter = row
        if typtype == "d":
            made = PgType(oid, name, "domain", resolve(base), None, delimiter, typmod)
        elif typtype == "b" and category == "A" and element and oid not in _VECTORS:
            made = PgType(oid, name, "array", None, resolve(element), delimiter)
        else:
            made = PgType(oid, name, _KINDS.get(typtype, "other"), None, None, delimiter)
        types[oid] = made
        return made

    for oid in rows:
        resolve(oid)
    return types


#: OID, OID of its array (0: none), name.
_BUILT_IN_TYPES = """
16 1000 boolean
17 1001 bytea
18 1002 "char"
19 1003 name
20 1016 bigint
21 1005 smallint
22 1006 int2vector
23 1007 integer
24 1008 regproc
25 1009 text
26 1028 oid
27 1010 tid
28 1011 xid
29 1012 cid
30 1013 oidvector
114 199 json
142 143 xml
194 0 pg_node_tree
600 1017 point
601 1018 lseg
602 1019 path
603 1020 box
604 1027 polygon
628 629 line
650 651 cidr
700 1021 real
701 1022 double precision
718 719 circle
774 775 macaddr8
790 791 money
829 1040 macaddr
869 1041 inet
1033 1034 aclitem
1042 1014 character
1043 1015 character varying
1082 1182 date
1083 1183 time without time zone
1114 1115 timestamp without time zone
1184 1185 timestamp with time zone
1186 1187 interval
1266 1270 time with time zone
1560 1561 bit
1562 1563 bit varying
1700 1231 numeric
1790 2201 refcursor
2202 2207 regprocedure
2203 2208 regoper
2204 2209 regoperator
2205 2210 regclass
2206 2211 regtype
2950 2951 uuid
2970 2949 txid_snapshot
3220 3221 pg_lsn
3361 0 pg_ndistinct
3402 0 pg_dependencies
3614 3643 tsvector
3615 3645 tsquery
3642 3644 gtsvector
3734 3735 regconfig
3769 3770 regdictionary
3802 3807 jsonb
3904 3905 int4range
3906 3907 numrange
3908 3909 tsrange
3910 3911 tstzrange
3912 3913 daterange
3926 3927 int8range
4072 4073 jsonpath
4089 4090 regnamespace
4096 4097 regrole
4191 4192 regcollation
4451 6150 int4multirange
4532 6151 nummultirange
4533 6152 tsmultirange
4534 6153 tstzmultirange
4535 6155 datemultirange
4536 6157 int8multirange
5017 0 pg_mcv_list
5038 5039 pg_snapshot
5069 271 xid8
"""


def _built_in_kind(name: str) -> Kind:
    if name.endswith("multirange"):
        return "multirange"
    return "range" if name.endswith("range") else "base"


def _built_in() -> dict[int, PgType]:
    types: dict[int, PgType] = {}
    for line in _BUILT_IN_TYPES.split("\n")[1:-1]:
        oid, array_oid, name = line.split(" ", 2)
        delimiter = ";" if name == "box" else ","
        element = PgType(int(oid), name, _built_in_kind(name), delimiter=delimiter)
        types[element.oid] = element
        if int(array_oid):
            array = PgType(int(array_oid), f"{name}[]", "array", None, element, delimiter)
            types[array.oid] = array
    return types


_BUILT_IN = _built_in()
