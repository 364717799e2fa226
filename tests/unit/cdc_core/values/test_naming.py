"""Names are kept where they can be, and never merged."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.dlt_destination.sql import log_sql, merge_sql, version_sql
from cdc_core.tables.target_names import target_names
from cdc_core.values.naming import (
    RESERVED_COLUMNS,
    TableNaming,
    is_name_of,
    map_columns,
    map_names,
    map_tables,
)
from cdc_core.values.relation import TableName


@pytest.mark.parametrize(
    ("names", "mapped"),
    [
        (["id", "Name", "größe", "a b", "$x", 'q"q'], ["id", "Name", "größe", "a b", "$x", 'q"q']),
        (["id", "ID", "Id"], ["id", "ID_2", "Id_3"]),
        (["ID", "id_2", "id"], ["ID", "id_2", "id_3"]),
        (["_cdc_lsn", "_CDC_OP", "x"], ["_cdc_lsn_2", "_CDC_OP_2", "x"]),
    ],
)
def test_columns(names: list[str], mapped: list[str]) -> None:
    assert list(map_columns(names).items()) == list(zip(names, mapped, strict=True))


def test_a_forbidden_character_gives_way_to_the_plain_name() -> None:
    assert map_names(["a.b", "a_b"], forbidden=".") == {"a.b": "a_b_2", "a_b": "a_b"}


def test_tables_of_other_schemas_are_prefixed_and_never_merge() -> None:
    tables = [TableName("a", "b"), TableName("public", "a__b"), TableName("public", "o.rders")]
    assert list(map_tables(tables, "public").values()) == ["a__b_2", "a__b", "o_rders"]


def test_a_destination_has_names_of_its_own_and_keeps_those_it_was_given() -> None:
    naming = TableNaming(forbidden=".[", reserved=("init",))
    tables = [TableName("public", name) for name in ("a[b", "a_b", "INIT", "a.b")]
    found = target_names(dict(enumerate(tables)), {}, "public", naming)
    assert list(found.values()) == ["a_b_2", "a_b", "INIT_2", "a_b_3"]
    for number, table in enumerate(tables):
        assert is_name_of(found[number], table, "public", naming)
    assert is_name_of("a[b", tables[0], "public", naming)
    assert not is_name_of("a[b", tables[1], "public", naming)


def test_no_table_has_a_name_like_dlts_own() -> None:
    table = TableName("_DLT_app", "t")
    assert map_tables([table], "public") == {table: "__DLT_app__t"}
    assert is_name_of("__DLT_app__t", table, "public")
    own = TableName("public", "_DLT_LOADS")
    assert map_tables([own], "public") == {own: "__DLT_LOADS"}
    assert is_name_of("__DLT_LOADS", own, "public")


def test_columns_of_a_merge_are_reserved() -> None:
    texts = [Path(module.__file__).read_text() for module in (merge_sql, log_sql, version_sql)]
    own = {name for text in texts for name in re.findall(r"_cdc_[a-z_]+", text)}
    own -= {"_cdc_e", "_cdc_t"}  # tables
    own -= {"_cdc_a", "_cdc_b"}  # followed by a number, beside no column of a table
    assert own
    assert own <= set(RESERVED_COLUMNS)


@given(
    st.lists(st.text("aAbB_2.ſs", min_size=1, max_size=4), unique=True),
    st.lists(st.sampled_from(["a", "B", "a_2"])),
)
def test_never_two_alike(names: list[str], reserved: list[str]) -> None:
    mapping = map_names(names, reserved, ".")
    assert list(mapping) == names
    folded = [name.casefold() for name in mapping.values()]
    assert len(set(folded)) == len(folded)
    assert not {name.casefold() for name in reserved} & set(folded)
    assert mapping == map_names(names, reserved, ".")
