"""The page in a browser: what its reader sees and does. Skipped without Chromium."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from entrypoints.output.html.page import render
from tests.support.chromium import Chromium, program
from tests.support.status_week import NOW, SCENES, troubled
from tests.unit.entrypoints.output.html.test_page import HOSTILE, hostile

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from entrypoints.output.html.facts import PageFacts

pytestmark = pytest.mark.skipif(program() is None, reason="Chromium is not installed")

#: WCAG 2.2, "Contrast (Minimum)": 4.5 for text, 3 for large text (24 px, or 18.66 px and bold).
CONTRAST = """
(() => {
  const parse = (color) => {
    const found = color.match(/[\\d.]+/g).map(Number);
    return found.length < 4 ? [...found, 1] : found;
  };
  const light = (rgb) => {
    const [r, g, b] = rgb.map((c) => c / 255)
      .map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const back = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const color = parse(getComputedStyle(at).backgroundColor);
      if (color[3] === 1) return color;
    }
    return [255, 255, 255, 1];
  };
  const poor = [];
  let checked = 0;
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const element = walk.currentNode.parentElement;
    if (!walk.currentNode.data.trim()) continue;
    if (!element.checkVisibility({visibilityProperty: true})) continue;
    if (element.closest("script, .hidden, .skip")) continue;
    const style = getComputedStyle(element);
    const front = parse(element.closest("svg") ? style.fill : style.color);
    const [one, two] = [light(front.slice(0, 3)), light(back(element).slice(0, 3))];
    const ratio = (Math.max(one, two) + 0.05) / (Math.min(one, two) + 0.05);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    checked += 1;
    if (ratio < (large ? 3 : 4.5)) poor.push([walk.currentNode.data.trim().slice(0, 40), ratio]);
  }
  return {checked, poor};
})()
"""
SHOWN = "[...document.querySelectorAll('#tables tbody tr')].filter((r) => !r.hidden)"


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    with Chromium() as opened:
        yield opened


def show(browser: Chromium, folder: Path, facts: PageFacts, **options: Any) -> None:
    file = folder / "status.html"
    file.write_text(render(facts), encoding="utf-8")
    browser.open(file, now=NOW, **options)


@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("width", [320, 390, 1280])
def test_a_page_opens_without_errors_or_requests_and_fits(browser, tmp_path, scene, width):
    show(browser, tmp_path, SCENES[scene](), width=width)
    assert browser.problems == []
    assert [url for url in browser.requests if not url.startswith(("file:", "data:"))] == []
    wide = browser.run("document.documentElement.scrollWidth")
    assert wide <= width
    assert browser.run("document.querySelectorAll('h1').length") == 1


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("scene", SCENES)
def test_every_text_can_be_read(browser, tmp_path, scene, dark):
    show(browser, tmp_path, SCENES[scene](), dark=dark)
    found = browser.run(CONTRAST)
    assert found["checked"] > 40
    assert found["poor"] == []
    background = browser.run("getComputedStyle(document.body).backgroundColor")
    assert background == ("rgb(13, 17, 23)" if dark else "rgb(255, 255, 255)")


@pytest.mark.parametrize("text", HOSTILE)
def test_text_of_others_runs_nothing(browser, tmp_path, text):
    show(browser, tmp_path, hostile(text))
    assert browser.problems == []
    assert browser.run("document.scripts.length") == 1
    assert browser.run("document.images.length") == 0
    shown = browser.run("document.querySelector('#tables tbody th').textContent")
    visible = text.replace("\u202e", r"\u202e").replace("\x1b", r"\x1b").replace("\t", r"\t")
    assert shown == visible


def test_tables_are_filtered_and_sorted_with_the_keyboard(browser, tmp_path):
    show(browser, tmp_path, troubled())
    names = f"{SHOWN}.map((r) => r.cells[0].textContent)"
    assert browser.run(names)[:2] == ["public.payments", "public.audit_log"]
    browser.run("document.getElementById('filter').focus()")
    for character in "order":
        browser.press(character)
    found = ["public.order_lines", "public.orders", "public.purchase_orders"]
    assert browser.run(names) == found
    assert browser.run("document.getElementById('shown').textContent") == "3 of 21 tables"
    browser.run("document.getElementById('filter').value = ''")
    browser.run("document.getElementById('filter').dispatchEvent(new Event('input'))")

    # The first state's button comes after the filter.
    browser.run("document.getElementById('filter').focus()")
    browser.press("Tab", "Enter")
    assert browser.run(names) == ["public.payments"]
    assert browser.run("document.activeElement.getAttribute('aria-pressed')") == "true"
    browser.press("Enter")
    assert len(browser.run(names)) == 21

    browser.run("document.querySelectorAll('#tables .sort')[2].focus()")
    rows = f"{SHOWN}.map((r) => Number(r.cells[2].dataset.sort))"
    browser.press("Enter")
    assert browser.run(rows) == sorted(browser.run(rows), reverse=True)
    browser.press("Enter")
    assert browser.run(rows) == sorted(browser.run(rows))
    sorting = "[...document.querySelectorAll('#tables thead th')].map((h) => h.ariaSort)"
    assert browser.run(sorting) == [None, None, "ascending", None]


def test_everything_that_acts_can_be_reached_with_tab(browser, tmp_path):
    show(browser, tmp_path, troubled())
    wanted = browser.run(
        "[...document.querySelectorAll('a, button, input, summary, svg[tabindex], pre')]"
        ".filter((e) => e.checkVisibility()).length"
    )
    seen = []
    for _ in range(wanted):
        browser.press("Tab")
        seen.append(
            browser.run(
                "(() => { const e = document.activeElement; e.dataset.seen ??= Math.random();"
                " const s = getComputedStyle(e);"
                " return [e.tagName, e.dataset.seen, s.outlineStyle]; })()"
            )
        )
    assert len({number for _, number, _ in seen}) == wanted
    assert "BODY" not in {name for name, *_ in seen}
    assert {style for *_, style in seen} == {"solid"}


def test_a_chart_says_its_values_to_the_keyboard(browser, tmp_path):
    show(browser, tmp_path, troubled())
    browser.run("document.querySelector('svg[data-values]').focus()")
    readout = "document.querySelector('.readout').textContent"
    summary = browser.run(readout)
    browser.press("Home")
    first = browser.run(readout)
    browser.press("ArrowRight")
    second = browser.run(readout)
    values = json.loads(browser.run("document.querySelector('svg[data-values]').dataset.values"))
    assert first == ": ".join(values[0])
    assert second == ": ".join(values[1])
    browser.run("document.activeElement.blur()")
    assert browser.run(readout) == summary
    described = browser.run("document.querySelector('svg[data-values]').ariaLabel")
    assert described == f"Age of the data: {summary}"


def test_a_page_that_is_old_says_so(browser, tmp_path):
    facts = troubled()
    show(browser, tmp_path, facts)
    assert browser.run("document.getElementById('age').textContent") == ""
    show(browser, tmp_path, replace(facts, at=facts.at - timedelta(hours=5)))
    text = browser.run("document.getElementById('age').textContent")
    assert text == " (written 5 hours ago: it may be out of date)"


def test_print_shows_the_content_without_the_controls(browser, tmp_path):
    show(browser, tmp_path, troubled(), dark=True)
    browser.print_media()
    visible = "[...document.querySelectorAll('.controls, .copy')].some((e) => e.checkVisibility())"
    assert browser.run(visible) is False
    assert browser.run("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    assert browser.run(CONTRAST)["poor"] == []
    # Printing works: a page of paper or more.
    assert len(browser.call("Page.printToPDF")["data"]) > 10_000


def test_it_says_all_without_scripts(browser, tmp_path):
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        show(browser, tmp_path, troubled())
        browser.call("Emulation.setScriptExecutionDisabled", value=False)
        visible = "[...document.querySelectorAll('.controls')].some((e) => e.checkVisibility())"
        assert browser.run(visible) is False
        assert browser.run(f"{SHOWN}.length") == 21
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)
