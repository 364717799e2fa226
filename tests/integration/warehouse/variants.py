"""VARIANT, which the engine cannot store: a map with one entry, the JSON text.

Refuses what the documentation refuses. Source: Databricks SQL reference, "VARIANT type"; "Variant
type support", Limitations.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlglot import exp
from sqlglot.optimizer.scope import Scope, traverse_scope

from . import errors

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

#: What the engine stores.
ENGINE_TYPE = "MAP<STRING, STRING>"
#: The property that enables the type on a table that exists.
FEATURE = "delta.feature.variantType-preview"

_COMPARISONS = (
    exp.EQ, exp.NEQ, exp.NullSafeEQ, exp.NullSafeNEQ, exp.LT, exp.LTE, exp.GT, exp.GTE, exp.In,
    exp.Between, exp.Ordered,
)  # fmt: skip


def is_variant(delta_type: Any) -> bool:
    """Whether a type of a Delta schema stands for VARIANT."""
    return isinstance(delta_type, dict) and (
        delta_type["type"] == "map" and delta_type["keyType"] == delta_type["valueType"] == "string"
    )


def in_engine(tree: exp.Expr) -> exp.Expr:
    """Return the tree, changed in place, with types and functions as the engine has them."""
    kinds = (exp.DataType, exp.ParseJSON, exp.Anonymous, exp.JSONFormat)
    for node in reversed(list(tree.find_all(*kinds))):
        new: exp.Expr | None = None
        if isinstance(node, exp.DataType):
            if node.this == exp.DataType.Type.VARIANT:
                new = exp.DataType.build(ENGINE_TYPE, dialect="spark")
        elif isinstance(node, exp.JSONFormat):
            json = exp.Literal.string("json")
            new = exp.Anonymous(this="element_at", expressions=[node.this.copy(), json])
        elif _parses(node):
            new = _parsed(node)
        if new is not None:
            if node is tree:
                return new
            node.replace(new)
    return tree


def _parses(node: exp.Expr) -> bool:
    return isinstance(node, exp.ParseJSON) or (
        isinstance(node, exp.Anonymous) and node.name.upper() == "TRY_PARSE_JSON"
    )


def _parsed(node: exp.Expr) -> exp.Expr:
    """The engine checks the text, which stays as it is: its own numbers are doubles."""
    safe = isinstance(node, exp.Anonymous)
    text = node.expressions[0] if safe else node.this
    parsed = exp.Anonymous(
        this="TRY_PARSE_JSON" if safe else "PARSE_JSON", expressions=[text.copy()]
    )
    value = exp.Anonymous(this="map", expressions=[exp.Literal.string("json"), text.copy()])
    there = exp.Not(this=exp.Is(this=parsed, expression=exp.Null()))
    return exp.Case(ifs=[exp.If(this=there, true=value)])


def refuse_comparisons(tree: exp.Expr, variants: Callable[[exp.Table], set[str]]) -> None:
    """Raise an error if the statement compares, groups, orders or joins by a VARIANT."""
    if isinstance(tree, exp.Merge):
        sources = exp.select("*").from_(tree.this.copy()).join(tree.args["using"].copy())
        sources.set("where", exp.Where(this=tree.args["on"].copy()))
        for clause in tree.args["whens"].expressions:
            if condition := clause.args.get("condition"):
                sources = sources.where(condition.copy())
        tree = sources
    elif isinstance(tree, (exp.Insert, exp.Create)):
        tree = tree.expression
    if not isinstance(tree, exp.Query):
        return
    outputs: dict[int, set[str]] = {}
    for scope in traverse_scope(tree):
        outputs[id(scope)] = _check(scope, outputs, variants)


def _check(
    scope: Scope, outputs: dict[int, set[str]], variants: Callable[[exp.Table], set[str]]
) -> set[str]:
    """Check one query and return the names of its columns that are VARIANT."""
    query = scope.expression
    if isinstance(query, exp.SetOperation):
        found = set().union(*(outputs.get(id(part), set()) for part in scope.set_operation_scopes))
        if found:
            raise errors.SqlError(
                "UNSUPPORTED_FEATURE.SET_OPERATION_ON_VARIANT_TYPE",
                f"Cannot have VARIANT type columns in a set operation: {sorted(found)}.",
            )
        return found
    sources = {
        name: variants(source) if isinstance(source, exp.Table) else outputs.get(id(source), set())
        for name, source in scope.sources.items()
    }
    if not isinstance(query, exp.Select):
        return set()
    for node in scope.walk():
        if isinstance(node, _COMPARISONS):
            operands = list(node.iter_expressions())
        elif isinstance(node, exp.Group):
            operands = node.expressions
        elif isinstance(node, exp.Window):
            operands = node.args.get("partition_by") or []
        elif isinstance(node, exp.Distinct):
            operands = [query] if any(_of(i, sources) for i in query.expressions) else []
        else:
            continue
        if any(operand is query or _of(operand, sources) for operand in operands):
            raise errors.SqlError(
                "DATATYPE_MISMATCH.INVALID_ORDERING_TYPE",
                f"The {type(node).__name__} does not support ordering on type VARIANT.",
            )
    names: set[str] = set()
    for item in query.expressions:
        star = item.this if isinstance(item, exp.Column) else item
        if isinstance(star, exp.Star):
            wanted = [item.table] if isinstance(item, exp.Column) and item.table else [*sources]
            names |= {name for source in wanted for name in sources.get(source, set())}
        elif _of(item, sources):
            names.add(item.alias_or_name.lower())
    return names


def _of(node: exp.Expr, sources: Mapping[str, set[str]]) -> bool:
    """Whether an expression is a VARIANT."""
    match node:
        case exp.ParseJSON() | exp.Anonymous() if _parses(node):
            return True
        case exp.Column():
            among = [node.table] if node.table else [*sources]
            return any(node.name.lower() in sources.get(name, set()) for name in among)
        case exp.Case():
            branches = [branch.args["true"] for branch in node.args["ifs"]]
            default = node.args.get("default")
            return any(_of(one, sources) for one in [*branches, *([default] if default else [])])
        case exp.Alias() | exp.Paren() | exp.Ordered():
            return _of(node.this, sources)
        case exp.Coalesce():
            return any(_of(one, sources) for one in [node.this, *node.expressions])
        case _:
            return False
