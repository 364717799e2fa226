"""CREATE, REPLACE, CLONE and ALTER of tables, as one version of the Delta log each.

A new table is built aside by the engine, which knows every type and property, and then published:
so `CREATE OR REPLACE TABLE … AS` never shows a reader an empty or missing table.
"""

from __future__ import annotations

import re
import uuid
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sqlglot import exp

from . import column_rules, errors, variants
from .catalog import Clustering, TableInfo, table_exists
from .delta_log import Metadata, commit, commit_metadata, latest_version, publish, read_metadata
from .engine import NO_STATISTICS, delta_table, literal, quote
from .queries import generate, parts_of
from .session import DONE, Result
from .type_names import sql_type, widens

if TYPE_CHECKING:
    from pathlib import Path

    from .catalog import Catalog, Name
    from .engine import Engine
    from .queries import Rewriter
    from .session import Session

#: Kept beside the log and shown to clients, but never acted on.
_HIDDEN_PROPERTIES = (
    "delta.enableDeletionVectors",
    "delta.enableChangeDataFeed",
    "delta.dataSkipping",
    "delta.autoOptimize",
    "delta.feature.",
)
_NTZ = "delta.feature.timestampNtz"
_BAD_COLUMN = re.compile(r"[ ,;{}()\n\t=]")
_NAME_PART = r"(?:`(?:[^`]|``)+`|[\w$-]+)"
_POSITION = rf"\s+(?:FIRST|AFTER\s+({_NAME_PART}))\s*$"
NAME = rf"{_NAME_PART}(?:\s*\.\s*{_NAME_PART})*"


def split_name(text: str) -> list[str]:
    """The parts of a dotted name."""
    found = re.findall(_NAME_PART, text)
    return [p[1:-1].replace("``", "`") if p.startswith("`") else p for p in found]


def split_list(text: str) -> list[str]:
    """Items of a list by its top-level commas."""
    items, depth, quoted, start = [], 0, "", 0
    for position, char in enumerate(text):
        if quoted:
            quoted = "" if char == quoted else quoted
        elif char in "'\"`":
            quoted = char
        elif char in "(<":
            depth += 1
        elif char in ")>":
            depth -= 1
        elif char == "," and depth == 0:
            items.append(text[start:position].strip())
            start = position + 1
    items.append(text[start:].strip())
    return [item for item in items if item]


def parse_properties(text: str) -> dict[str, str]:
    """`'key' = 'value', …` as a dictionary of strings."""
    found = {}
    for item in split_list(text):
        key, _, value = item.partition("=")
        found[key.strip().strip("'\"`")] = value.strip().strip("'\"")
    return found


