"""Dashboard and alerts on Databricks: the published classes take them, and their queries answer.

What AI/BI draws is not tested: only a workspace draws it.
"""

from __future__ import annotations

import json
import runpy
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from databricks.bundles.alerts import Alert
from databricks.bundles.dashboards import Dashboard

from cdc_core.values.errors import TablesNeedSnapshot
from cdc_core.values.merges import EMPTY_BATCH
from cdc_core.values.runs import RunReceipt, RunTable
from tests.contracts.destination_contract import checkpoint
from tests.support.bundle import ROOT, resources
from tests.support.status_week import Week

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cdc_core.ports.destination import Destination
    from tests.integration.warehouse.client import Warehouse

FOLDER = ROOT / "monitoring/databricks"
BUNDLE = yaml.safe_load((FOLDER / "databricks.yml").read_text())
DASHBOARD = json.loads((FOLDER / "pgbronze.lvdash.json").read_text())
GIVEN = {"catalog": "main", "warehouse_id": "abc123"}
ALERTS = ("late", "failed", "retained_wal", "needs_snapshot")
NOTIFY = [
    {"user_email": "ops@example.com"},
    {"destination_id": "0481e838-0a59-4eff-9541-a4ca6f149574"},
]


def alerts(**variables: Any) -> dict[str, dict[str, Any]]:
    found: dict[str, Any] = resources(BUNDLE, "prod", **{**GIVEN, **variables})["alerts"]
    return found


# The files.


def test_alerts_and_dashboard_are_what_the_published_classes_take() -> None:
    found = resources(BUNDLE, "prod", **GIVEN, notify=NOTIFY)
    assert tuple(found["alerts"]) == ALERTS
    for name, alert in found["alerts"].items():
        # Equal: the classes would turn a value of another type into theirs.
        assert Alert.from_dict(alert).as_dict() == alert, name
        assert alert["evaluation"]["notification"]["subscriptions"] == NOTIFY
        assert alert["schedule"]["pause_status"] == "UNPAUSED"
    (dashboard,) = found["dashboards"].values()
    assert Dashboard.from_dict(dashboard).as_dict() == dashboard
    assert (FOLDER / dashboard["file_path"]).is_file()
    assert (dashboard["dataset_catalog"], dashboard["dataset_schema"]) == ("main", "bronze")


def test_a_field_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="condition"):
        Alert.from_dict({**alerts()["late"], "condition": {}})


def test_every_variable_is_explained_and_used() -> None:
    text = (FOLDER / "databricks.yml").read_text()
    for name, declared in BUNDLE["variables"].items():
        assert declared["description"], name
        assert f"${{var.{name}}}" in text, name
    assert {n for n, v in BUNDLE["variables"].items() if "default" not in v} == GIVEN.keys()


def test_the_dashboard_is_what_its_script_writes() -> None:
    written = runpy.run_path(str(FOLDER / "dashboard.py"))["text"]()
    assert (FOLDER / "pgbronze.lvdash.json").read_text() == written


def test_every_widget_shows_fields_of_a_dataset_and_none_overlaps() -> None:
    datasets = {dataset["name"] for dataset in DASHBOARD["datasets"]}
    used, taken = set(), set()
    (page,) = DASHBOARD["pages"]
    names = [item["widget"]["name"] for item in page["layout"]]
    assert len(names) == len(set(names))
    for item in page["layout"]:
        place, widget = item["position"], item["widget"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["width"])
            for y in range(place["y"], place["y"] + place["height"])
        }
        assert not cells & taken
        assert max(x for x, _ in cells) < 6
        taken |= cells
        for query in widget.get("queries", ()):
            used.add(query["query"]["datasetName"])
            fields = {field["name"] for field in query["query"]["fields"]}
            assert shown(widget["spec"]["encodings"]) == fields
    assert used == datasets


def shown(encodings: dict[str, Any]) -> set[str]:
    """The fields that a widget shows."""
    found: set[str] = set()
    for encoding in encodings.values():
        each = encoding if isinstance(encoding, list) else [encoding]
        found |= {one["fieldName"] for one in each}
    return found


# The queries, on the local warehouse.


@pytest.fixture(scope="module")
def now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture
def write(opened: Callable[[], Destination]) -> Iterator[Callable[..., None]]:
    """A function that writes receipts, each with a table that it changed."""
    with opened() as destination:
        destination.load(EMPTY_BATCH, checkpoint(1))

        def written(*receipts: RunReceipt) -> None:
            for receipt in receipts:
                table = RunTable(
                    receipt.run_id, receipt.seq, "public.orders", "orders", 3, 2, 1, 0, 0
                )
                destination.write_receipt(receipt, [table])

        yield written


