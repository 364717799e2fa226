"""`status --html` on a real pipeline: the page has the state of now, whatever can be reached."""

from __future__ import annotations

import json
import os
import re
import stat

import pytest


def title(page: str) -> str:
    found = re.search(r"<title>(.*?)</title>", page)
    assert found is not None
    return found[1]


def test_the_page_has_state_tables_and_runs(shop):
    shop.run("simulate", "20", "0", "0")
    shop.run("snapshot")
    shop.run("simulate", "5", "2", "1")
    shop.run("cdc")
    done = shop.run("status", "--html", "status.html")
    assert done.out == ""
    assert "wrote status.html" in done.error
    page = (shop.folder / "status.html").read_text()
    assert title(page).startswith("OK ")
    for text in ("public.demo_orders", shop.database, "All is well", "✓ streaming"):
        assert text in page
    assert page.count("✓ done") == 2
    assert page.count('class="line"') == 3
    # It says the same as the JSON.
    both = json.loads(shop.run("status", "--json", "--html", "status.html").out)
    assert {line["state"] for line in both["tables"]} == {"streaming"}


def test_a_lost_slot_and_a_failed_run_are_on_the_page(shop):
    shop.run("simulate", "20", "0", "0")
    shop.run("snapshot")
    shop.sql(f"SELECT pg_drop_replication_slot('{shop.database}')")
    shop.run("cdc", code=3)
    shop.run("status", "--html", "status.html")
    page = (shop.folder / "status.html").read_text()
    assert title(page).startswith("Act now")
    assert page.count("<code>pgbronze snapshot</code>") == 2
    assert "✕ exit 3" in page


def test_the_page_is_written_without_the_source(shop):
    """An operator at night wants the page most when something cannot be reached."""
    shop.run("simulate", "20", "0", "0")
    shop.run("snapshot")
    dsn = "postgresql://app:Zebra77@127.0.0.1:1/shop"
    found = shop.run(
        "status", "--html", "status.html", code=1, SOURCES__PG_REPLICATION__CREDENTIALS=dsn
    )
    assert "cannot be reached" in found.line
    page = (shop.folder / "status.html").read_text()
    assert title(page).startswith("Act now")
    assert "cannot be reached" in page
    assert "✓ done" in page
    assert "Zebra77" not in page


def test_the_page_of_a_new_pipeline_says_how_to_begin(shop):
    shop.run("simulate", "20", "0", "0")
    shop.run("status", "--html", "status.html")
    page = (shop.folder / "status.html").read_text()
    assert "pgbronze snapshot" in page
    assert not shop.lake.exists()


@pytest.mark.parametrize("file", ["missing/status.html", "."])
def test_a_place_that_cannot_be_written_is_a_wrong_option(shop, file):
    found = shop.run("status", "--html", file, code=2)
    assert f"--html {file}" in found.line


def test_the_file_is_replaced_whole_and_readable_by_others(shop):
    shop.run("simulate", "20", "0", "0")
    shop.run("snapshot")
    file = shop.folder / "status.html"
    file.write_text("old")
    before = file.stat().st_ino
    umask = os.umask(0o022)
    try:
        shop.run("status", "--html", str(file))
    finally:
        os.umask(umask)
    assert file.stat().st_ino != before
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    assert [path.name for path in shop.folder.glob(".status*")] == []
