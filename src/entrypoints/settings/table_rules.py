"""Rules for single tables, as the settings have them: `[[sources.pg_replication.tables]]`."""

from __future__ import annotations

import json
from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from cdc_core.values.table_rules import SETTING, Deletes, History, Mask, Rule, rule_name
from entrypoints.settings.wording import problem_text, shown

if TYPE_CHECKING:
    from collections.abc import Sequence

_A_LIST = "must be a list of rules: [[sources.pg_replication.tables]] in TOML, or a JSON array"
_NAMES = 'must be a list of names: ["a", "b"]'
#: Columns by which Databricks can cluster a table.
_CLUSTERED = 4
_MASKS = 'must be a table of columns and masks: { email = "hash" }'


def _list(value: Any) -> Any:
    """Accept a list of tables, or JSON from the environment or the command line."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except json.JSONDecodeError:
            raise ValueError(_A_LIST) from None
    if not isinstance(value, list | tuple):
        raise ValueError(_A_LIST)  # noqa: TRY004 - pydantic collects ValueErrors
    return value


def _globs(value: Any) -> Any:
    return _names([value] if isinstance(value, str) else value)


def _names(value: Any) -> Any:
    if not isinstance(value, list | tuple) or not all(
        isinstance(name, str) and name for name in value
    ):
        raise ValueError(_NAMES)
    return value


def _columns_or_auto(value: Any) -> Any:
    if value == "auto":
        return value
    if isinstance(value, list | tuple) and len(value) > _CLUSTERED:
        raise ValueError("names more than four columns")
    if isinstance(value, str):
        raise ValueError('must be "auto" or a list of columns')  # noqa: TRY004 - as above
    return _names(value)


def _masks(value: Any) -> Any:
    if not isinstance(value, dict):
        raise ValueError(_MASKS)  # noqa: TRY004 - pydantic collects ValueErrors
    return value


_Names = Annotated[tuple[str, ...], BeforeValidator(_names)]


class TableRule(BaseModel):
    """A key that is not set leaves what an earlier rule says."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)
    match: Annotated[tuple[str, ...], BeforeValidator(_globs), Field(min_length=1)]
    history: Annotated[tuple[History, ...], BeforeValidator(_names)] | None = None
    deletes: Deletes | None = None
    exclude_columns: _Names | None = None
    include_columns: _Names | None = None
    mask: Annotated[dict[str, Mask], BeforeValidator(_masks)] | None = None
    # The key `json`, whose name is one of pydantic's own.
    json_: Literal["string", "variant"] | None = Field(default=None, alias="json")
    arrays: Literal["json", "array"] | None = None
    cluster_by: (
        Annotated[Literal["auto"] | tuple[str, ...], BeforeValidator(_columns_or_auto)] | None
    ) = None

    @property
    def reads_text(self) -> bool:
        """Whether a mask needs PostgreSQL's text of values."""
        return bool({*(self.mask or {}).values()} - {"null"})

    def value(self, *, keeps_text: bool = True) -> Rule:
        """Return the rule as the core has it. `keeps_text`: the destination's type for JSON keeps
        the text of values."""
        canonical = self.json_ == "variant" and not keeps_text
        return Rule(
            self.match,
            self.history,
            self.deletes,
            self.exclude_columns,
            self.include_columns,
            self.mask,
            "canonical" if canonical else self.json_,
            self.arrays,
            self.cluster_by,
        )


TableRules = Annotated[tuple[TableRule, ...], BeforeValidator(_list)]

_KEYS = [field.alias or name for name, field in TableRule.model_fields.items()]


def problem_of(rules: Any, problem: Any) -> tuple[str, str] | None:
    """What is wrong with a rule, and the cure, in the words of pydantic's `problem`; None if the
    problem is not one of a single rule. `rules` is the value of the setting."""
    found = _place(problem["loc"])
    if found is None:
        return None
    number, where = found
    rule = _list(rules)[number]
    match = rule.get("match", "") if isinstance(rule, dict) else ""
    globs = [match] if isinstance(match, str) else match if isinstance(match, list) else []
    name = rule_name(number + 1, [str(glob) for glob in globs if glob] or ["missing"])
    if problem["type"] == "extra_forbidden":
        key = str(where[-1])
        near = get_close_matches(key, _KEYS, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(_KEYS)}"
        return f"{name}: unknown key {key!r}", hint
    if problem["type"] == "missing":
        return f"{name}: the key {where[-1]!r} is missing", "name the tables that it is about"
    if not where:
        return f"{name} must be a table of keys", "correct that rule"
    keys = [str(part) for part in where if not isinstance(part, int) and "[" not in str(part)]
    value = shown(keys[0], problem["input"])
    column = f" of column {keys[1]!r}" if keys[0] == "mask" and len(keys) > 1 else ""
    return f"{name}: {keys[0]}{column}{value} {problem_text(problem)}", "correct that rule"


def _place(location: Sequence[Any]) -> tuple[int, Sequence[Any]] | None:
    """The index of the rule that a location is in, and the rest of the location."""
    path = tuple(SETTING.split("."))
    if tuple(location[: len(path)]) != path or len(location) <= len(path):
        return None
    return location[len(path)], location[len(path) + 1 :]
