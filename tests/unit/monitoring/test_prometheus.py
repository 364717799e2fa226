"""The Grafana dashboard and the alert rules: they load, know only metrics that exist, and give the
right values on the metrics of a run. `promtool` evaluates them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from adapters.metrics.measures import BATCH_SECONDS, METRICS, Measures
from adapters.metrics.prometheus import _registry
from cdc_core.ports.change_source import SlotState
from cdc_core.ports.progress import (
    BatchLoaded,
    CaughtUp,
    Checkpointed,
    ChunkRead,
    ReadingUpTo,
    SlotObserved,
)
from cdc_core.values.changes import Operations
from cdc_core.values.lsn import Lsn
from tests.support.run_events import CHECKPOINT, EVENTS, measured

if TYPE_CHECKING:
    from collections.abc import Iterator

MONITORING = Path(__file__).parents[3] / "monitoring"
DASHBOARD = json.loads((MONITORING / "grafana" / "pgbronze.json").read_text())
RULES = yaml.safe_load((MONITORING / "prometheus" / "alerts.yml").read_text())["groups"][0]["rules"]

KNOWN = {metric.name: {"pipeline", "slot", *metric.labels} for metric in METRICS}
KNOWN |= {
    f"{BATCH_SECONDS}_{part}": {"pipeline", "slot", *labels}
    for part, labels in (("bucket", ["le"]), ("sum", []), ("count", []))
}
MINUTES = 40
MB = 1 << 20

EXPRESSIONS = {
    (panel["title"], target["refId"]): target["expr"]
    for panel in DASHBOARD["panels"]
    for target in panel["targets"]
}

#: The values of each expression after 40 minutes, by its labels. Each minute one batch was loaded:
#: 60 inserts and 30 deletes in 6 transactions, within 0.3 s; 120 rows were read; 6 MB of WAL were
#: confirmed. From minute 30 on the run is stuck.
EXPECTED: dict[tuple[str, str], dict[str, float]] = {
    ("Last success", "A"): {'{pipeline="p"}': 600},
    ("Lag", "A"): {'{pipeline="p"}': 600},
    ("Retained WAL", "A"): {'{slot="s"}': 70 * MB},
    ("WAL until the slot is lost", "A"): {'{slot="s"}': 930 * MB},
    ("Tables that need a snapshot", "A"): {'{pipeline="p"}': 1},
    ("Lag in seconds", "A"): {'pgbronze_lag_seconds{pipeline="p", slot="s"}': 600},
    ("WAL", "A"): {'pgbronze_lag_bytes{pipeline="p", slot="s"}': 60 * MB},
    ("WAL", "B"): {'pgbronze_retained_wal_bytes{pipeline="p", slot="s"}': 70 * MB},
    ("Changes per second", "A"): {
        '{op="insert"}': 1,
        '{op="update"}': 0,
        '{op="delete"}': 0.5,
        '{op="truncate"}': 0,
    },
    ("Changes per second, busiest tables", "A"): {'{table="public.a"}': 1.5},
    ("Time of a batch", "A"): {"{}": 0.375},
    ("Time of a batch", "B"): {"{}": 0.4875},
    ("Time of a batch", "C"): {"{}": 0.4975},
    ("Transactions and batches per second", "A"): {"{}": 0.1},
    ("Transactions and batches per second", "B"): {"{}": 1 / 60},
    ("Rows read per second", "A"): {'{table="public.b"}': 2},
    ("Tables by state", "A"): {
        '{state="streaming"}': 1,
        '{state="needs snapshot"}': 1,
        '{state="not streamed"}': 0,
        '{state="dropped"}': 0,
    },
    ("Confirmed WAL per second", "A"): {'{pipeline="p", slot="s"}': 6 * MB / 60},
}
#: Rates are looked at before the run is stuck.
STUCK_AFTER = 30


def recorded() -> dict[str, list[float]]:
    """The series of a run, a sample a minute, from the product's own exposition."""
    seconds = 0.0
    measures = Measures("p", "s", now=lambda: seconds)
    series: dict[str, list[float]] = defaultdict(list)
    for minute in range(MINUTES + 1):
        seconds = minute * 60.0
        running = min(minute, STUCK_AFTER)
        confirmed = Lsn(1000 + running * 6 * MB)
        source = Lsn(1000 + minute * 6 * MB)
        measures.emit(ReadingUpTo(source))
        if minute <= STUCK_AFTER:
            done = {"public.a": Operations(inserts=60, deletes=30)}
            measures.emit(BatchLoaded(90, 6, 0, 0.3, 1000, confirmed, None, done))
            measures.emit(ChunkRead("public.b", 120))
            measures.emit(Checkpointed(replace(CHECKPOINT, lsn=confirmed)))
            measures.emit(CaughtUp(source, 0.0))
        retained = 10 * MB + source - confirmed
        slot = SlotState(
            "s", "pgoutput", "db", None, Lsn(1), confirmed, "reserved", retained,
            1000 * MB - retained,
        )  # fmt: skip
        measures.emit(SlotObserved(slot, source))
        text = generate_latest(_registry(measures)).decode()
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                labels = ",".join(f'{k}="{v}"' for k, v in sorted(sample.labels.items()))
                series[f"{sample.name}{{{labels}}}"].append(sample.value)
    return series


