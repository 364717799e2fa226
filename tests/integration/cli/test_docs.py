"""README and docs against the program: the examples run, the references are complete."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from entrypoints.cli.arguments import build_parser
from entrypoints.cli.parameters import OPTIONS
from entrypoints.settings.model import SECTIONS, Settings, SourceSettings

ROOT = Path(__file__).parents[3]
README = (ROOT / "README.md").read_text()
COMMANDS = (ROOT / "docs/reference/commands.md").read_text()
SETTINGS = (ROOT / "docs/reference/settings.md").read_text()
PAGES = [README, *(page.read_text() for page in sorted((ROOT / "docs").rglob("*.md")))]


def _blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_embedding_example_runs(shop):
    shop.run("simulate", "7", "0", "0")
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("PIPELINE__", "SOURCES__"))}
    environ |= {
        "DATABASE_URL": shop.dsn,
        "SOURCES__PG_REPLICATION__SLOT_NAME": shop.database,
        "DLT_PROJECT_DIR": str(shop.folder),
    }
    first, second = _blocks(README, "python")
    done = subprocess.run(
        [sys.executable, "-c", first + "\n" + second],
        cwd=shop.folder,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("7 rows at LSN")


def test_commands_in_the_pages_parse():
    told = [
        line.partition("#")[0].replace("uv run ", "").strip()
        for text in PAGES
        for block in _blocks(text, "sh")
        for line in block.splitlines()
        if re.match(r"(uv run )?pgbronze ", line)
    ]
    assert len(told) > 10
    for line in told:
        assert build_parser().parse_args(line.split()[1:]).command


def test_every_command_and_option_is_in_the_reference():
    commands = build_parser()._subparsers._group_actions[0].choices
    for name, parser in commands.items():
        line = next(line for line in COMMANDS.splitlines() if line.startswith(f"| `{name}"))
        for action in parser._actions:
            for option in set(action.option_strings) - {"-h", "--help", "--destination"}:
                assert option in line, (name, option)


@pytest.mark.parametrize("command", ["status", "verify"])
def test_every_key_of_a_document_is_in_the_reference(shop, command):
    shop.sql("CREATE TABLE orders (id int PRIMARY KEY); INSERT INTO orders VALUES (1)")
    shop.run("snapshot")
    shop.sql("DELETE FROM orders")
    document = json.loads(shop.run(command, "--json", code=None).out)
    section = COMMANDS.partition(f"## `{command} --json`")[2].partition("\n## ")[0]
    named = set(re.findall(r"`(\w+)`", section))
    assert _keys(document) - {"id"} <= named


def _keys(document):
    if isinstance(document, list):
        return set().union(*map(_keys, document))
    if not isinstance(document, dict):
        return set()
    return set(document).union(*map(_keys, document.values()))


def test_settings_that_messages_name_exist():
    """Of the source's section: its path is no Python that could be meant instead."""
    texts = [*PAGES, *(file.read_text() for file in (ROOT / "src").rglob("*.py"))]
    told = {
        name for text in texts for name in re.findall(r"sources\.pg_replication\.([a-z_]+)", text)
    }
    assert len(told) > 5
    assert told <= set(SourceSettings.model_fields)


def test_every_setting_that_is_an_option_is_in_the_reference():
    rows = dict(re.findall(r"^\| `\[(.*?)\]` \| (.*) \|$", COMMANDS, re.MULTILINE))
    for name, key in OPTIONS.items():
        section, _, last = key.rpartition(".")
        told = f"`--{name}`" if name == last.replace("_", "-") else f"`--{name}` (`{last}`)"
        assert told in rows[section].split(", "), name


@pytest.mark.parametrize("section", [*SECTIONS, "destination.databricks.credentials"])
def test_every_setting_is_in_the_reference_with_its_default(section):
    model = Settings
    for part in section.split("."):
        model = model.model_fields[part].annotation
    table = SETTINGS.partition(f"## `[{section}]`")[2].partition("\n## ")[0]
    for name, field in model.model_fields.items():
        if name == "credentials" and section == "destination.databricks":
            continue
        row = re.search(rf"^\| `{name}` \| (.*?) \|", table, re.MULTILINE)
        assert row, name
        default = field.default
        match default:
            case None:
                told = "none"
            case bool():
                told = f"`{str(default).lower()}`"
            case tuple():
                told = "`[" + ", ".join(f'"{item}"' for item in default) + "]`"
            case str():
                told = f'`"{default}"`'
            case float():
                told = f"`{default:g}`"
            case int() if name.endswith("bytes"):
                told = f'`"{default >> 20}MB"`'
            case _:
                told = f"`{default}`"
        assert row[1] == told, name


def test_links_lead_somewhere():
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")):
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), (page, target)
