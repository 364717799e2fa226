"""From a client's SQL to the engine's: names become folders, gaps of its grammar are closed.

A statement is parsed, changed as a tree and printed again in Spark's dialect; what the engine reads
well is left alone.
"""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

import pyarrow as pa
import pyarrow.parquet as pq
import sqlglot
from sqlglot import exp
from sqlglot.errors import ErrorLevel, SqlglotError

from . import errors, information_schema, variants
from .catalog import INFORMATION_SCHEMA

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from .catalog import Catalog, Name
    from .engine import Engine
    from .session import Session

_FILE_FORMATS = {"parquet", "json", "csv", "text"}


def parse(text: str) -> exp.Expr:
    """The one statement in `text`."""
    try:
        found = [tree for tree in sqlglot.parse(text, read="databricks") if tree is not None]
    except SqlglotError as error:
        detail = str(error).splitlines()[0] if str(error) else "the statement cannot be read"
        raise errors.syntax_error(detail.replace("\x1b[4m", "").replace("\x1b[0m", "")) from error
    if len(found) != 1:
        raise errors.syntax_error(f"{len(found)} statements where one is expected")
    return found[0]


def generate(tree: exp.Expr) -> str:
    return tree.sql(dialect="spark", unsupported_level=ErrorLevel.IGNORE)


def parts_of(table: exp.Table) -> list[str]:
    """Catalog, schema, name of a table reference, as many as were written."""
    return [part.name for part in table.parts]


def bind(tree: exp.Expr, parameters: Mapping[str | int, str]) -> None:
    """Put native parameters (`:name` or `?`), already SQL text, in their places."""
    for number, holder in enumerate(list(tree.find_all(exp.Placeholder))):
        key: str | int = holder.name or number
        if key not in parameters:
            raise errors.SqlError("UNBOUND_SQL_PARAMETER", f"No value for parameter {key}.")
        holder.replace(parse("SELECT " + parameters[key]).expressions[0])


