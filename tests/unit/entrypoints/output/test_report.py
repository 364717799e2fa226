"""What people read: names as they are, one line each, whatever is in them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cdc_core.check.findings import fine_table, ok, warn
from cdc_core.ports.change_source import SlotState
from cdc_core.ports.progress import TableStarted
from cdc_core.use_cases.show_status import TableLine
from cdc_core.values.errors import OperatorNeeded
from cdc_core.values.lsn import Lsn
from entrypoints.cli.boundary import guarded
from entrypoints.output import report
from entrypoints.output.html.page import render
from entrypoints.output.progress import TerminalProgress
from entrypoints.output.terminal import console
from tests.support.status_week import calm

#: A name, and what is shown of it.
NAMES = [
    ("public.a:bug:b", "public.a:bug:b"),
    ("public.[red]x[/]", "public.[red]x[/]"),
    ("public.two\nlines", r"public.two\nlines"),
    ("public.\x1b[31mred\a", r"public.\x1b[31mred\x07"),
    ("public.\u202eright", r"public.\u202eright"),
    ("public.größe 表", "public.größe 表"),
]

SLOT = SlotState("mine", "pgoutput", "shop", None, Lsn(400), Lsn(500), "reserved", 0, None)


@pytest.mark.parametrize(("name", "shown"), NAMES)
def test_check_has_one_line_for_each_name(name, shown, capsys):
    report.show_check([ok(name, f"streams by key (id), to {name}")])
    assert capsys.readouterr().out == f"ok   {shown}: streams by key (id), to {shown}\n"


def test_tables_that_are_fine_share_a_line_unless_every_one_is_asked_for(capsys):
    warned = warn("public.odd", "not streamed, equal after a snapshot only")
    tables = [fine_table(f"public.t{n}", f"streams by key (id), to t{n}") for n in range(1000)]
    findings = [ok("server", "PostgreSQL 18"), *tables[:500], warned, *tables[500:]]
    assert report.show_check([*findings, ok("destination", "reached")]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "ok   server: PostgreSQL 18",
        "warn public.odd: not streamed, equal after a snapshot only",
        "ok   tables: 1,000 without a finding; pgbronze check --all lists them",
        "ok   destination: reached",
    ]
    report.show_check(findings, every_table=True)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1002
    assert "ok   public.t999: streams by key (id), to t999" in lines


@pytest.mark.parametrize(("name", "shown"), NAMES)
def test_tables_have_one_row_for_each_name(name, shown, capsys):
    rows = report.table("table")
    rows.add_row(name)
    console().print(rows, markup=False)
    assert capsys.readouterr().out.splitlines()[-1].strip() == shown


@pytest.mark.parametrize(("name", "shown"), NAMES[3:])
def test_an_error_steers_no_terminal(name, shown, capsys):
    def fail():
        raise OperatorNeeded(f"table {name}x cannot be read")

    assert guarded(fail) == 3
    assert capsys.readouterr().err == f"pgbronze: table {shown}x cannot be read\n"


@pytest.mark.parametrize(("name", "shown"), NAMES)
def test_a_bar_has_one_line(name, shown):
    with TerminalProgress() as progress:
        progress.emit(TableStarted(name, 0))
        assert [task.description for task in progress._open().tasks] == [shown]


@pytest.mark.parametrize(
    ("slot", "told"),
    [
        (SLOT, ["mine (pgoutput, database shop), nobody reads it", "reserved; no limit"]),
        (replace(SLOT, safe_bytes=2048), ["reserved; 2.0 kB more until it is lost"]),
        (replace(SLOT, wal_status="lost"), ["lost; nothing can be read from it any more"]),
        (replace(SLOT, plugin="", database=""), ["mine (a physical slot), nobody reads it"]),
    ],
)
def test_a_slot(slot, told, capsys):
    report.show_slot("mine", slot)
    out = capsys.readouterr().out
    for part in told:
        assert part in out


def test_status_shows_live_rows_and_those_that_soft_deletes_keep(capsys):
    found = calm().report
    lines = (
        TableLine("public.soft", "soft", "streaming", "", 1000, deleted_rows=1234),
        TableLine("public.hard", "hard", "streaming", "", 7),
    )
    found = replace(found, tables=lines)
    report.show_status(found)
    output = " ".join(capsys.readouterr().out.split())
    assert "1,000 streaming; marked as deleted: 1,234" in output
    assert output.count("marked") == 1
    shown = {line["table"]: line for line in report.status_as_json(found)["tables"]}
    assert [shown["public.soft"][key] for key in ("rows", "deleted_rows")] == [1000, 1234]
    assert [shown["public.hard"][key] for key in ("rows", "deleted_rows")] == [7, None]
    page = render(replace(calm(), report=found))
    assert "marked as deleted: 1,234" in page
    assert page.count("marked as deleted") == 1
