"""One statement of a session, from its text to its result: the table of what is understood here."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from sqlglot import exp

from . import atomic, errors, information_schema
from .catalog import INFORMATION_SCHEMA, Clustering
from .copy_into import CopyInto
from .ddl import NAME, Ddl, split_name
from .dml import Dml
from .queries import Rewriter, bind, parse, rows
from .session import DONE, Result, Session
from .show import Show

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .catalog import Catalog
    from .engine import Engine
    from .volumes import Volumes

    Handler = Callable[[Session, re.Match[str]], Result]

_FLAGS = re.IGNORECASE | re.DOTALL
_LIKE = r"(?:\s+(?:LIKE\s+)?'(?P<like>[^']*)')?"
_IN = rf"(?:\s+(?:IN|FROM)\s+(?P<name>{NAME}))?"
_EXISTS = r"(?P<exists>IF\s+(?:NOT\s+)?EXISTS\s+)?"
_SCHEMA = r"(?:SCHEMA|DATABASE)"
_ON = rf"(?:TABLE\s+)?(?P<name>{NAME})\s+(?:TO|FROM)\s+(?P<principal>{NAME})"
#: Statements that take a table away from under its readers run alone.
_ALONE = re.compile(
    rf"\s*(?:DROP\s+(?:TABLE|VOLUME|{_SCHEMA})|ALTER\s+TABLE\s+{NAME}\s+RENAME\s+TO|BEGIN\s+ATOMIC)\b",
    _FLAGS,
)
#: What `information_schema` shows the effect of, some time later.
_DEFINES = re.compile(r"\s*(?:CREATE|REPLACE|ALTER|DROP|COMMENT|COPY)\b", _FLAGS)
_CLUSTER_BY = re.compile(r"\bCLUSTER\s+BY\s+(?:(?P<auto>AUTO)|NONE|\((?P<columns>[^)]*)\))", _FLAGS)


def clean(text: str) -> str:
    """The statement without comments around it and without its semicolon."""
    text = re.sub(r"\A(?:\s+|--[^\n]*(?:\n|\Z)|/\*.*?\*/)+", "", text, flags=re.DOTALL)
    return text.strip().rstrip(";").strip()


class Statements:
    """Executes statements; safe to share between sessions and threads. Raises `SqlError`."""

    def __init__(self, catalog: Catalog, engine: Engine, volumes: Volumes) -> None:
        self._catalog = catalog
        self._engine = engine
        self._volumes = volumes
        self._dml = Dml(catalog, engine)
        self._ddl = Ddl(catalog, engine)
        self._copy = CopyInto(catalog, engine)
        self._show = Show(catalog)
        commands: tuple[tuple[str, Handler], ...] = (
            (r"(?:PUT|GET|REMOVE|LIST)\b.*", self._volume_files),
            (r"COPY\s+INTO\b.*", self._copy_into),
            (rf"USE\s+CATALOG\s+(?P<name>{NAME})", self._use_catalog),
            (rf"USE\s+(?:{_SCHEMA}\s+)?(?P<name>{NAME})", self._use),
            (r"SET\b(?P<setting>.*)", self._set),
            (rf"CREATE\s+CATALOG\s+{_EXISTS}(?P<name>{NAME}).*", self._create_catalog),
            (rf"CREATE\s+{_SCHEMA}\s+{_EXISTS}(?P<name>{NAME}).*", self._create_schema),
            (
                rf"DROP\s+{_SCHEMA}\s+{_EXISTS}(?P<name>{NAME})(?P<cascade>\s+CASCADE|\s+RESTRICT)?",
                self._drop_schema,
            ),
            (rf"CREATE\s+VOLUME\s+{_EXISTS}(?P<name>{NAME}).*", self._create_volume),
            (rf"DROP\s+VOLUME\s+{_EXISTS}(?P<name>{NAME})", self._drop_volume),
            (rf"DROP\s+TABLE\s+{_EXISTS}(?P<name>{NAME})(?:\s+PURGE)?", self._drop_table),
            (rf"DROP\s+VIEW\s+{_EXISTS}(?P<name>{NAME})", self._drop_view),
            (rf"TRUNCATE\s+TABLE\s+(?P<name>{NAME})", self._truncate),
            (
                rf"ALTER\s+TABLE\s+(?P<name>{NAME})\s+RENAME\s+TO\s+(?P<new>{NAME})",
                self._rename_table,
            ),
            (rf"ALTER\s+TABLE\s+(?P<name>{NAME})\s+(?P<action>.+)", self._alter_table),
            (
                rf"COMMENT\s+ON\s+TABLE\s+(?P<name>{NAME})\s+IS\s+(?P<text>NULL|'.*')",
                self._comment,
            ),
            (
                rf"(?P<verb>GRANT|REVOKE)\s+(?P<privileges>.+?)\s+ON\s+{_ON}",
                self._grant,
            ),
            (r"SHOW\s+CATALOGS", lambda *_: self._show.catalogs()),
            (rf"SHOW\s+(?:SCHEMAS|DATABASES){_IN}{_LIKE}", self._show_schemas),
            (rf"SHOW\s+TABLES{_IN}{_LIKE}", self._show_tables),
            (rf"SHOW\s+VOLUMES{_IN}{_LIKE}", self._show_volumes),
            (rf"SHOW\s+COLUMNS\s+(?:IN|FROM)\s+(?P<name>{NAME})", self._of(self._show.columns)),
            (rf"SHOW\s+TBLPROPERTIES\s+(?P<name>{NAME})", self._of(self._show.properties)),
            (rf"SHOW\s+CREATE\s+TABLE\s+(?P<name>{NAME})", self._of(self._show.create_table)),
            (
                rf"SHOW\s+GRANTS\s+ON\s+(?:TABLE\s+)?(?P<name>{NAME})",
                self._of(self._show.grants),
            ),
            (rf"DESC(?:RIBE)?\s+DETAIL\s+(?P<name>{NAME})", self._of(self._show.detail)),
            (rf"DESC(?:RIBE)?\s+HISTORY\s+(?P<name>{NAME})", self._of(self._show.history)),
            (
                rf"DESC(?:RIBE)?\s+(?:TABLE\s+)?EXTENDED\s+(?P<name>{NAME})\s+AS\s+JSON",
                self._of(self._show.describe_as_json),
            ),
            (
                rf"DESC(?:RIBE)?\s+(?:TABLE\s+)?(?:EXTENDED\s+)?(?P<name>{NAME})",
                self._of(self._show.describe),
            ),
            (
                rf"(?:OPTIMIZE|VACUUM|ANALYZE\s+TABLE|REFRESH\s+TABLE)\s+(?P<name>{NAME}).*",
                self._maintenance,
            ),
        )
        self._commands = tuple((re.compile(p, _FLAGS), handler) for p, handler in commands)

    def execute(
        self, session: Session, text: str, parameters: Mapping[str | int, str] | None = None
    ) -> Result:
        text = clean(text)
        if not text:
            raise errors.syntax_error("the statement is empty")
        if re.match(r"BEGIN\b(?!\s+ATOMIC)", text, _FLAGS):
            result = DONE
            for statement in atomic.split_script(text):
                result = self.execute(session, statement)
            return result
        gate = self._catalog.gate
        with gate.exclusive() if _ALONE.match(text) else gate.shared():
            if re.match(r"BEGIN\s+ATOMIC\b", text, _FLAGS):
                return self._atomic(session, text)
            result = self._one(session, text, parameters or {})
            if _DEFINES.match(text):
                information_schema.remember(self._catalog)
            return result

    def _one(self, session: Session, text: str, parameters: Mapping[str | int, str]) -> Result:
        for pattern, handler in self._commands:
            if match := pattern.fullmatch(text):
                return handler(session, match)
        return self._parsed(session, text, parameters)

    def _parsed(self, session: Session, text: str, parameters: Mapping[str | int, str]) -> Result:
        clustering = Clustering()
        if re.match(r"(?:CREATE|REPLACE)\b", text, re.IGNORECASE):
            text = re.sub(
                r"\AREPLACE\s+TABLE\b", "CREATE OR REPLACE TABLE", text, flags=re.IGNORECASE
            )
            if match := _CLUSTER_BY.search(text):
                columns = split_name(match["columns"] or "")
                clustering = Clustering(columns, auto=match["auto"] is not None)
                text = text[: match.start()] + text[match.end() :]
        tree = parse(atomic.without_option(text))
        bind(tree, parameters)
        with Rewriter.open(self._catalog, self._engine, session) as rewriter:
            match tree:
                case exp.Insert():
                    return self._dml.insert(session, tree, rewriter)
                case exp.Merge():
                    return self._dml.merge(session, tree, rewriter)
                case exp.Delete():
                    return self._dml.delete(session, tree, rewriter)
                case exp.Update():
                    return self._dml.update(session, tree, rewriter)
                case exp.Create(kind="TABLE"):
                    return self._ddl.create_table(session, tree, rewriter, clustering)
                case exp.Create(kind="VIEW"):
                    return self._create_view(session, tree)
                case exp.Query():
                    return Result(self._engine.run(rewriter.query(tree)))
                case _:
                    raise errors.syntax_error(f"near '{text.split()[0]}'")

    def _atomic(self, session: Session, text: str) -> Result:
        """Several statements on several tables, all or none; nothing else runs meanwhile."""
        result = DONE
        with atomic.rollback_on_error(self._catalog):
            for statement in atomic.split_block(text):
                tree = parse(atomic.without_option(statement))
                if isinstance(tree, (exp.Insert, exp.Merge, exp.Update, exp.Delete)):
                    target = next(tree.this.find_all(exp.Table))
                    name = session.name([part.name for part in target.parts])
                    atomic.check_written(self._catalog, self._catalog.require_table(name))
                result = self._one(session, statement, {})
        return result

    # -- commands

    def _of(self, show: Callable[[Session, list[str]], Result]) -> Handler:
        return lambda session, match: show(session, split_name(match["name"]))

    def _volume_files(self, session: Session, match: re.Match[str]) -> Result:
        return self._volumes.execute(match[0])

    def _copy_into(self, session: Session, match: re.Match[str]) -> Result:
        return self._copy.execute(session, match[0])

    def _use_catalog(self, session: Session, match: re.Match[str]) -> Result:
        [catalog] = split_name(match["name"])
        self._catalog.require_catalog(catalog)
        session.catalog, session.schema = catalog.lower(), "default"
        return DONE

    def _use(self, session: Session, match: re.Match[str]) -> Result:
        catalog, schema = session.schema_name(split_name(match["name"]))
        self._catalog.require_schema(catalog, schema)
        session.catalog, session.schema = catalog, schema
        return DONE

    def _set(self, session: Session, match: re.Match[str]) -> Result:
        key, _, value = match["setting"].strip().partition("=")
        session.settings[key.strip()] = value.strip()
        return Result(rows(key=[key.strip()], value=[value.strip()]))

    def _create_catalog(self, session: Session, match: re.Match[str]) -> Result:
        self._catalog.create_catalog(split_name(match["name"])[0])
        return DONE

    def _create_schema(self, session: Session, match: re.Match[str]) -> Result:
        catalog, schema = session.schema_name(split_name(match["name"]))
        if schema == INFORMATION_SCHEMA:
            raise errors.SqlError("SCHEMA_ALREADY_EXISTS", f"Cannot create schema `{schema}`.")
        self._catalog.create_schema(catalog, schema, if_not_exists=bool(match["exists"]))
        return DONE

    def _drop_schema(self, session: Session, match: re.Match[str]) -> Result:
        catalog, schema = session.schema_name(split_name(match["name"]))
        cascade = (match["cascade"] or "").strip().upper() == "CASCADE"
        self._catalog.drop_schema(catalog, schema, if_exists=bool(match["exists"]), cascade=cascade)
        return DONE

    def _create_volume(self, session: Session, match: re.Match[str]) -> Result:
        name = session.name(split_name(match["name"]))
        self._catalog.create_volume(name, if_not_exists=bool(match["exists"]))
        return DONE

    def _drop_volume(self, session: Session, match: re.Match[str]) -> Result:
        name = session.name(split_name(match["name"]))
        self._catalog.drop_volume(name, if_exists=bool(match["exists"]))
        return DONE

    def _drop_table(self, session: Session, match: re.Match[str]) -> Result:
        name = session.name(split_name(match["name"]))
        self._catalog.drop_table(name, if_exists=bool(match["exists"]))
        return DONE

    def _drop_view(self, session: Session, match: re.Match[str]) -> Result:
        name = split_name(match["name"])[-1].lower()
        if session.views.pop(name, None) is None and not match["exists"]:
            raise errors.table_not_found(f"`{name}`")
        return DONE

    def _create_view(self, session: Session, tree: exp.Create) -> Result:
        table = tree.find(exp.Table)
        if not any(tree.find_all(exp.TemporaryProperty)) or table is None:
            raise errors.unsupported("views that are not temporary")
        name = table.name.lower()
        if name in session.views and not tree.args.get("replace"):
            raise errors.SqlError(
                "TEMP_TABLE_OR_VIEW_ALREADY_EXISTS",
                f"Cannot create the temporary view `{name}` because it already exists.",
            )
        with Rewriter.open(self._catalog, self._engine, session) as rewriter:
            self._engine.schema(rewriter.query(tree.expression))
            session.views[name] = rewriter.inline(tree.expression)
        return DONE

    def _truncate(self, session: Session, match: re.Match[str]) -> Result:
        return self._dml.truncate(session, split_name(match["name"]))

    def _rename_table(self, session: Session, match: re.Match[str]) -> Result:
        return self._ddl.rename_table(session, split_name(match["name"]), split_name(match["new"]))

    def _alter_table(self, session: Session, match: re.Match[str]) -> Result:
        return self._ddl.alter_table(session, split_name(match["name"]), match["action"].strip())

    def _comment(self, session: Session, match: re.Match[str]) -> Result:
        path = self._catalog.require_table(session.name(split_name(match["name"])))
        with self._catalog.table_lock(path):
            info = self._catalog.info(path)
            info.comment = None if match["text"].upper() == "NULL" else match["text"][1:-1]
            self._catalog.save_info(path, info)
        return DONE

    def _grant(self, session: Session, match: re.Match[str]) -> Result:
        path = self._catalog.require_table(session.name(split_name(match["name"])))
        principal = split_name(match["principal"])[0]
        asked = {(principal, p.strip().upper()) for p in match["privileges"].split(",")}
        with self._catalog.table_lock(path):
            info = self._catalog.info(path)
            held = {(who, what) for who, what in info.grants}
            granted = held | asked if match["verb"].upper() == "GRANT" else held - asked
            info.grants = sorted(granted)
            self._catalog.save_info(path, info)
        return DONE

    def _maintenance(self, session: Session, match: re.Match[str]) -> Result:
        self._catalog.require_table(session.name(split_name(match["name"])))
        return DONE

    def _show_schemas(self, session: Session, match: re.Match[str]) -> Result:
        catalog = split_name(match["name"])[0].lower() if match["name"] else session.catalog
        return self._show.schemas(catalog, match["like"])

    def _place(self, session: Session, match: re.Match[str]) -> tuple[str, str]:
        if match["name"]:
            return session.schema_name(split_name(match["name"]))
        return session.catalog, session.schema

    def _show_tables(self, session: Session, match: re.Match[str]) -> Result:
        return self._show.tables(*self._place(session, match), match["like"])

    def _show_volumes(self, session: Session, match: re.Match[str]) -> Result:
        return self._show.volumes(*self._place(session, match), match["like"])