class Ddl:
    """Statements that change what a table is."""

    def __init__(self, catalog: Catalog, engine: Engine) -> None:
        self._catalog = catalog
        self._engine = engine

    # -- CREATE

    def create_table(
        self, session: Session, tree: exp.Create, rewriter: Rewriter, clustering: Clustering
    ) -> Result:
        cluster_by = clustering.columns
        table = tree.find(exp.Table)
        if table is None:
            raise errors.syntax_error("CREATE TABLE without a name")
        name = session.name(parts_of(table))
        self._catalog.require_schema(name.catalog, name.schema)
        path = self._catalog.table_path(name)
        with self._catalog.table_lock(path):
            exists = self._catalog.table_exists(name)
            if exists and not tree.args.get("replace"):
                if tree.args.get("exists"):
                    return DONE
                raise table_exists(name)
            if "." in name.object or " " in name.object or "/" in name.object:
                raise errors.SqlError(
                    "INVALID_PARAMETER_VALUE", f'name "{name.object}" is not a valid name.'
                )
            scratch = self._catalog.scratch()
            try:
                info = self._build(session, tree, rewriter, scratch)
                info.cluster_by, info.cluster_by_auto = cluster_by, clustering.auto
                if exists:  # of what was set on the old table, only these stay
                    old = self._catalog.info(path)
                    info.grants, info.loaded_files = old.grants, old.loaded_files
                columns = read_metadata(scratch).column_names
                _check_columns(columns, mapped=read_metadata(scratch).mapped)
                for column in cluster_by:
                    require_clusterable(read_metadata(scratch), column)
                verb = "CREATE OR REPLACE TABLE" if tree.args.get("replace") else "CREATE TABLE"
                as_select = tree.expression is not None and not tree.args.get("clone")
                operation = verb + (" AS SELECT" if as_select else "")
                if exists:
                    publish(scratch, path, operation)
                    self._catalog.save_info(path, info)
                else:
                    staged = self._catalog.scratch()
                    publish(scratch, staged, operation)
                    self._catalog.save_info(staged, info)
                    staged.rename(path)
            finally:
                self._catalog.discard(scratch)
        return DONE

    def _build(
        self, session: Session, tree: exp.Create, rewriter: Rewriter, scratch: Path
    ) -> TableInfo:
        """Make the new table at `scratch`."""
        clone = tree.args.get("clone")
        properties, comment, partitions = _table_options(tree)
        copied = clone or tree.find(exp.LikeProperty)
        if copied is not None:
            source = next(copied.find_all(exp.Table))
            origin = self._catalog.require_table(session.name(parts_of(source)))
            self._copy(origin, scratch, with_rows=clone is not None)
            old = self._catalog.info(origin)
            return TableInfo(hidden_properties=old.hidden_properties, comment=old.comment)
        info = TableInfo(comment=comment)
        visible = {NO_STATISTICS: "0"}
        for key, value in properties.items():
            hidden = key.startswith(_HIDDEN_PROPERTIES)
            (info.hidden_properties if hidden else visible)[key] = value
        columns = ""
        if isinstance(tree.this, exp.Schema):
            defined = _column_defs(tree.this)
            columns = f" ({', '.join(_column(c) for c in defined)})"
            rules = {c.name.lower(): column_rules.rules_of(c) for c in defined}
            info.columns = {name: found for name, found in rules.items() if found}
            if any("default" in found for found in info.columns.values()):
                column_rules.require_defaults(properties)
        statement = (
            f"CREATE TABLE {quote('c_' + uuid.uuid4().hex)}{columns} USING delta "
            f"LOCATION {literal(str(scratch))}"
        )
        if partitions:
            statement += f" PARTITIONED BY ({', '.join(quote(p) for p in partitions)})"
        pairs = ", ".join(f"{literal(k)} = {literal(v)}" for k, v in visible.items())
        statement += f" TBLPROPERTIES ({pairs})"
        if tree.expression is not None:
            query = rewriter.distinct_names(tree.expression.copy())
            text = rewriter.query(query)
            if not visible.get("delta.columnMapping.mode"):
                _check_columns(self._engine.schema(text).names, mapped=False)
            statement += " AS " + text
        else:
            names = [c.name for c in _column_defs(tree.this)] if columns else []
            _check_columns(names, mapped=bool(visible.get("delta.columnMapping.mode")))
        self._engine.run(statement)
        self._engine.run(f"DROP TABLE {statement.split()[2]}")
        return info

    def _copy(self, origin: Path, scratch: Path, *, with_rows: bool) -> None:
        metadata = replace(read_metadata(origin), id=str(uuid.uuid4()), version=0)
        (scratch / "_delta_log").mkdir(parents=True)
        commit(scratch, 0, "CREATE TABLE", metadata.actions())
        if with_rows:
            with self._engine.named(scratch) as table:
                self._engine.run(f"INSERT INTO {table} SELECT * FROM {delta_table(origin)}")

    # -- ALTER

    def alter_table(self, session: Session, parts: list[str], action: str) -> Result:
        name = session.name(parts)
        path = self._catalog.require_table(name)
        with self._catalog.table_lock(path):
            for pattern, method in _ALTERATIONS:
                if match := re.fullmatch(pattern, action, re.IGNORECASE | re.DOTALL):
                    getattr(self, method)(name, path, match)
                    return DONE
        raise errors.syntax_error(f"near '{action.split(maxsplit=1)[0]}' in ALTER TABLE")

    def rename_table(self, session: Session, old: list[str], new: list[str]) -> Result:
        self._catalog.rename_table(session.name(old), session.name(new))
        return DONE

    def _add_columns(self, name: Name, path: Path, match: re.Match[str]) -> None:
        text = match["columns"].strip()
        if text.startswith("(") and text.endswith(")"):
            text = text[1:-1]
        definitions, positions = [], []
        for item in split_list(text):
            definition = re.sub(r"^IF\s+NOT\s+EXISTS\s+", "", item, flags=re.IGNORECASE)
            position = re.search(_POSITION, definition, re.IGNORECASE)
            definition = definition[: position.start()] if position else definition
            definitions.append(
                re.sub(
                    r"\s+VARIANT\s*\Z", f" {variants.ENGINE_TYPE}", definition, flags=re.IGNORECASE
                )
            )
            positions.append(position)
        for definition in definitions:
            _check_added(column_rules.rules_of(column_rules.definition(definition)))
        metadata = read_metadata(path)
        present = {column.lower() for column in metadata.column_names}
        scratch = self._catalog.scratch()
        try:
            table = quote("a_" + uuid.uuid4().hex)
            # Mapped, so that any name passes; whether it may is checked below.
            self._engine.run(
                f"CREATE TABLE {table} ({', '.join(definitions)}) USING delta "
                f"LOCATION {literal(str(scratch))} "
                "TBLPROPERTIES ('delta.columnMapping.mode' = 'name')"
            )
            self._engine.run(f"DROP TABLE {table}")
            made = read_metadata(scratch)
        finally:
            self._catalog.discard(scratch)
        new = []
        for column, position in zip(made.fields, positions, strict=True):
            if column["name"].lower() in present:
                if match["exists"]:
                    continue
                raise errors.SqlError(
                    "FIELD_ALREADY_EXISTS",
                    f"Cannot add column, because `{column['name']}` already exists in {name}.",
                )
            own = {k: v for k, v in column["metadata"].items() if "columnMapping" not in k}
            new.append((dict(column, metadata=own), position))
        if not new:
            return
        if any(not column["nullable"] for column, _ in new):
            raise errors.SqlError(
                "DELTA_UNSUPPORTED_ALTER_TABLE_CHANGE_COL_OP",
                "A NOT NULL column cannot be added to a table.",
            )
        _check_columns([column["name"] for column, _ in new], mapped=metadata.mapped)
        if any(column["type"] == "timestamp_ntz" for column, _ in new):
            require_ntz(metadata)
        if any(variants.is_variant(column["type"]) for column, _ in new):
            self._require_variant(path, metadata)
        changed = metadata
        for column, position in new:
            at = None
            if position:
                at = changed.index_of(split_name(position[1])[0]) + 1 if position[1] else 0
            changed = changed.with_columns((column,), at)
        changed = changed.with_features(
            made.features - {"columnMapping", "appendOnly", "invariants"}
        )
        commit_metadata(path, changed, "ADD COLUMNS")

    def _require_variant(self, path: Path, metadata: Metadata) -> None:
        """A table has the feature if it was created with such a column, or by a property."""
        enabled = self._catalog.info(path).hidden_properties.get(variants.FEATURE) == "supported"
        if not (enabled or any(variants.is_variant(f["type"]) for f in metadata.fields)):
            raise errors.SqlError(
                "DELTA_FEATURES_REQUIRE_MANUAL_ENABLEMENT",
                "Your table schema requires manually enablement of the following table "
                "feature(s): variantType-preview. To do this, run the following command for each "
                "of features listed above: ALTER TABLE table_name SET TBLPROPERTIES "
                f"('{variants.FEATURE}' = 'supported').",
            )

    def _rename_column(self, name: Name, path: Path, match: re.Match[str]) -> None:
        metadata = self._mapped(path, "DELTA_UNSUPPORTED_RENAME_COLUMN", "Column rename")
        [old], [new] = split_name(match["old"]), split_name(match["new"])
        index = metadata.index_of(old)
        if new.lower() != old.lower() and new.lower() in {c.lower() for c in metadata.column_names}:
            raise errors.SqlError(
                "FIELD_ALREADY_EXISTS",
                f"Cannot rename column, because `{new}` already exists in {name}.",
            )
        info = self._catalog.info(path)
        _refuse_dependents(info, old)
        columns = list(metadata.fields)
        columns[index] = dict(columns[index], name=new)
        commit_metadata(path, replace(metadata, fields=tuple(columns)), "RENAME COLUMN")
        column_rules.renamed(info, old, new)
        info.cluster_by = [new if c.lower() == old.lower() else c for c in info.cluster_by]
        self._catalog.save_info(path, info)

    def _drop_columns(self, name: Name, path: Path, match: re.Match[str]) -> None:
        metadata = self._mapped(path, "DELTA_UNSUPPORTED_DROP_COLUMN", "DROP COLUMN")
        text = match["columns"].strip()
        dropped = {column.lower() for column in split_name(text)}
        for column in dropped:
            if not match["exists"] or column in {c.lower() for c in metadata.column_names}:
                metadata.index_of(column)
        info = self._catalog.info(path)
        if clustered := dropped & {column.lower() for column in info.cluster_by}:
            raise errors.SqlError(
                "DELTA_UNSUPPORTED_DROP_CLUSTERING_COLUMN",
                f"Dropping clustering columns ({', '.join(sorted(clustered))}) is not supported.",
            )
        for column in dropped:
            _refuse_dependents(info, column)
            info.columns.pop(column, None)
        self._catalog.save_info(path, info)
        kept = tuple(c for c in metadata.fields if c["name"].lower() not in dropped)
        commit_metadata(path, replace(metadata, fields=kept), "DROP COLUMNS")

    def _mapped(self, path: Path, error_class: str, what: str) -> Metadata:
        metadata = read_metadata(path)
        if not metadata.mapped:
            raise errors.SqlError(
                error_class,
                f"{what} is not supported for your Delta table. Please enable Column Mapping on "
                "your Delta table with mapping mode 'name'.",
            )
        return metadata

    def _set_properties(self, name: Name, path: Path, match: re.Match[str]) -> None:
        metadata, info = read_metadata(path), self._catalog.info(path)
        visible = dict(metadata.configuration)
        mapping = False
        features: frozenset[str] = frozenset()
        for key, value in parse_properties(match["properties"]).items():
            if key == _NTZ and value == "supported":
                features |= {"timestampNtz"}
            elif key.startswith(_HIDDEN_PROPERTIES):
                info.hidden_properties[key] = value
            elif key == "delta.columnMapping.mode" and value == "name" and not metadata.mapped:
                mapping = True
            else:
                visible[key] = value
        self._catalog.save_info(path, info)
        changed = replace(metadata, configuration=visible)
        changed = changed.with_column_mapping() if mapping else changed
        if visible.get("delta.enableTypeWidening") == "true":
            features |= {"typeWidening"}
        if features:
            changed = changed.with_features(changed.features | features)
        if changed != metadata:
            commit_metadata(path, changed, "SET TBLPROPERTIES")

    def _unset_properties(self, name: Name, path: Path, match: re.Match[str]) -> None:
        metadata, info = read_metadata(path), self._catalog.info(path)
        keys = {key.strip("'\"` ") for key in split_list(match["properties"])}
        kept = {k: v for k, v in metadata.configuration.items() if k not in keys}
        info.hidden_properties = {k: v for k, v in info.hidden_properties.items() if k not in keys}
        self._catalog.save_info(path, info)
        commit_metadata(path, replace(metadata, configuration=kept), "UNSET TBLPROPERTIES")

    def _cluster_by(self, name: Name, path: Path, match: re.Match[str]) -> None:
        info = self._catalog.info(path)
        info.cluster_by = split_name(match["columns"] or "")
        info.cluster_by_auto = match["auto"] is not None
        for column in info.cluster_by:
            require_clusterable(read_metadata(path), column)
        self._catalog.save_info(path, info)

    def _nullability(self, name: Name, path: Path, match: re.Match[str]) -> None:
        metadata = read_metadata(path)
        index = metadata.index_of(split_name(match["column"])[0])
        columns = list(metadata.fields)
        own, nullable = columns[index]["name"], match["verb"].upper() == "DROP"
        if not nullable and self._any(path, f"{quote(own)} IS NULL"):
            raise errors.SqlError(
                "DELTA_NEW_NOT_NULL_VIOLATION",
                f"Rows in {name} violate the new NOT NULL constraint on {own}.",
            )
        columns[index] = dict(columns[index], nullable=nullable)
        commit_metadata(path, replace(metadata, fields=tuple(columns)), "CHANGE COLUMN")

    def _any(self, path: Path, condition: str) -> bool:
        found = self._engine.run(
            f"SELECT 1 AS x FROM {delta_table(path)} WHERE {condition} LIMIT 1"
        )
        return len(found) > 0

    def _column_type(self, name: Name, path: Path, match: re.Match[str]) -> None:
        metadata, info = read_metadata(path), self._catalog.info(path)
        column = metadata.fields[metadata.index_of(split_name(match["column"])[0])]
        before, wanted = sql_type(column["type"]), match["type"].strip().lower().replace(" ", "")
        allowed = metadata.configuration.get("delta.enableTypeWidening") == "true"
        if before == wanted:
            return
        if not allowed or not widens(before, wanted):
            raise errors.SqlError(
                "DELTA_UNSUPPORTED_ALTER_TABLE_CHANGE_COL_OP",
                f"ALTER TABLE CHANGE COLUMN is not supported for changing column {column['name']} "
                f"from {before.upper()} to {wanted.upper()}.",
            )
        _refuse_dependents(info, column["name"])
        if wanted == "timestamp_ntz":
            require_ntz(metadata)
        version = latest_version(path)
        with self._engine.named(path) as table:
            try:
                own = quote(column["name"])
                self._engine.run(f"ALTER TABLE {table} ALTER COLUMN {own} TYPE {match['type']}")
            except errors.SqlError:
                # The engine fails on its own catalog's entry after it has committed.
                if latest_version(path) == version:
                    raise

    def _column_place(self, name: Name, path: Path, match: re.Match[str]) -> None:
        metadata = read_metadata(path)
        columns = list(metadata.fields)
        column = columns.pop(metadata.index_of(split_name(match["column"])[0]))
        at = 0
        if match["after"]:
            left = replace(metadata, fields=tuple(columns))
            at = left.index_of(split_name(match["after"])[0]) + 1
        columns.insert(at, column)
        commit_metadata(path, replace(metadata, fields=tuple(columns)), "CHANGE COLUMN")

    def _default(self, name: Name, path: Path, match: re.Match[str]) -> None:
        metadata, info = read_metadata(path), self._catalog.info(path)
        column = metadata.fields[metadata.index_of(split_name(match["column"])[0])]["name"].lower()
        rules = info.columns.setdefault(column, {})
        if match["default"] is None:
            rules.pop("default", None)
        else:
            column_rules.require_defaults(info.hidden_properties)
            rules["default"] = match["default"].strip()
        self._catalog.save_info(path, info)

    def _comment_column(self, name: Name, path: Path, match: re.Match[str]) -> None:
        metadata = read_metadata(path)
        index = metadata.index_of(split_name(match["column"])[0])
        columns = list(metadata.fields)
        own = {**columns[index]["metadata"], "comment": text_of(match["text"])}
        columns[index] = dict(columns[index], metadata=own)
        commit_metadata(path, replace(metadata, fields=tuple(columns)), "CHANGE COLUMN")

    def _column_tags(self, name: Name, path: Path, match: re.Match[str]) -> None:
        metadata, info = read_metadata(path), self._catalog.info(path)
        column = metadata.fields[metadata.index_of(split_name(match["column"])[0])]["name"].lower()
        tags = info.columns.setdefault(column, {}).setdefault("tags", {})
        _change_tags(tags, match)
        self._catalog.save_info(path, info)

    def _add_constraint(self, name: Name, path: Path, match: re.Match[str]) -> None:
        info, constraint = self._catalog.info(path), split_name(match["constraint"])[0].lower()
        if constraint in info.checks or constraint in info.keys:
            raise errors.SqlError(
                "DELTA_CONSTRAINT_ALREADY_EXISTS",
                f"Constraint '{constraint}' already exists. Please delete the old one first.",
            )
        text = match["text"].strip()
        if check := re.fullmatch(r"CHECK\s*\((?P<check>.*)\)", text, re.IGNORECASE | re.DOTALL):
            if self._any(path, f"NOT ({check['check']})"):
                raise errors.SqlError(
                    "DELTA_NEW_CHECK_CONSTRAINT_VIOLATION",
                    f"Rows in {name} violate the new CHECK constraint ({check['check']}).",
                )
            info.checks[constraint] = check["check"].strip()
        else:
            info.keys[constraint] = text
        self._catalog.save_info(path, info)

    def _drop_constraint(self, name: Name, path: Path, match: re.Match[str]) -> None:
        info, constraint = self._catalog.info(path), split_name(match["constraint"])[0].lower()
        if constraint not in info.checks and constraint not in info.keys and not match["exists"]:
            raise errors.SqlError(
                "DELTA_CONSTRAINT_DOES_NOT_EXIST",
                f"Cannot drop nonexistent constraint {constraint} from table {name}.",
            )
        info.checks.pop(constraint, None)
        info.keys.pop(constraint, None)
        self._catalog.save_info(path, info)

    def _row_filter(self, name: Name, path: Path, match: re.Match[str]) -> None:
        info = self._catalog.info(path)
        info.row_filter = match["filter"]
        self._catalog.save_info(path, info)

    def _tags(self, name: Name, path: Path, match: re.Match[str]) -> None:
        info = self._catalog.info(path)
        _change_tags(info.tags, match)
        self._catalog.save_info(path, info)

    def _nothing(self, name: Name, path: Path, match: re.Match[str]) -> None:
        """Accepted, and forgotten."""


