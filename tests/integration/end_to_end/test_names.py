"""Names of tables and schemas in any character that PostgreSQL takes."""

from __future__ import annotations

import json
import string
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg import sql

from tests.support import oracle
from tests.support.lakes import lake_of
from tests.support.pipeline import InProcess

if TYPE_CHECKING:
    from pathlib import Path

MARKS = string.punctuation + " \t\n\x01\x7f\u00a0éſ漢🐘\u202e"
#: Behind a percent sign, `2f` is a slash for those who decode it.
NAMES = [f"a{mark}2f" for mark in MARKS]
NAMES += ["a", "A", "a2f", "..", "init", "_cdc_written", "_delta_log", "a ", " a", "%20", "a_2f_2"]
# dlt's own tables, where case makes no difference.
NAMES += ["_DLT_LOADS", "_Dlt_Version"]
#: Those that a catalog may see otherwise than a file system.
FEW_NAMES = [f"a{mark}2f" for mark in " /.\n\x7f\u00a0%`'\\"] + [
    "a",
    "A",
    "a_2f",
    "a2f ",
    "_DLT_LOADS",
]
SCHEMA = f"s{string.punctuation}2f"

TABLE = "CREATE TABLE {0} (id int PRIMARY KEY, v text); INSERT INTO {0} VALUES (1, {1}), (2, 'b')"
CHANGES = """
UPDATE {0} SET v = v || 'c' WHERE id = 1; DELETE FROM {0} WHERE id = 2;
INSERT INTO {0} VALUES (3, {1})
"""


@pytest.mark.parametrize(
    ("kind", "tables"), [("duckdb", NAMES), ("delta", NAMES), ("databricks", FEW_NAMES)]
)
def test_any_name_is_held_or_mapped_as_check_says(
    database: str, tmp_path: Path, request: pytest.FixtureRequest, kind: str, tables: list[str]
) -> None:
    lake = lake_of(kind, tmp_path, request)
    schemas = json.dumps(["public", SCHEMA])
    pipeline = InProcess(database, lake, SOURCES__PG_REPLICATION__SCHEMAS=schemas)
    names = [*(sql.Identifier("public", name) for name in tables), sql.Identifier(SCHEMA, "t")]
    with psycopg.connect(database, autocommit=True) as connection:

        def everywhere(statements: str) -> None:
            for name in names:
                text = sql.Literal(name.as_string())
                connection.execute(sql.SQL(statements).format(name, text))  # type: ignore[arg-type]

        connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(SCHEMA)))
        everywhere(TABLE)
        pipeline.run("snapshot")
        names.append(sql.Identifier("public", "new[2f"))
        connection.execute(sql.SQL(TABLE).format(names[-1], "new"))
        everywhere(CHANGES)
        pipeline.run("cdc")
        compared = document(pipeline.run("verify", "--json"))["tables"]
        targets = {line["table"]: line["target"] for line in compared if line["equal"]}
        assert len({target.casefold() for target in targets.values()}) == len(names)
        source, checked = oracle.Source(connection), pipeline.run("check")
        for name in names:
            schema, table = name._obj
            wanted = table if schema == "public" else f"{schema}__{table}"
            target = targets[f"{schema}.{table}"]
            stored = lake.read(target)
            assert not list(oracle.differences(source.read(name.as_string()), stored)), target
            sentence = (
                f": the destination cannot use the name {wanted}: the table becomes {target};"
            )
            assert (shown(sentence) in checked) == (target != wanted)
        # What has its name already keeps it.
        pipeline.run("snapshot")
        states = document(pipeline.run("status", "--json"))["tables"]
        assert {line["table"]: line["target"] for line in states} == targets


def shown(text: str) -> str:
    """As a line on a terminal has it."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def document(output: str) -> dict[str, list[dict[str, str]]]:
    found: dict[str, list[dict[str, str]]] = json.loads(output[output.index("{\n") :])
    return found
