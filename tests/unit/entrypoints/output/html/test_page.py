"""The page as text: what it answers, and that nothing in it is taken for HTML."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from datetime import timedelta
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import pytest

from cdc_core.use_cases.show_status import TableLine
from cdc_core.values.errors import TablesNeedSnapshot
from cdc_core.values.runs import receipts_as_rows, receipts_of_rows
from entrypoints.output.html.assessment import Level, assess, late_after
from entrypoints.output.html.charts import _marks
from entrypoints.output.html.history import BUCKETS, History
from entrypoints.output.html.markup import Html, join, tag, text
from entrypoints.output.html.page import render
from tests.support.status_week import NOW, SCENES, Week, calm, slot_lost, troubled

if TYPE_CHECKING:
    from entrypoints.output.html.facts import PageFacts

#: Names and errors that would do harm as HTML, in a script or in an attribute.
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'; alert(1); '",
    "</style><h1>big",
    "a&amp;b&b",
    "</script><script>alert(1)",
    "\u202eright to left",
    "tab\there\x1b[31m",
    "javascript:alert(1)",
)


class Page(HTMLParser):
    """The elements and texts of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.texts: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "input", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "script" not in self.open and "style" not in self.open:
            self.texts.append(data)

    def count(self, name: str) -> int:
        return sum(element == name for element, _ in self.elements)


def hostile(text_: str) -> PageFacts:
    """A page with the text in every place that others write."""
    facts = troubled()
    assert facts.report is not None
    lines = [
        TableLine(text_, text_, "needs snapshot", text_, 1, (text_,)),
        TableLine(text_ + "2", text_, "not streamed", text_, 1),
    ]
    receipts = [replace(facts.receipts[0], error=text_, command=text_), *facts.receipts[1:]]
    report = replace(facts.report, tables=lines, warning=text_, wal_use=None)
    return replace(
        facts, report=report, receipts=receipts, pipeline=text_, dataset=text_, version=text_
    )


@pytest.mark.parametrize("text_", HOSTILE)
def test_text_of_others_is_text(text_):
    page = Page(render(hostile(text_)))
    plain = Page(render(hostile("harmless")))
    assert page.open == []
    for name in ("script", "style", "img", "h1", "svg", "button"):
        assert page.count(name) == plain.count(name), name
    names = {name for _, attributes in page.elements for name in attributes}
    assert not any(name.startswith("on") for name in names)
    addresses = [a["href"] for _, a in page.elements if "href" in a]
    assert all(
        address and address.startswith(("#", "data:image/svg+xml,")) for address in addresses
    )


def test_invisible_characters_are_shown_escaped():
    assert text("a\u202eb\x1b") == r"a\u202eb\x1b"
    assert tag("p", "a\u202eb", title="\x07") == r'<p title="\x07">a\u202eb</p>'


def test_elements_escape_what_is_no_element():
    assert tag("p", "<b>", Html("<i>x</i>"), title='"') == '<p title="&quot;">&lt;b&gt;<i>x</i></p>'
    assert tag("input", hidden=True, value=None) == "<input hidden>"
    assert join("a", None, Html("<br>")) == "a<br>"


@pytest.mark.parametrize("scene", SCENES)
def test_a_page_needs_nothing_but_itself(scene):
    text_ = render(SCENES[scene]())
    assert re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?(?:https?:)?//""", text_) == []
    page = Page(text_)
    assert page.open == []
    policy = next(a["content"] for _, a in page.elements if "http-equiv" in a)
    assert policy is not None
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert not any("style" in attributes for _, attributes in page.elements)


def _assessed(facts: PageFacts):
    return assess(facts, History.of(facts.receipts, facts.at))


def test_a_calm_week_asks_for_nothing():
    found = _assessed(calm())
    assert (found.level, found.tasks) == (Level.GOOD, ())
    assert found.fresh.short == "Yes"
    assert "97 runs in the last 24 h, none failed." in found.healthy.sentence


def test_a_troubled_week_names_what_to_do_in_order():
    found = _assessed(troubled())
    assert found.level is Level.BAD
    assert found.fresh.short == "No, 5 h 14 min old"
    assert "20 of them failed" in found.healthy.sentence
    assert [task.commands for task in found.tasks] == [
        ("pgbronze cdc",),
        ("pgbronze snapshot --tables public.payments",),
        ("pgbronze cdc",),
        ('ALTER TABLE "public"."audit_log" REPLICA IDENTITY FULL',),
    ]
    assert [task.level for task in found.tasks] == [Level.BAD] * 2 + [Level.ATTENTION] * 2
    assert found.tasks[0].what.startswith("The last 20 runs of cdc failed")
    # To run it again is no cure: the warehouse does not answer.
    assert "First: Make sure that the warehouse runs" in render(troubled())
    assert "First: <code>pgbronze snapshot</code>" in render(slot_lost())


def test_a_lost_slot_is_one_thing_to_do():
    """Not one for each run that failed because of it, nor for each table."""
    found = _assessed(slot_lost())
    (task,) = found.tasks
    assert (task.level, task.commands) == (Level.BAD, ("pgbronze snapshot",))
    assert "is lost" in task.what


def test_a_run_that_set_a_table_aside_and_the_table_are_one_thing_to_do():
    facts = calm()
    assert facts.report is not None
    error = str(TablesNeedSnapshot({"public.payments": "the table was rewritten"}, frozen=True))
    lines = [
        replace(line, state="needs snapshot", reason="the table was rewritten")
        if line.target == "payments"
        else line
        for line in facts.report.tables
    ]
    last = replace(facts.receipts[0], exit_code=3, error=error)
    found = _assessed(
        replace(
            facts,
            report=replace(facts.report, tables=lines),
            receipts=[last, *facts.receipts[1:]],
        )
    )
    (task,) = found.tasks
    assert task.commands == ("pgbronze snapshot --tables public.payments",)
    assert task.what.startswith("1 table needs a snapshot")