_COLUMN = rf"(?:ALTER|CHANGE)\s+COLUMN\s+(?P<column>{_NAME_PART})"
_TAGS = r"(?P<verb>SET|UNSET)\s+TAGS\s*\((?P<tags>.*)\)"
_CONSTRAINT = rf"(?P<constraint>{_NAME_PART})"
_ALTERATIONS = (
    (
        r"ADD\s+COLUMNS?\b\s*(?P<exists>IF\s+NOT\s+EXISTS\b)?(?P<columns>.*)",
        "_add_columns",
    ),
    (rf"RENAME\s+COLUMN\s+(?P<old>{_NAME_PART})\s+TO\s+(?P<new>{_NAME_PART})", "_rename_column"),
    (r"DROP\s+COLUMNS?\b\s*(?P<exists>IF\s+EXISTS\b)?(?P<columns>.*)", "_drop_columns"),
    (r"SET\s+TBLPROPERTIES\s*\((?P<properties>.*)\)", "_set_properties"),
    (r"UNSET\s+TBLPROPERTIES\s*(?:IF\s+EXISTS\s*)?\((?P<properties>.*)\)", "_unset_properties"),
    (r"CLUSTER\s+BY\s+(?:NONE|(?P<auto>AUTO)|\((?P<columns>.*)\))", "_cluster_by"),
    (rf"{_COLUMN}\s+(?P<verb>SET|DROP)\s+NOT\s+NULL", "_nullability"),
    (rf"{_COLUMN}\s+(?:SET\s+DATA\s+)?TYPE\s+(?P<type>.+)", "_column_type"),
    (rf"{_COLUMN}\s+(?:FIRST|AFTER\s+(?P<after>{_NAME_PART}))", "_column_place"),
    (rf"{_COLUMN}\s+(?:SET\s+DEFAULT\s+(?P<default>.+)|DROP\s+DEFAULT)", "_default"),
    (rf"{_COLUMN}\s+COMMENT\s+(?P<text>'.*')", "_comment_column"),
    (rf"{_COLUMN}\s+{_TAGS}", "_column_tags"),
    (_TAGS, "_tags"),
    (rf"ADD\s+CONSTRAINT\s+{_CONSTRAINT}\s+(?P<text>.*)", "_add_constraint"),
    (
        rf"DROP\s+CONSTRAINT\s+(?P<exists>IF\s+EXISTS\s+)?{_CONSTRAINT}(?:\s+CASCADE)?",
        "_drop_constraint",
    ),
    (r"(?:ADD|DROP)\s+(?:PRIMARY|FOREIGN)\b.*", "_nothing"),
    (r"SET\s+ROW\s+FILTER\s+(?P<filter>.*)|DROP\s+ROW\s+FILTER", "_row_filter"),
    (r"(?:SET\s+OWNER|OWNER)\s+TO\b.*", "_nothing"),
)


