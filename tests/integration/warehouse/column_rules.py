"""What a column has beside its type (DEFAULT, GENERATED, IDENTITY), and constraints.

They are kept beside the Delta log, since the engine refuses tables with these writer features, and
acted on by the statements. Sources: Databricks SQL reference, "CREATE TABLE [USING]", "ALTER TABLE
… COLUMN clause", "ADD CONSTRAINT clause", "INSERT"; "Delta default column values".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlglot import exp

from . import errors
from .queries import generate, parse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from .catalog import TableInfo

DEFAULTS = "delta.feature.allowColumnDefaults"
_ENABLED = ("supported", "enabled", "true")


def definition(text: str) -> exp.ColumnDef:
    """A column's definition as a tree."""
    tree = parse(f"CREATE TABLE t ({text})")
    found = tree.find(exp.ColumnDef)
    if found is None:
        raise errors.syntax_error(f"near '{text}'")
    return found


def rules_of(column: exp.ColumnDef) -> dict[str, Any]:
    """What a definition says beside name, type, NOT NULL and COMMENT."""
    rules: dict[str, Any] = {}
    for constraint in column.constraints:
        kind = constraint.kind
        match kind:
            case exp.DefaultColumnConstraint():
                rules["default"] = generate(kind.this)
            case exp.ComputedColumnConstraint():
                rules["generated"] = generate(kind.this)
            case exp.GeneratedAsIdentityColumnConstraint():
                start, step = (
                    int(kind.args[name].name) if kind.args.get(name) else 1
                    for name in ("start", "increment")
                )
                always = bool(kind.args.get("this"))
                rules["identity"] = {"next": start, "step": step, "always": always}
            case _:
                pass
    return rules


def require_defaults(properties: Mapping[str, str]) -> None:
    if properties.get(DEFAULTS) not in _ENABLED:
        raise errors.SqlError(
            "WRONG_COLUMN_DEFAULTS_FOR_DELTA_FEATURE_NOT_ENABLED",
            "Failed to execute the command because it assigned a column DEFAULT value, but the "
            "corresponding table feature was not enabled. Please retry the command again after "
            "executing ALTER TABLE tableName SET "
            f"TBLPROPERTIES('{DEFAULTS}' = 'supported').",
        )


def renamed(info: TableInfo, old: str, new: str) -> None:
    if old.lower() in info.columns:
        info.columns[new.lower()] = info.columns.pop(old.lower())


def uses(info: TableInfo, column: str) -> str | None:
    """The constraint or generated column that depends on a column."""
    for name, text in info.checks.items():
        if column.lower() in _columns(text):
            return name
    for name, rules in info.columns.items():
        if "generated" in rules and column.lower() in _columns(rules["generated"]):
            return name
    return None


def _columns(text: str) -> set[str]:
    tree = parse(f"SELECT {text}")
    return {column.name.lower() for column in tree.find_all(exp.Column)}


def refuse_given(info: TableInfo, columns: Iterable[str]) -> None:
    """An INSERT may not name a column whose values are the table's own."""
    for column in columns:
        if info.rules(column).get("identity", {}).get("always"):
            raise errors.SqlError(
                "DELTA_IDENTITY_COLUMNS_EXPLICIT_INSERT_NOT_SUPPORTED",
                f"Providing values for GENERATED ALWAYS AS IDENTITY column {column} is not "
                "supported.",
            )


def with_values(text: str, value: Callable[[str], str]) -> str:
    """An expression with its columns replaced by what `value` gives for their names."""
    tree = parse(f"SELECT {text}").expressions[0]

    def replace(node: exp.Expr) -> exp.Expr:
        if isinstance(node, exp.Column):
            return exp.paren(parse(f"SELECT {value(node.name)}").expressions[0])
        return node

    return generate(tree.transform(replace))