def run(now: datetime, ago: timedelta, **values: Any) -> RunReceipt:
    """A receipt of a run that ended some time ago."""
    made = Week()._receipt(f"run-{ago}-{values}", "cdc", now - ago - timedelta(seconds=9), 9.0)
    return replace(made, **{"lag_seconds": 0.0, "lag_bytes": 0, "retained_wal_bytes": 0, **values})


def ask(warehouse: Warehouse, query: str) -> list[dict[str, Any]]:
    with warehouse.connect() as session, session.cursor() as cursor:
        cursor.execute("USE SCHEMA bronze")
        cursor.execute(query)
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def triggered(warehouse: Warehouse) -> dict[str, bool]:
    """Whether each alert would notify, judged as Databricks does."""
    found = {}
    for name, alert in alerts(catalog=warehouse.catalog).items():
        rows = ask(warehouse, alert["query_text"])
        evaluation = alert["evaluation"]
        value = rows[0][evaluation["source"]["name"]] if rows else None
        threshold = evaluation["threshold"]["value"]["double_value"]
        if value is None:
            found[name] = evaluation["empty_result_state"] == "TRIGGERED"
        elif evaluation["comparison_operator"] == "GREATER_THAN":
            found[name] = float(value) > threshold
        else:
            assert evaluation["comparison_operator"] == "GREATER_THAN_OR_EQUAL"
            found[name] = float(value) >= threshold
    return found


NONE = dict.fromkeys(ALERTS, False)


def test_alerts_say_what_is_wrong_and_nothing_else(
    warehouse: Warehouse, write: Callable[..., None], now: datetime
) -> None:
    minutes = timedelta(minutes=1)
    write(run(now, 90 * minutes), run(now, 80 * minutes, command="verify", lag_seconds=None))
    assert triggered(warehouse) == {**NONE, "late": True}

    write(run(now, 40 * minutes, retained_wal_bytes=33 << 30))
    assert triggered(warehouse) == {**NONE, "retained_wal": True}

    write(run(now, 35 * minutes, retained_wal_bytes=1 << 30))
    assert triggered(warehouse) == NONE

    write(run(now, 30 * minutes, exit_code=1, error="gone; run again", lag_seconds=300.0))
    assert triggered(warehouse) == NONE
    write(run(now, 25 * minutes, exit_code=1, error="gone; run again", lag_seconds=600.0))
    assert triggered(warehouse) == {**NONE, "failed": True}
    # Another command's success is no cure.
    write(run(now, 20 * minutes, command="verify", lag_seconds=None))
    assert triggered(warehouse)["failed"]
    write(run(now, 15 * minutes))
    assert triggered(warehouse) == NONE

    waiting = str(TablesNeedSnapshot({"public.orders": "the table was rewritten"}))
    write(run(now, 10 * minutes, exit_code=3, error=waiting))
    assert triggered(warehouse) == {**NONE, "needs_snapshot": True}
    # A run that follows and goes on has no exit code yet.
    write(run(now, 8 * minutes, exit_code=None, seq=1))
    assert triggered(warehouse)["needs_snapshot"]
    write(run(now, 5 * minutes))
    assert triggered(warehouse) == NONE


def test_every_query_of_the_dashboard_has_the_fields_that_it_shows(
    warehouse: Warehouse, write: Callable[..., None], now: datetime
) -> None:
    hour = timedelta(hours=1)
    write(
        run(now, 26 * hour, inserts=5, updates=4, deletes=3, transactions=2),
        run(now, 3 * hour, exit_code=1, error="gone; run again", lag_seconds=3600.0),
        run(now, 2 * hour, inserts=50, retained_wal_bytes=2 << 30, lag_bytes=3 << 20),
        run(now, 200 * hour, inserts=7),  # longer than a week ago
    )
    answers = {
        dataset["name"]: ask(warehouse, "".join(dataset["queryLines"]))
        for dataset in DASHBOARD["datasets"]
    }
    for item in DASHBOARD["pages"][0]["layout"]:
        for query in item["widget"].get("queries", ()):
            asked = query["query"]
            for field in asked["fields"]:
                assert all(field["name"] in row for row in answers[asked["datasetName"]]), field
            assert answers[asked["datasetName"]]
    (current,) = answers["now"]
    assert 119 < current["age_minutes"] < 125
    assert (current["failed_runs"], current["ended_runs"], current["changes"]) == (1, 2, 50)
    (wal,) = answers["wal"]
    assert (float(wal["retained_gb"]), float(wal["lag_mb"])) == (2.0, 3.0)
    assert [row["error"] for row in answers["failures"]] == ["gone; run again"]
    assert sum(row["changes"] for row in answers["changes"]) == 62
    assert {row["outcome"]: row["runs"] for row in answers["outcomes"]} == {"done": 1, "failed": 1}
    (table,) = answers["tables"]
    assert (table["table_name"], table["inserts"]) == ("public.orders", 9)
    assert len(answers["runs"]) == 3