def _column_defs(schema: exp.Schema) -> list[exp.ColumnDef]:
    return [item for item in schema.expressions if isinstance(item, exp.ColumnDef)]


def _column(definition: exp.ColumnDef) -> str:
    """A column as the engine takes it: all else is kept beside the log."""
    definition = definition.copy()
    known = (exp.NotNullColumnConstraint, exp.CommentColumnConstraint)
    kept = [c for c in definition.constraints if isinstance(c.kind, known)]
    definition.set("constraints", kept)
    return generate(variants.in_engine(definition))


def _check_added(rules: dict[str, Any]) -> None:
    """What a column that is added to a table cannot have."""
    if "default" in rules:
        raise errors.SqlError(
            "WRONG_COLUMN_DEFAULTS_FOR_DELTA_ALTER_TABLE_ADD_COLUMN_NOT_SUPPORTED",
            "Failed to execute the command because DEFAULT values are not supported when adding "
            "new columns to previously existing Delta tables; please add the column without a "
            "default value first, then run a second ALTER TABLE ALTER COLUMN SET DEFAULT command "
            "to apply for future inserted rows instead.",
        )
    if rules:
        raise errors.SqlError(
            "DELTA_UNSUPPORTED_ALTER_TABLE_CHANGE_COL_OP",
            "A generated column cannot be added to a table.",
        )