@pytest.mark.parametrize("minutes", [0.01, 1, 45, 600, 60 * 24 * 30])
def test_charts_end_now_whatever_time_they_cover(minutes):
    """A receipt of the first minute is not drawn as if the time after it were known."""
    start = NOW - timedelta(minutes=minutes)
    one = replace(Week().run()[0], started_at=start, ended_at=start, lag_seconds=0.0)
    history = History.of([one], NOW)
    ages = history.ages()
    assert ages[-1].start <= NOW
    assert (ages[-1].value or 0) <= minutes * 60 + 1
    marks = _marks([point.start for point in ages])
    assert len(marks) <= 9
    assert len({label for _, label in marks}) == len(marks)
    assert minutes < 2 or len(marks) >= 2


def test_before_the_first_snapshot_the_page_says_how_to_begin():
    found = _assessed(SCENES["first-day"]())
    assert found.level is Level.ATTENTION
    assert found.tasks[0].commands == ("pgbronze snapshot",)
    assert found.healthy.short == "Not started"


def test_without_the_source_the_receipts_say_how_old_the_data_is():
    found = _assessed(SCENES["unreachable"]())
    assert "up to 14 min" in found.fresh.sentence
    assert "cannot be reached" in found.tasks[0].what


def test_a_schedule_that_stopped_shows():
    """The last run ended well, but long ago; nothing failed."""
    facts = calm()
    assert facts.report is not None
    later = replace(facts, at=NOW + timedelta(hours=3))
    report = replace(facts.report, lag_bytes=10, lag_seconds=3 * 3600.0)
    found = _assessed(replace(later, report=report))
    assert found.fresh.level is Level.BAD or found.fresh.level is Level.ATTENTION
    assert any(task.what.startswith("No run has ended since") for task in found.tasks)


def test_what_counts_as_late_follows_the_interval_of_the_runs():
    quick = History.of(Week(every=timedelta(minutes=1)).run(), NOW)
    slow = History.of(Week(every=timedelta(hours=6)).run(), NOW)
    assert late_after(quick) == timedelta(minutes=5)
    assert timedelta(hours=17) < late_after(slow) < timedelta(hours=19)
    assert late_after(History.of([], NOW)) == timedelta(hours=1)
    # Two runs by hand, one after the other, say nothing about a schedule.
    assert late_after(History.of(Week().run()[:2], NOW)) == timedelta(hours=1)


def test_receipts_of_a_table_without_some_columns_are_shown():
    """Another version made it; what is missing reads as None."""
    facts = calm()
    names = {name for name in vars(facts.receipts[0]) if name not in ("run_id", "command")}
    lacking = receipts_of_rows(receipts_as_rows(facts.receipts).drop_columns(sorted(names - {
        "started_at", "ended_at", "exit_code",
    })))  # fmt: skip
    page = render(replace(facts, receipts=lacking))
    assert "679 runs" in page
    undated = receipts_of_rows(receipts_as_rows(facts.receipts).drop_columns(["ended_at"]))
    assert "No run has left a receipt" in render(replace(facts, receipts=undated))


def test_the_age_of_the_data_grows_while_runs_fail():
    away = (timedelta(days=2), timedelta(days=2, hours=4))
    history = History.of(Week(gone=(away,)).run(), NOW)
    ages = [point.value or 0 for point in history.ages()]
    assert len(ages) == BUCKETS
    highest = max(range(BUCKETS), key=lambda place: ages[place])
    assert 51 <= highest <= 53  # a bucket is an hour
    assert 4 * 3600 < ages[highest] < 4.6 * 3600
    assert 14 * 60 < ages[10] < 16 * 60


def test_charts_go_back_a_week_and_know_the_state_at_its_start():
    """Runs each 36 hours for a month: the first days of the week have an age too."""
    day = timedelta(days=1)
    month = [
        replace(
            Week().run()[0],
            run_id=f"r{number}",
            started_at=NOW - 1.5 * day * number,
            ended_at=NOW - 1.5 * day * number,
            lag_seconds=0.0,
        )
        for number in range(1, 20)
    ]
    history = History.of(month, NOW).last(7 * day)
    assert history.start == NOW - 7 * day
    assert len(history.receipts) == 4
    ages = history.ages()
    assert ages[0].value == pytest.approx((0.5 * day + day / 24).total_seconds(), rel=0.01)
    assert max(point.value or 0 for point in ages) == pytest.approx(1.5 * day.total_seconds())
    # A shorter history is shown as it is.
    assert History.of(month[:2], NOW).last(7 * day).start == month[1].started_at


def test_failures_with_one_cause_are_one_episode():
    history = History.of(troubled().receipts, NOW)
    failed = [episode for episode in history.episodes if episode.last.failed]
    assert [len(episode.runs) for episode in failed] == [20, 8]
    assert sum(len(episode.runs) for episode in history.episodes) == len(history.runs)


def test_a_run_that_follows_is_one_run_and_goes_on():
    facts = SCENES["following"]()
    (run,) = History.of(facts.receipts, facts.at).runs
    assert (run.goes_on, run.failed) == (True, False)
    gone = History.of(facts.receipts, facts.at + timedelta(hours=1)).runs[0]
    assert (gone.goes_on, gone.failed) == (False, True)


def test_the_cost_of_a_page_grows_with_its_receipts():
    """A week of a run that follows has ten thousand."""
    began = time.process_time()
    render(SCENES["following"]())
    assert time.process_time() - began < 10


def test_without_receipts_the_page_says_why():
    facts = replace(calm(), receipts=(), receipts_kept=False)
    assert "pipeline.receipts is false" in render(facts)
