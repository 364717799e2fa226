"""Rules for single tables: from the entries of the settings to the rules of each table.

Rules are read in order. Of those that match a table, a later one wins key by key.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, get_args

from cdc_core.values.errors import RulesError
from cdc_core.values.table_rules import (
    MASK_KEY,
    ColumnRule,
    History,
    Rule,
    TableRules,
    rule_name,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from cdc_core.ports.catalog import SourceTable
    from cdc_core.values.masks import Hasher
    from cdc_core.values.relation import Column, TableName
    from cdc_core.values.table_rules import Mask


@dataclass(frozen=True)
class RuleSet:
    """All rules. `hasher` hashes values under the mask key; None without a key."""

    rules: Sequence[Rule] = ()
    hasher: Hasher | None = field(default=None, repr=False)

    def apply(self, table: SourceTable) -> SourceTable:
        """Return a table with its rules and those of its columns; `RulesError` if they do not fit
        it."""
        keys = self._keys(table.relation.table)
        return _Resolving(table, keys, self.hasher).resolved() if keys else table

    def unmatched(self, tables: Iterable[TableName]) -> list[tuple[str, str]]:
        """Return the globs that match none of the tables, each with the name of its rule."""
        found = list(tables)
        return [
            (rule_name(number, rule.match), glob)
            for number, rule in enumerate(self.rules, start=1)
            for glob in rule.match
            if not any(table.matches((glob,)) for table in found)
        ]

    def _keys(self, table: TableName) -> dict[str, tuple[str, Any]]:
        """Return the value of each key for a table, with the name of the rule that set it last."""
        return {
            key: (rule_name(number, rule.match), value)
            for number, rule in enumerate(self.rules, start=1)
            if table.matches(rule.match)
            for key, value in rule.settings()
        }


@dataclass
class _Resolving:
    """Resolves the rules of one table."""

    table: SourceTable
    keys: Mapping[str, tuple[str, Any]]
    hasher: Hasher | None

    def resolved(self) -> SourceTable:
        relation = self.table.relation
        self._require_columns()
        excluded = self._excluded()
        relation = relation.under({c.name: self._rule_of(c, excluded) for c in relation.columns})
        history, deletes = self._value("history", ()), self._value("deletes", "hard")
        if "scd2" in history and not relation.key:
            self._refuse("history", 'is ["scd2"], which needs a key')
        if deletes == "soft" and not relation.key:
            self._refuse("deletes", 'is "soft", which needs a key')
        hashed = any(column.rule is ColumnRule.HASH for column in relation.columns)
        rules = TableRules(
            # In one order, so that another order changes nothing.
            history=tuple(kind for kind in get_args(History) if kind in history),
            deletes=deletes,
            cluster_by=self._value("cluster_by", ()),
            key_mark=self.hasher.key_mark if hashed and self.hasher else "",
            hasher=self.hasher if hashed else None,
            rule_for=self._former_rule,
        )
        return replace(self.table, relation=relation, rules=rules)

    def _former_rule(self, name: str) -> ColumnRule:
        """The rule for a column that the table no longer has; its values are NULL if it stays."""
        excluded, included = self._value("exclude_columns", ()), self._value("include_columns", "*")
        if _matches(name, excluded) or not _matches(name, included):
            return ColumnRule.EXCLUDE
        mask = _mask_of(name, self._value("mask", {}))
        return ColumnRule.KEEP if mask is None else ColumnRule(mask)

    def _value(self, key: str, default: Any) -> Any:
        return self.keys[key][1] if key in self.keys else default

    def _refuse(self, key: str, problem: str, column: str = "", cure: str = "") -> None:
        rule, _ = self.keys[key]
        at = f", column {column!r}" if column else ""
        name = self.table.relation.table
        raise RulesError(f"{rule}: {key} for table {name}{at} {problem}", cure or _CORRECT)

    def _require_columns(self) -> None:
        """Require that the table has each column that a rule names literally."""
        names = {*self.table.relation.column_names}
        for key in ("include_columns", "exclude_columns", "mask", "cluster_by"):
            patterns = self._value(key, ())
            if patterns == "auto":
                continue
            for pattern in patterns:
                if pattern not in names and (key == "cluster_by" or not _is_glob(pattern)):
                    self._refuse(key, "names a column that the table does not have", pattern)

    def _excluded(self) -> set[str]:
        relation = self.table.relation
        included, excluded = (self._value(f"{way}clude_columns", None) for way in ("in", "ex"))
        if included is not None and excluded is not None:
            self._refuse(
                "exclude_columns", "stands beside include_columns", cure="use one of the two"
            )
        key = "exclude_columns" if included is None else "include_columns"
        if included is not None:
            found = {name for name in relation.column_names if not _matches(name, included)}
        else:
            found = {name for name in relation.column_names if _matches(name, excluded or ())}
        for name in relation.key:
            if name in found:
                self._refuse(key, "excludes a column of the key", name)
        cluster_by = self._value("cluster_by", ())
        for name in () if cluster_by == "auto" else cluster_by:
            if name in found:
                self._refuse("cluster_by", "names a column that is excluded", name)
        return found

    def _rule_of(self, column: Column, excluded: set[str]) -> ColumnRule:
        if column.name in excluded:
            return ColumnRule.EXCLUDE
        mask = _mask_of(column.name, self._value("mask", {}))
        if mask is None:
            return self._in_its_own_type(column)
        if mask != "hash" and column.name in self.table.relation.key:
            self._refuse(
                "mask", f'is "{mask}", but a column of the key can only be hashed', column.name
            )
        if mask == "hash" and self.hasher is None:
            self._refuse("mask", f'is "hash", which needs {MASK_KEY}', column.name, _SET_KEY)
        return ColumnRule(mask)

    def _in_its_own_type(self, column: Column) -> ColumnRule:
        if column.name in self.table.relation.key:
            return ColumnRule.KEEP  # a key must be comparable
        json_as = self._value("json", "string")
        if column.logical == "json" and json_as != "string":
            return ColumnRule(json_as)
        if column.element_type is not None and self._value("arrays", "json") == "array":
            return ColumnRule.ARRAY
        return ColumnRule.KEEP


_CORRECT = "correct that rule"
_SET_KEY = (
    "set SOURCES__PG_REPLICATION__MASK_KEY, or mask_key under [sources.pg_replication] in "
    ".dlt/secrets.toml"
)


def rules_shown(table: SourceTable) -> dict[str, Any]:
    """Return the rules of a table that are not the default, as plain JSON types."""
    rules = table.rules
    columns = {c.name: c.rule.shown for c in table.relation.columns}
    shown = {
        "history": list(rules.history),
        "deletes": "" if rules.deletes == "hard" else rules.deletes,
        "columns": {n: rule for n, rule in columns.items() if rule != ColumnRule.KEEP.value},
        "cluster_by": rules.cluster_by if rules.cluster_by == "auto" else list(rules.cluster_by),
    }
    return {key: value for key, value in shown.items() if value}


def _is_glob(pattern: str) -> bool:
    return any(sign in pattern for sign in "*?[")


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(name == pattern or fnmatchcase(name, pattern) for pattern in patterns)


def _mask_of(name: str, masks: Mapping[str, Mask]) -> Mask | None:
    """The mask of a column: that under its own name, else that of the last glob that matches."""
    if name in masks:
        return masks[name]
    found = [mask for pattern, mask in masks.items() if fnmatchcase(name, pattern)]
    return found[-1] if found else None


#: No rules at all.
NO_RULE_SET = RuleSet()