def require_clusterable(metadata: Metadata, column: str) -> None:
    if variants.is_variant(metadata.fields[metadata.index_of(column)]["type"]):
        raise errors.SqlError(
            "DELTA_CLUSTERING_COLUMNS_DATATYPE_NOT_SUPPORTED",
            f"CLUSTER BY is not supported because the following column(s): {column} of type "
            "VARIANT don't support data skipping.",
        )


def require_ntz(metadata: Metadata) -> None:
    if "timestampNtz" not in metadata.features:
        raise errors.SqlError(
            "DELTA_FEATURES_REQUIRE_MANUAL_ENABLEMENT",
            "Your table schema requires manually enablement of the following table feature(s): "
            "timestampNtz. To do this, run the following command for each of features listed "
            f"above: ALTER TABLE table_name SET TBLPROPERTIES ('{_NTZ}' = 'supported').",
        )


def _refuse_dependents(info: TableInfo, column: str) -> None:
    if dependent := column_rules.uses(info, column):
        raise errors.SqlError(
            "DELTA_CONSTRAINT_DEPENDENT_COLUMN_CHANGE",
            f"Cannot alter column {column} because it is referenced by {dependent}.",
        )


def _change_tags(tags: dict[str, str], match: re.Match[str]) -> None:
    if match["verb"].upper() == "SET":
        tags.update(parse_properties(match["tags"]))
        return
    for key in split_list(match["tags"]):
        tags.pop(key.strip("'\"` "), None)


