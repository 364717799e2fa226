"""Small changes of a function, each of which a test should notice."""

from __future__ import annotations

import ast
import copy
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Function = ast.FunctionDef | ast.AsyncFunctionDef

_COMPARE: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
_BINARY: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.FloorDiv: ast.Mult,
    ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.BitXor: ast.BitAnd,
}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """`name` is `Class.function`; `change` says what is different, in which line of the source."""

    name: str
    line: int
    change: str
    tree: ast.Module


@dataclass(frozen=True)
class FunctionSource:
    name: str
    #: A hash of its code, without comments and docstring.
    hash: str
    node: Function


def functions(path: Path) -> list[FunctionSource]:
    """All functions of a file and the methods of its classes."""
    found = []
    for node in ast.parse(path.read_text()).body:
        inner = node.body if isinstance(node, ast.ClassDef) else [node]
        prefix = f"{node.name}." if isinstance(node, ast.ClassDef) else ""
        for each in inner:
            if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef):
                code = ast.dump(_without_docstring(each))
                digest = hashlib.sha256(code.encode()).hexdigest()[:16]
                found.append(FunctionSource(prefix + each.name, digest, each))
    return found


def _without_docstring(function: Function) -> Function:
    function = copy.deepcopy(function)
    if ast.get_docstring(function) is not None and len(function.body) > 1:
        del function.body[0]
    return function


def mutants(path: Path, function: FunctionSource) -> Iterator[Mutant]:
    """Every mutant of a function. Each is a whole module, with only this change."""
    source = path.read_text()
    lines = source.splitlines()
    count = sum(1 for _ in _places(_find(ast.parse(source), function.name)))
    for number in range(count):
        tree = ast.parse(source)
        node, what, apply = list(_places(_find(tree, function.name)))[number]
        apply()
        line = getattr(node, "lineno", function.node.lineno)
        yield Mutant(function.name, line, f"{what} in `{lines[line - 1].strip()}`", tree)


def _find(tree: ast.Module, name: str) -> Function:
    *owner, own = name.split(".")
    body = tree.body
    for each in owner:
        body = next(n for n in body if isinstance(n, ast.ClassDef) and n.name == each).body
    return next(
        n for n in body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef) and n.name == own
    )


def _places(function: Function) -> Iterator[tuple[ast.AST, str, Callable[[], None]]]:
    """Every node that can change, what changes, and how to do it."""
    skipped = _skipped(function)
    for node in ast.walk(function):
        if node in skipped:
            continue
        yield from _of_expression(node)
        yield from _of_statement(node)


def _skipped(function: Function) -> set[ast.AST]:
    """Annotations, docstrings and decorators do not change what a function does. Sentences are for
    people; other tests read them."""
    roots: list[ast.AST] = [*function.decorator_list]
    for node in ast.walk(function):
        if (isinstance(node, ast.arg) and node.annotation is not None) or isinstance(
            node, ast.AnnAssign
        ):
            roots.append(node.annotation)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            roots += [node.returns] if node.returns is not None else []
            if ast.get_docstring(node) is not None:
                roots.append(node.body[0])
        elif isinstance(node, ast.Assert | ast.JoinedStr):
            roots.append(node)
    return {inner for root in roots for inner in ast.walk(root)}


def _of_expression(node: ast.AST) -> Iterator[tuple[ast.AST, str, Callable[[], None]]]:
    match node:
        case ast.Compare(ops=[op]) if type(op) in _COMPARE:
            other = _COMPARE[type(op)]
            yield node, f"{_text(op)} becomes {_text(other())}", _set(node, "ops", [other()])
        case ast.BinOp(op=op) if type(op) in _BINARY:
            change = _BINARY[type(op)]
            yield node, f"{_text(op)} becomes {_text(change())}", _set(node, "op", change())
        case ast.BoolOp(op=ast.And()):
            yield node, "`and` becomes `or`", _set(node, "op", ast.Or())
        case ast.BoolOp(op=ast.Or()):
            yield node, "`or` becomes `and`", _set(node, "op", ast.And())
        case ast.UnaryOp(op=ast.Not() | ast.Invert() | ast.USub(), operand=operand):
            yield node, f"{_text(node.op)} is gone", _become(node, operand)
        case ast.Constant(value=bool() as value):
            yield node, f"{value} becomes {not value}", _set(node, "value", not value)
        case ast.Constant(value=int() as number):
            yield node, f"{number} becomes {number + 1}", _set(node, "value", number + 1)
        case ast.Constant(value=str() as text) if text and " " not in text:
            yield node, f"{text[:30]!r} becomes another text", _set(node, "value", f"{text}?")
        case ast.IfExp(test=test):
            negated = ast.copy_location(ast.UnaryOp(ast.Not(), test), test)
            yield node, "the condition is negated", _set(node, "test", negated)


def _of_statement(node: ast.AST) -> Iterator[tuple[ast.AST, str, Callable[[], None]]]:
    match node:
        case ast.If(test=test) | ast.While(test=test):
            negated = ast.copy_location(ast.UnaryOp(ast.Not(), test), test)
            yield node, "the condition is negated", _set(node, "test", negated)
        case ast.Return(value=value) if not (
            value is None or (isinstance(value, ast.Constant) and not value.value)
        ):
            none = ast.copy_location(ast.Constant(None), value)
            yield node, "None is returned", _set(node, "value", none)
        case ast.Expr(value=ast.Call()) | ast.AugAssign() | ast.Continue() | ast.Break():
            yield node, "the statement is gone", _become(node, None)


def _text(op: ast.AST) -> str:
    return f"`{type(op).__name__}`"


def _set(node: ast.AST, name: str, value: object) -> Callable[[], None]:
    return lambda: setattr(node, name, value)


def _become(node: ast.AST, other: ast.AST | None) -> Callable[[], None]:
    """Turn a node into another one in place; into `pass` without one."""

    def apply() -> None:
        new: ast.AST = ast.Pass() if other is None else other
        places = {name: getattr(node, name) for name in ("lineno", "col_offset")}
        node.__class__ = type(new)
        node.__dict__.clear()
        node.__dict__.update({**places, **new.__dict__})

    return apply