class Rewriter:
    """Rewrites one statement; files that it makes for the engine live as long as its context."""

    def __init__(self, catalog: Catalog, engine: Engine, session: Session) -> None:
        self._catalog = catalog
        self._engine = engine
        self._session = session
        self._files: list[Path] = []

    @classmethod
    @contextmanager
    def open(cls, catalog: Catalog, engine: Engine, session: Session) -> Iterator[Rewriter]:
        rewriter = cls(catalog, engine, session)
        try:
            yield rewriter
        finally:
            for file in rewriter._files:
                file.unlink(missing_ok=True)

    def query(self, tree: exp.Expr) -> str:
        """The text of `tree` for the engine."""
        return generate(self.resolve(tree))

    def refuse_comparisons(self, tree: exp.Expr) -> None:
        """Refuse comparisons of VARIANT, as documented."""
        tree = self._inline_views(tree.copy())
        if tree.find(exp.ParseJSON) or any(map(self._variants_of, tree.find_all(exp.Table))):
            variants.refuse_comparisons(parse(generate(tree)), self._variants_of)

    def _variants_of(self, table: exp.Table) -> set[str]:
        parts = parts_of(table)
        if not isinstance(table.this, exp.Identifier) or parts[0].lower() in _FILE_FORMATS:
            return set()
        name = self._session.name(parts)
        if name.schema == INFORMATION_SCHEMA or not self._catalog.table_exists(name):
            return set()
        fields = information_schema.metadata(self._catalog.require_table(name)).fields
        return {f["name"].lower() for f in fields if variants.is_variant(f["type"])}

    def resolve(self, tree: exp.Expr) -> exp.Expr:
        self.refuse_comparisons(tree)
        tree = variants.in_engine(self._inline_views(tree.copy()))
        self._name_tables(tree)
        self._replace_functions(tree)
        for select in list(tree.find_all(exp.Select)):
            self._expand(select)
        return tree

    # -- tables

    def inline(self, tree: exp.Query) -> exp.Query:
        """`tree` with every table's name complete, to be read later in any schema."""
        tree = cast("exp.Query", self._inline_views(tree.copy()))
        for table in tree.find_all(exp.Table):
            if isinstance(table.this, exp.Identifier) and not _is_cte(table):
                parts = parts_of(table)
                if len(parts) < 3 and parts[0].lower() not in _FILE_FORMATS:
                    name = self._session.name(parts)
                    if not table.alias:
                        alias = exp.TableAlias(this=exp.to_identifier(parts[-1], quoted=True))
                        table.set("alias", alias)
                    table.set("catalog", exp.to_identifier(name.catalog, quoted=True))
                    table.set("db", exp.to_identifier(name.schema, quoted=True))
        return tree

    def _inline_views(self, tree: exp.Expr) -> exp.Expr:
        for table in list(tree.find_all(exp.Table)):
            view = self._session.views.get(table.name.lower())
            if view is None or table.args.get("db") or _is_cte(table):
                continue
            alias = table.args.get("alias") or exp.TableAlias(this=exp.to_identifier(table.name))
            inner = self._inline_views(view.copy())
            table.replace(exp.Subquery(this=inner, alias=alias))
        return tree

    def _name_tables(self, tree: exp.Expr) -> None:
        """Point each table at its folder, under an alias by which its columns were called."""
        tables = [
            table
            for table in tree.find_all(exp.Table)
            if isinstance(table.this, exp.Identifier) and not _is_cte(table)
        ]
        bare = Counter(
            str(self._session.name(parts_of(table)).object)
            for table in {generate(t): t for t in tables if not t.alias}.values()
        )
        aliases: dict[Name, str] = {}
        for table in tables:
            parts = parts_of(table)
            if len(parts) == 2 and parts[0].lower() in _FILE_FORMATS:
                path = parts[1]
                if path.startswith(("/Volumes/", "dbfs:/Volumes/")):
                    file = self._catalog.volume_file(path)
                    if "*" not in path and not file.exists():
                        raise errors.SqlError("PATH_NOT_FOUND", f"Path does not exist: {path}.")
                    path = str(file)
                table.set("this", exp.to_identifier(path, quoted=True))
                continue
            name = self._session.name(parts)
            if not table.alias:
                alias = parts[-1]
                if bare[name.object] > 1:
                    alias = f"{name.catalog}__{name.schema}__{name.object}"
                aliases[name] = alias
                table.set("alias", exp.TableAlias(this=exp.to_identifier(alias, quoted=True)))
            folder = self._folder(name)
            table.set("catalog", None)
            table.set("db", exp.to_identifier(folder[0]))
            table.set("this", exp.to_identifier(folder[1], quoted=True))
        for column in tree.find_all(exp.Column):
            if column.args.get("db"):
                parts = [part.name for part in column.parts[:-1]]
                alias = aliases.get(self._session.name(parts), parts[-1])
                column.set("table", exp.to_identifier(alias, quoted=True))
                column.set("db", None)
                column.set("catalog", None)

    def _folder(self, name: Name) -> tuple[str, str]:
        if name.schema == INFORMATION_SCHEMA:
            return "parquet", str(self._file(information_schema.read(self._catalog, name)))
        return "delta", str(self._catalog.require_table(name))

    def _file(self, table: pa.Table) -> Path:
        """A file with the rows of `table`, for the engine to read."""
        file = self._catalog.scratch().with_suffix(".parquet")
        self._files.append(file)
        pq.write_table(table, file, write_statistics=False)
        return file

    def materialized(self, rows: pa.Table, alias: str) -> exp.Table:
        """`rows` as a table of this statement; a column without type (NULLs only) as strings."""
        fields = [f.with_type(pa.string()) if f.type == pa.null() else f for f in rows.schema]
        file = self._file(rows.cast(pa.schema(fields)))
        return exp.Table(
            this=exp.to_identifier(str(file), quoted=True),
            db=exp.to_identifier("parquet"),
            alias=exp.TableAlias(this=exp.to_identifier(alias, quoted=True)) if alias else None,
        )

    def unalias(self, source: exp.Expr) -> exp.Expr:
        """A source with the names of its columns inside of it; a temporary view as its query."""
        alias = source.args.get("alias")
        if isinstance(source, exp.Table) and not source.args.get("db"):
            view = self._session.views.get(source.name.lower())
            if view is not None:
                name = alias or exp.TableAlias(this=exp.to_identifier(source.name))
                return exp.Subquery(this=self._inline_views(view.copy()), alias=name.copy())
        if alias is not None and alias.args.get("columns"):
            inner = exp.select("*").from_(source.copy())
            return exp.Subquery(this=inner, alias=exp.TableAlias(this=alias.this.copy()))
        return source

    # -- expressions

    def _replace_functions(self, tree: exp.Expr) -> None:
        known = {
            "current_catalog": self._session.catalog,
            "current_schema": self._session.schema,
            "current_database": self._session.schema,
            "current_user": self._session.user,
            "session_user": self._session.user,
            "user": self._session.user,
        }
        for function in list(tree.find_all(exp.Func)):
            name = function.name if isinstance(function, exp.Anonymous) else function.sql_name()
            if not function.expressions and (value := known.get(name.lower())):
                function.replace(exp.Literal.string(value))

    def _expand(self, select: exp.Select) -> None:
        """Spell out `* EXCEPT (…)`, and `*` beside QUALIFY, which the engine cannot read."""
        stars = [star for star in select.expressions if _is_star(star)]
        excepted = [star for star in stars if _except_of(star)]
        if not excepted and not (select.args.get("qualify") and stars):
            return
        new: list[exp.Expr] = []
        for item in select.expressions:
            if item not in stars:
                new.append(item)
                continue
            left_out = {column.name.lower() for column in _except_of(item)}
            probe = select.copy()
            for clause in ("where", "group", "having", "qualify", "order", "limit", "distinct"):
                probe.set(clause, None)
            qualifier = item.table if isinstance(item, exp.Column) else ""
            star = exp.Star()
            probe.set(
                "expressions",
                [exp.Column(this=star, table=exp.to_identifier(qualifier)) if qualifier else star],
            )
            for column in self._engine.schema(generate(_with_ctes(select, probe))).names:
                if column.lower() not in left_out:
                    new.append(exp.column(column, table=qualifier or None, quoted=True))
        select.set("expressions", new)

    def distinct_names(self, query: exp.Query) -> exp.Query:
        """`query` with each unnamed expression named, as the engine wants them to differ."""
        for tree in _branches(query):
            items = []
            for number, item in enumerate(tree.expressions):
                named = isinstance(item, (exp.Alias, exp.Column)) or _is_star(item)
                items.append(item if named else exp.alias_(item, f"_c{number}", quoted=True))
            tree.set("expressions", items)
        return query