def text_of(literal: str) -> str:
    """The text of a string literal."""
    return re.sub(r"\\(.)", r"\1", literal[1:-1])


def _table_options(tree: exp.Create) -> tuple[dict[str, str], str | None, list[str]]:
    properties: dict[str, str] = {}
    comment: str | None = None
    partitions: list[str] = []
    listed = tree.args.get("properties")
    for item in listed.expressions if listed is not None else ():
        match item:
            case exp.SchemaCommentProperty():
                comment = item.this.name
            case exp.PartitionedByProperty():
                partitions = [c.name for c in item.this.expressions]
            case exp.FileFormatProperty():
                if item.this.name.lower() != "delta":
                    raise errors.unsupported(f"tables of format {item.this.name}")
            case exp.Property() if type(item) is exp.Property:
                value = item.args["value"]
                properties[item.this.name] = (
                    str(value.this).lower() if isinstance(value, exp.Boolean) else value.name
                )
            case exp.LocationProperty():
                raise errors.unsupported("external tables")
            case _:
                pass
    return properties, comment, partitions


def _check_columns(names: list[str], *, mapped: bool) -> None:
    lower = [name.lower() for name in names]
    doubled = sorted({name for name in lower if lower.count(name) > 1})
    if doubled:
        raise errors.SqlError(
            "DELTA_DUPLICATE_COLUMNS_FOUND",
            f"Found duplicate column(s) in the data to save: {', '.join(doubled)}.",
        )
    bad = [name for name in names if _BAD_COLUMN.search(name)]
    if bad and not mapped:
        raise errors.SqlError(
            "DELTA_INVALID_CHARACTERS_IN_COLUMN_NAMES",
            "Found invalid character(s) among ' ,;{}()\\n\\t=' in the column names of your schema. "
            f"Invalid column names: {', '.join(bad)}. Please use other characters and try again. "
            "Alternatively, enable Column Mapping to keep using these characters.",
        )
