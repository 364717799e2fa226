"""From rules and a table to the rules of that table; errors name rule, table and column."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Literal

import pyarrow as pa
import pytest

from cdc_core.ports.catalog import SourceTable
from cdc_core.tables.schema_change import first_state, rules_changed
from cdc_core.tables.table_rules import RuleSet, rules_shown
from cdc_core.values.checkpoint import Checkpoint, SourceIdentity
from cdc_core.values.errors import RulesError
from cdc_core.values.fingerprint import Fingerprint
from cdc_core.values.lsn import Lsn
from cdc_core.values.masks import Hasher
from cdc_core.values.relation import Column, Relation, ReplicaIdentity, TableName
from cdc_core.values.table_rules import NO_RULES, ColumnRule, Rule, TableRules

COLUMNS = ("id", "email", "phone", "tmp_a", "tmp_b")


def table(*key: str, columns: tuple[str, ...] = COLUMNS, name: str = "people") -> SourceTable:
    relation = Relation(
        1,
        TableName("public", name),
        tuple(Column(c, pa.int64(), 20, attnum=n) for n, c in enumerate(columns, start=1)),
        ReplicaIdentity.DEFAULT,
        key,
    )
    return SourceTable(relation, Fingerprint(), published=True)


def ruled(
    *rules: Rule, key: tuple[str, ...] = ("id",), hasher: Hasher | None = None
) -> SourceTable:
    return RuleSet(rules, hasher).apply(table(*key))


def rules_of(found: SourceTable) -> dict[str, str]:
    return {c.name: c.rule.value for c in found.relation.columns if c.rule is not ColumnRule.KEEP}


def test_a_table_that_no_rule_matches_stays_as_it_is() -> None:
    found = ruled(Rule(("public.other",), deletes="soft"))
    assert found == table("id")
    assert found.rules is NO_RULES


def test_the_order_of_histories_makes_no_difference() -> None:
    other = ruled(Rule(("*",), history=("scd2", "log", "scd2")))
    assert other.rules == ruled(Rule(("*",), history=("log", "scd2"))).rules
    assert other.rules.history == ("log", "scd2")


def test_later_rules_win_key_by_key() -> None:
    found = ruled(
        Rule(("public.*",), history=("log",), deletes="soft", mask={"email": "null"}),
        Rule(("people",), history=(), mask={"phone": "last4"}),
        Rule(("public.other",), deletes="hard"),
    )
    assert found.rules == TableRules(deletes="soft")
    assert rules_of(found) == {"phone": "last4"}


HASH_ALL = {"*": "null", "tmp_?": "last4", "id": "hash", "tmp_b": "null"}


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (
            {"exclude_columns": ("tmp_*", "phone")},
            {"phone": "exclude", "tmp_a": "exclude", "tmp_b": "exclude"},
        ),
        ({"include_columns": ("id", "tmp_*")}, {"email": "exclude", "phone": "exclude"}),
        (
            {"mask": HASH_ALL},
            {"id": "hash", "email": "null", "phone": "null", "tmp_a": "last4", "tmp_b": "null"},
        ),
        ({"exclude_columns": ("email",), "mask": {"email": "null"}}, {"email": "exclude"}),
    ],
)
def test_rules_of_columns(rule: dict, expected: dict[str, str]) -> None:
    found = ruled(Rule(("people",), **rule), hasher=Hasher(b"k"))
    assert rules_of(found) == expected
    types = {c.name: c.arrow_type for c in found.relation.columns}
    for name in COLUMNS:
        text = expected.get(name) in ("hash", "last4")
        assert types[name] == (pa.string() if text else pa.int64())


@pytest.mark.parametrize("json_as", ["variant", "canonical"])
def test_json_and_arrays_in_types_of_their_own(json_as: Literal["variant", "canonical"]) -> None:
    columns = (
        Column("id", pa.int64(), 20, attnum=1),
        Column("body", pa.string(), 3802, attnum=2, logical="json"),
        Column("tags", pa.string(), 1009, attnum=3, element_type=pa.string()),
        Column("secret", pa.string(), 3802, attnum=4, logical="json"),
    )
    found = table("id")
    found = replace(found, relation=replace(found.relation, columns=columns))
    rule = Rule(("people",), json=json_as, arrays="array", mask={"secret": "last4"})
    source, found = found, RuleSet([rule]).apply(found)
    assert rules_of(found) == {"body": json_as, "tags": "array", "secret": "last4"}
    assert found.relation.column("tags").arrow_type == pa.list_(pa.string())
    state = first_state(found, "people", Lsn(1))
    assert state.target_table.variants == {"body"}
    assert rules_shown(found)["columns"]["body"] == "variant"
    # A recording of one destination replays at another.
    other = RuleSet([replace(rule, json="variant")]).apply(source)
    assert not rules_changed(state, other)
    assert rules_changed(state, RuleSet([replace(rule, json="string")]).apply(source))


@pytest.mark.parametrize(
    ("rule", "key", "words"),
    [
        ({"exclude_columns": ("nope",)}, ("id",), ["exclude_columns", "nope", "does not have"]),
        ({"include_columns": ("id", "nope")}, ("id",), ["include_columns", "nope", "does not"]),
        ({"mask": {"nope": "null"}}, ("id",), ["mask", "nope", "does not have"]),
        ({"cluster_by": ("nope",)}, ("id",), ["cluster_by", "nope", "does not have"]),
        ({"cluster_by": ("*",)}, ("id",), ["cluster_by", "*", "does not have"]),
        ({"cluster_by": ("phone",), "exclude_columns": ("phone",)}, (), ["phone", "excluded"]),
        ({"exclude_columns": ("i*",)}, ("id",), ["exclude_columns", "'id'", "key"]),
        ({"include_columns": ("email",)}, ("id",), ["include_columns", "'id'", "key"]),
        ({"mask": {"id": "null"}}, ("id",), ["mask", "'id'", "null", "only be hashed"]),
        ({"mask": {"*": "last4"}}, ("id",), ["mask", "'id'", "last4", "only be hashed"]),
        ({"mask": {"email": "hash"}}, ("id",), ["mask", "email", "mask_key", "MASK_KEY"]),
        ({"history": ("scd2",)}, (), ["history", "scd2", "needs a key"]),
        ({"deletes": "soft"}, (), ["deletes", "soft", "needs a key"]),
    ],
)
def test_rules_that_do_not_fit_name_rule_table_and_column(
    rule: dict, key: tuple[str, ...], words: list[str]
) -> None:
    with pytest.raises(RulesError) as refused:
        ruled(Rule(("x",), deletes="hard"), Rule(("pub*.people",), **rule), key=key)
    message = str(refused.value)
    expected = ["rule 2", "pub*.people", "public.people", *words]
    assert [word for word in expected if word not in message] == []
    assert refused.value.exit_code == 2


def test_include_and_exclude_of_two_rules() -> None:
    with pytest.raises(RulesError, match=re.escape("rule 2") + ".*include_columns"):
        ruled(Rule(("*",), include_columns=("id",)), Rule(("people",), exclude_columns=("email",)))


def test_globs_of_no_table_are_named() -> None:
    rules = RuleSet([Rule(("people", "public.gone")), Rule(("no*",))])
    found = rules.unmatched([TableName("public", "people")])
    assert [(name.split(" of ")[0], glob) for name, glob in found] == [
        ("rule 1", "public.gone"),
        ("rule 2", "no*"),
    ]


def test_rules_that_make_the_same_of_a_table_count_as_unchanged() -> None:
    hasher = Hasher(b"k")
    one = ruled(Rule(("people",), mask={"email": "hash"}), hasher=hasher)
    state = first_state(one, "people", Lsn(1))
    same = ruled(Rule(("*",), deletes="hard"), Rule(("p*",), mask={"em*": "hash"}), hasher=hasher)
    assert not rules_changed(state, same)
    others = [
        table("id"),
        ruled(Rule(("people",), mask={"email": "hash"}), hasher=Hasher(b"other")),
        ruled(Rule(("people",), mask={"email": "last4"})),
        ruled(Rule(("people",), mask={"email": "hash"}, history=("log",)), hasher=hasher),
        ruled(Rule(("people",), mask={"email": "hash"}, cluster_by="auto"), hasher=hasher),
    ]
    assert [rules_changed(state, other) for other in others] == [True] * len(others)


def test_a_changed_key_does_not_matter_to_a_table_without_hashes() -> None:
    rule = Rule(("people",), mask={"email": "last4"})
    state = first_state(ruled(rule, hasher=Hasher(b"a")), "people", Lsn(1))
    assert not rules_changed(state, ruled(rule, hasher=Hasher(b"b")))


def test_the_checkpoint_keeps_rules_and_not_the_key() -> None:
    rules = Rule(
        ("people",), ("log",), "soft", ("phone",), None, {"email": "hash"}, cluster_by=("id",)
    )
    state = first_state(ruled(rules, hasher=Hasher(b"very-hidden")), "people", Lsn(1))
    before = Checkpoint(SourceIdentity("1", "db", "slot"), Lsn(1), {1: state})
    written = before.to_state()
    assert "very-hidden" not in str(written)
    after = Checkpoint.from_state(written)
    assert after == before
    assert after.tables[1].rules == TableRules(
        ("log",), "soft", ("id",), Hasher(b"very-hidden").key_mark
    )
    assert after.tables[1].target_table.schema.names == ["id", "email", "tmp_a", "tmp_b"]