def plain(expression: str) -> str:
    """An expression as Grafana sends it, with all pipelines chosen."""
    for name, value in (("$__rate_interval", "10m"), ("$pipeline", ".*"), ("$slot", ".*")):
        expression = expression.replace(name, value)
    assert "$" not in expression
    return expression


def selectors(expression: str) -> Iterator[tuple[str, set[str]]]:
    """The metrics of an expression, each with the labels that it asks for."""
    for name, matchers in re.findall(r"\b(pgbronze_\w+)(?:\{(.*?)\})?", expression):
        yield name, set(re.findall(r"(\w+)(?:=~|!=|=)", matchers))


def promtool(*arguments: str, folder: Path, given: str | None = None) -> None:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not installed (apt-get install prometheus)")
    done = subprocess.run(
        [found, *arguments], cwd=folder, input=given, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_dashboard_is_one_that_grafana_imports() -> None:
    assert {"uid", "title", "schemaVersion", "panels", "templating"} <= DASHBOARD.keys()
    identifiers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(identifiers) == len(set(identifiers))
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)\}?", json.dumps(DASHBOARD)))
    assert {name for name in used if not name.startswith("__")} == variables
    for panel in DASHBOARD["panels"]:
        assert panel["title"]
        assert panel["description"]
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24


def test_panels_do_not_overlap() -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert taken.setdefault((x, y), panel["title"]) == panel["title"]


def all_expressions() -> list[str]:
    variables = [v["definition"] for v in DASHBOARD["templating"]["list"] if "definition" in v]
    return [*EXPRESSIONS.values(), *(rule["expr"] for rule in RULES), *variables]


@pytest.mark.parametrize("expression", all_expressions())
def test_expressions_ask_for_metrics_and_labels_that_exist(expression: str) -> None:
    found = list(selectors(expression))
    assert found
    for name, labels in found:
        assert labels <= KNOWN[name]


def test_every_metric_is_on_the_dashboard() -> None:
    shown = {name for expression in EXPRESSIONS.values() for name, _ in selectors(expression)}
    assert {metric.name for metric in METRICS} <= shown


def test_expressions_of_the_dashboard_give_these_values(tmp_path: Path) -> None:
    assert EXPRESSIONS.keys() == EXPECTED.keys()
    rated = {key for key, expression in EXPRESSIONS.items() if "rate" in expression}

    def case(key: tuple[str, str]) -> dict[str, Any]:
        expression = plain(EXPRESSIONS[key])
        if expression.startswith("histogram_quantile"):
            # promtool compares to the last bit.
            expression = f"round({expression}, 0.0001)"
        return {
            "expr": expression,
            "eval_time": f"{STUCK_AFTER if key in rated else MINUTES}m",
            "exp_samples": [
                {"labels": labels, "value": value} for labels, value in EXPECTED[key].items()
            ],
        }

    tests = {
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [
                    {"series": name, "values": " ".join(f"{value:.17g}" for value in values)}
                    for name, values in recorded().items()
                ],
                "promql_expr_test": [case(key) for key in EXPRESSIONS],
            }
        ],
    }
    (tmp_path / "test.yml").write_text(yaml.safe_dump(tests))
    promtool("test", "rules", "test.yml", folder=tmp_path)


def test_names_and_types_are_as_prometheus_advises(tmp_path: Path) -> None:
    measures = measured(*EVENTS)
    promtool(
        "check", "metrics", folder=tmp_path, given=generate_latest(_registry(measures)).decode()
    )


def test_alerts_fire_when_they_should() -> None:
    folder = MONITORING / "prometheus"
    promtool("check", "config", "prometheus.yml", folder=folder)
    promtool("check", "rules", "alerts.yml", folder=folder)
    promtool("test", "rules", "alerts_test.yml", folder=folder)
    tests = yaml.safe_load((folder / "alerts_test.yml").read_text())["tests"]
    cases = [case for test in tests for case in test["alert_rule_test"]]
    names = {rule["alert"] for rule in RULES}
    assert {case["alertname"] for case in cases if case["exp_alerts"]} == names
    assert {case["alertname"] for case in cases if not case["exp_alerts"]} == names
