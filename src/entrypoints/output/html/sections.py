"""The sections of the page: answers, tasks, charts, tables and runs."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from cdc_core.values.checkpoint import TableStatus
from entrypoints.output.html.assessment import Level, data_as_of
from entrypoints.output.html.charts import chart, run_strip
from entrypoints.output.html.history import changes
from entrypoints.output.html.markup import Html, join, tag
from entrypoints.output.html.wording import ago, compact, day_and_time, duration, number, plural
from entrypoints.output.progress import size
from entrypoints.output.rules import rules_text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from cdc_core.use_cases.show_status import TableLine
    from entrypoints.output.html.assessment import Answer, Assessment, Task
    from entrypoints.output.html.facts import PageFacts
    from entrypoints.output.html.history import Episode, History

#: How far back the charts go.
CHARTS_SHOW = timedelta(days=7)

#: Rows of the list of runs: the newest, and the failures before them.
NEWEST_SHOWN = 12
FAILURES_SHOWN = 20

_CLASS = {Level.GOOD: "good", Level.ATTENTION: "attention", Level.BAD: "bad"}
#: A shape for each level, for those who do not see the color.
_MARK = {Level.GOOD: "✓", Level.ATTENTION: "!", Level.BAD: "✕"}

_STATES = {
    TableStatus.STREAMING.value: Level.GOOD,
    TableStatus.NOT_STREAMED.value: Level.ATTENTION,
    TableStatus.NEEDS_SNAPSHOT.value: Level.BAD,
    TableStatus.DROPPED.value: None,
    "not loaded yet": None,
}


def answers(assessment: Assessment) -> Html:
    tasks = assessment.tasks
    urgent = sum(task.level is Level.BAD for task in tasks)
    soon = len(tasks) - urgent
    if not tasks:
        short, level = "Nothing", Level.GOOD
        sentence = tag("p", "Nothing waits for an operator.", class_="quiet")
    else:
        short = f"Act now: {urgent}" if urgent else f"Soon: {soon}"
        short += f", soon: {soon}" if urgent and soon else ""
        level = Level.BAD if urgent else Level.ATTENTION
        first = tasks[0]
        if first.commands and not first.by_hand:
            does: str = tag("code", first.commands[0])
        else:
            does = first.cure or first.what
        sentence = tag("p", "First: ", does, class_="quiet")
    return tag(
        "section",
        _answer("Is it fresh?", assessment.fresh.level, assessment.fresh.short, assessment.fresh),
        _answer(
            "Is it healthy?", assessment.healthy.level, assessment.healthy.short, assessment.healthy
        ),
        tag(
            "div",
            tag("h2", "What must I do?"),
            tag("p", _badge(level), tag("span", short, class_="short"), class_="verdict"),
            sentence,
            class_=f"card {_CLASS[level]}",
        ),
        class_="answers",
        aria_label="At a glance",
    )


def _answer(question: str, level: Level, short: str, answer: Answer) -> Html:
    return tag(
        "div",
        tag("h2", question),
        tag("p", _badge(level), tag("span", short, class_="short"), class_="verdict"),
        tag("p", answer.sentence, class_="quiet"),
        class_=f"card {_CLASS[level]}",
    )


def _badge(level: Level) -> Html:
    return tag("span", _MARK[level], class_=f"badge {_CLASS[level]}", aria_hidden="true")


def tasks(assessment: Assessment) -> Html | None:
    if not assessment.tasks:
        return None
    items = [tag("li", *_task(task), class_=_CLASS[task.level]) for task in assessment.tasks]
    return tag("section", tag("h2", "What to do"), tag("ol", *items, class_="tasks"))


def _task(task: Task) -> Iterator[Html]:
    urgency = "act now" if task.level is Level.BAD else "soon"
    yield tag("p", tag("span", urgency, class_=f"tag {_CLASS[task.level]}"), " ", task.what)
    if task.cure:
        yield tag("p", task.cure, class_="quiet")
    for command in task.commands:
        yield tag(
            "div",
            tag("pre", tag("code", command), tabindex=0),
            tag("button", "Copy", type="button", class_="copy", hidden=True),
            class_="command",
        )


def facts_list(facts: PageFacts, history: History) -> Html | None:
    """The figures of this moment."""
    report = facts.report
    if report is None:
        return None
    as_of = data_as_of(facts, history)
    pairs: list[tuple[str, str]] = [("Data as of", day_and_time(as_of) if as_of else "not known")]
    if report.lag_bytes is not None:
        pairs.append(("Lag", f"{size(report.lag_bytes)} of WAL"))
    slot = report.slot
    if slot is None:
        pairs.append(("Slot", f"{report.source.slot_name} does not exist"))
    else:
        limit = f" of {size(report.wal_use.limit)}" if report.wal_use else ", no limit"
        retained = "none, the slot is lost" if slot.lost else f"{size(slot.retained_bytes)}{limit}"
        pairs.append(("WAL retained", retained))
        pairs.append(("Slot", f"{slot.name}, {slot.wal_status}"))
    if report.checkpoint is not None:
        pairs.append(("Checkpoint", str(report.checkpoint.lsn)))
    pairs.append(("Source at", str(report.current_lsn)))
    rows = sum(line.rows or 0 for line in report.tables)
    pairs.append(("Rows", f"{number(rows)} in {plural(len(report.tables), 'table')}"))
    items = [tag("div", tag("dt", name), tag("dd", value)) for name, value in pairs]
    return tag("section", tag("h2", "Now"), tag("dl", *items, class_="figures"))


def charts(facts: PageFacts, history: History) -> Html:
    heading = tag("h2", "Over time")
    if not history.receipts:
        why = (
            "No run has left a receipt yet. The next snapshot, cdc or verify leaves one."
            if facts.receipts_kept
            else "Runs leave no receipts: pipeline.receipts is false."
        )
        return tag("section", heading, tag("p", why, class_="quiet"))
    history = history.last(CHARTS_SHOW)
    use = facts.report.wal_use if facts.report else None
    step = history.step.total_seconds()
    each = f"rows changed in {duration(step)}" if step >= 1 else "rows changed"
    time = history.now - history.start
    last = f"{time.days} days" if time.days > 1 else duration(time.total_seconds())
    covered = f"The last {last}, times in UTC"
    return tag(
        "section",
        heading,
        tag("p", covered, class_="quiet"),
        tag(
            "div",
            chart(
                "Age of the data",
                "how old the destination's state was, at most",
                history.ages(),
                duration,
            ),
            chart(
                "Lag",
                "WAL that was not applied when a run ended",
                history.highest(lambda receipt: receipt.lag_bytes),
                size,
            ),
            chart(
                "WAL retained by the slot",
                "on the source's disk",
                history.highest(lambda receipt: receipt.retained_wal_bytes),
                size,
                limit=use.limit if use else None,
                limit_name="limit",
            ),
            chart("Changes applied", each, history.sums(changes), compact, bars=True),
            run_strip(history.outcomes(), history),
            class_="charts",
        ),
    )


def tables(facts: PageFacts) -> Html | None:
    report = facts.report
    if report is None:
        return None
    found = sorted(report.tables, key=lambda line: (-(_urgency(line)), line.table))
    counts: dict[str, int] = {}
    for line in found:
        counts[line.state] = counts.get(line.state, 0) + 1
    chips = [
        tag(
            "button", f"{state} {count:,}", type="button", class_="chip", data_state=state,
            aria_pressed="false",
        )
        for state, count in counts.items()
    ]  # fmt: skip
    controls = tag(
        "div",
        tag(
            "label",
            tag("span", "Filter tables by name", class_="hidden"),
            tag("input", type="search", id="filter", placeholder="Filter by name"),
        ),
        *chips,
        tag("output", plural(len(found), "table"), id="shown", aria_live="polite"),
        class_="controls",
        hidden=True,
    )
    columns = (
        ("Table", "text"),
        ("In the destination", "text"),
        ("Rows", "number"),
        ("State", "text"),
    )
    heads = [
        tag(
            "th",
            tag("button", name, type="button", class_="sort"),
            scope="col",
            data_kind=kind,
            class_="number" if kind == "number" else None,
        )
        for name, kind in columns
    ]
    rows = [_table_row(line) for line in found]
    skipped = [tag("li", f"{one.table}: {one.reason.value}") for one in report.passed_over]
    return tag(
        "section",
        tag("h2", "Tables"),
        controls,
        tag(
            "div",
            tag(
                "table",
                tag("thead", tag("tr", *heads)),
                tag("tbody", *rows),
                id="tables",
            ),
            class_="scroll",
        ),
        tag("details", tag("summary", f"Skipped: {len(skipped):,}"), tag("ul", *skipped))
        if skipped
        else None,
    )


def _urgency(line: TableLine) -> int:
    level = _STATES.get(line.state)
    return -1 if level is None else int(level)


def _table_row(line: TableLine) -> Html:
    level = _STATES.get(line.state)
    notes = [line.reason] if line.reason else []
    if line.deleted_rows:
        notes.append(f"marked as deleted: {line.deleted_rows:,}")
    if line.dropped_columns:
        notes.append(f"columns dropped at the source: {', '.join(line.dropped_columns)}")
    if line.rules:
        notes.append(f"rules: {rules_text(line.rules)}")
    kind = _CLASS[level] if level is not None else "plain"
    mark = f"{_MARK[level]} " if level is not None else ""
    return tag(
        "tr",
        tag("th", line.table, scope="row"),
        tag(
            "td",
            line.target,
            data_label="In the destination",
            # A narrow page leaves out what the name says already.
            class_="same" if line.table.endswith(f".{line.target}") else None,
        ),
        tag(
            "td",
            "" if line.rows is None else f"{line.rows:,}",
            class_="number",
            data_sort=-1 if line.rows is None else line.rows,
            data_label="Rows",
        ),
        tag(
            "td",
            tag("span", mark + line.state, class_=f"tag {kind}"),
            *(tag("div", note, class_="quiet") for note in notes),
            data_sort=line.state,
            data_label="State",
        ),
        data_state=line.state,
    )


def runs(facts: PageFacts, history: History) -> Html | None:
    episodes = history.episodes
    if not episodes:
        return None
    newest, older = episodes[:NEWEST_SHOWN], episodes[NEWEST_SHOWN:]
    failures = [episode for episode in older if episode.last.failed][:FAILURES_SHOWN]
    note = f"{len(history.runs):,} in all; this list has the last ones"
    note += " and earlier failures." if failures else "."
    heads = ("Began (UTC)", "Command", "Took", "Changes", "Rows read", "Result")
    numbers = ("Took", "Changes", "Rows read")
    cells = [
        tag("th", name, scope="col", class_="number" if name in numbers else None) for name in heads
    ]
    return tag(
        "section",
        tag("h2", "Runs"),
        tag("p", note, class_="quiet"),
        tag(
            "div",
            tag(
                "table",
                tag("thead", tag("tr", *cells)),
                tag("tbody", *(_run_row(episode, facts) for episode in (*newest, *failures))),
                id="runs",
            ),
            class_="scroll",
        ),
    )


def _run_row(episode: Episode, facts: PageFacts) -> Html:
    run, count = episode.last, len(episode.runs)
    level = Level.BAD if run.failed else Level.GOOD
    if run.goes_on:
        result = "running"
    elif run.exit_code is None:
        result = "unknown (killed?)"
    else:
        result = f"exit {run.exit_code}" if run.failed else "done"
    began: list[Html] = [_moment(run.started_at)]
    if count > 1:
        began = [_moment(episode.first.started_at), Html(" to "), _moment(run.started_at)]
    return tag(
        "tr",
        tag("th", *began, tag("div", ago(run.started_at, facts.at), class_="quiet"), scope="row"),
        tag(
            "td",
            run.command if count == 1 else f"{run.command}, {count} runs",
            data_label="Command",
        ),
        tag("td", duration(run.seconds), class_="number", data_label="Took"),
        tag("td", number(run.changes), class_="number", data_label="Changes"),
        tag("td", number(run.rows_read), class_="number", data_label="Rows read"),
        tag(
            "td",
            tag("span", f"{_MARK[level]} {result}", class_=f"tag {_CLASS[level]}"),
            tag("div", run.error, class_="error") if run.error else None,
            data_label="Result",
        ),
    )


def _moment(moment: datetime) -> Html:
    return tag("time", day_and_time(moment), datetime=moment.isoformat())


def header(facts: PageFacts, assessment: Assessment) -> Html:
    level = assessment.level
    source = f"{facts.report.source.database} → " if facts.report else ""
    title = f"{source}{facts.dataset} ({facts.destination})"
    sentence = {
        Level.GOOD: "All is well",
        Level.ATTENTION: "Needs attention, not urgently",
        Level.BAD: "Needs an operator now",
    }[level]
    written = tag(
        "time", facts.at.strftime("%a %d %b %Y, %H:%M UTC"), datetime=facts.at.isoformat(), id="at"
    )
    return tag(
        "header",
        tag("p", f"pgbronze · pipeline {facts.pipeline}", class_="quiet"),
        tag("h1", title),
        tag("p", _badge(level), tag("strong", sentence), class_="verdict"),
        tag("p", join("State of ", written), tag("span", id="age", role="status"), class_="quiet"),
        class_=_CLASS[level],
    )