def _branches(query: exp.Expr) -> list[exp.Select]:
    match query:
        case exp.SetOperation():
            return [*_branches(query.this), *_branches(query.expression)]
        case exp.Subquery():
            return _branches(query.this)
        case exp.Select():
            return [query]
        case _:
            return []


def _with_ctes(select: exp.Select, probe: exp.Select) -> exp.Select:
    """`probe` with the common table expressions that are in scope of `select`."""
    node = select.parent
    while node is not None:
        scope = node.args.get("with_") or node.args.get("with")
        if scope is not None and not isinstance(node, exp.With):
            for cte in scope.expressions:
                if cte.find(exp.Select) is not select and not _contains(cte, select):
                    probe = probe.with_(cte.alias, as_=cte.this.copy(), copy=False)
        node = node.parent
    return probe


def _contains(tree: exp.Expr, node: exp.Expr) -> bool:
    parent: exp.Expr | None = node
    while parent is not None:
        if parent is tree:
            return True
        parent = parent.parent
    return False


def _is_star(item: exp.Expr) -> bool:
    return isinstance(item, exp.Star) or (
        isinstance(item, exp.Column) and isinstance(item.this, exp.Star)
    )


def _except_of(item: exp.Expr) -> list[exp.Expr]:
    star = item.this if isinstance(item, exp.Column) else item
    return star.args.get("except_") or star.args.get("except") or []


def _is_cte(table: exp.Table) -> bool:
    """Whether the name belongs to a WITH around it."""
    if table.args.get("db"):
        return False
    node: exp.Expr | None = table
    while node is not None:
        scope = node.args.get("with_") or node.args.get("with")
        if scope is not None:
            names = {cte.alias.lower() for cte in scope.expressions}
            if table.name.lower() in names:
                return True
        node = node.parent
    return False


def rows(**columns: list[str | None]) -> pa.Table:
    """A result of strings."""
    return pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})
