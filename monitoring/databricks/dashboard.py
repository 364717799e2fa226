"""Write the AI/BI dashboard `pgbronze.lvdash.json`: `python monitoring/databricks/dashboard.py`.

The queries name no catalog and no schema: the bundle sets both. Every widget shows the fields of
one query as they are. Source: Databricks documentation, "Manage dashboards with Workspace APIs".
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("pgbronze.lvdash.json")

#: Rows of a run that is still going on count as well as those of one that ended.
WEEK = "ended_at > now() - INTERVAL 7 DAYS"

DATASETS = {
    "now": (
        "Now",
        f"""
        SELECT (unix_timestamp(now()) - max(unix_timestamp(ended_at) - lag_seconds)) / 60
            AS age_minutes,
          max(ended_at) AS last_receipt,
          sum(CASE WHEN exit_code <> 0 AND ended_at > now() - INTERVAL 1 DAY THEN 1 ELSE 0 END)
            AS failed_runs,
          sum(CASE WHEN exit_code IS NOT NULL AND ended_at > now() - INTERVAL 1 DAY THEN 1 ELSE 0
            END) AS ended_runs,
          sum(CASE WHEN ended_at > now() - INTERVAL 1 DAY
            THEN inserts + updates + deletes + truncates ELSE 0 END) AS changes
        FROM _cdc_runs WHERE {WEEK}
        """,
    ),
    "wal": (
        "WAL at the last receipt",
        """
        SELECT retained_wal_bytes / 1073741824 AS retained_gb, lag_bytes / 1048576 AS lag_mb
        FROM _cdc_runs WHERE retained_wal_bytes IS NOT NULL ORDER BY ended_at DESC LIMIT 1
        """,
    ),
    "positions": (
        "Lag and WAL over time",
        f"""
        SELECT date_trunc('HOUR', ended_at) AS hour, max(lag_seconds) / 60 AS lag_minutes,
          max(lag_bytes) / 1048576 AS lag_mb, max(retained_wal_bytes) / 1048576 AS retained_mb
        FROM _cdc_runs WHERE {WEEK} GROUP BY 1 ORDER BY 1
        """,
    ),
    "changes": (
        "Changes over time",
        f"""
        SELECT date_trunc('HOUR', ended_at) AS hour, 'inserts' AS kind, sum(inserts) AS changes
        FROM _cdc_runs WHERE {WEEK} GROUP BY 1
        UNION ALL
        SELECT date_trunc('HOUR', ended_at), 'updates', sum(updates)
        FROM _cdc_runs WHERE {WEEK} GROUP BY 1
        UNION ALL
        SELECT date_trunc('HOUR', ended_at), 'deletes', sum(deletes)
        FROM _cdc_runs WHERE {WEEK} GROUP BY 1
        """,
    ),
    "outcomes": (
        "Runs over time",
        f"""
        SELECT date_trunc('HOUR', ended_at) AS hour,
          CASE WHEN exit_code = 0 THEN 'done' ELSE 'failed' END AS outcome, count(*) AS runs
        FROM _cdc_runs WHERE exit_code IS NOT NULL AND {WEEK} GROUP BY 1, 2
        """,
    ),
    "failures": (
        "Failed runs",
        f"""
        SELECT ended_at, command, exit_code, error FROM _cdc_runs
        WHERE exit_code <> 0 AND {WEEK} ORDER BY ended_at DESC LIMIT 100
        """,
    ),
    "tables": (
        "Tables",
        """
        SELECT t.table_name, t.target, sum(t.inserts) AS inserts, sum(t.updates) AS updates,
          sum(t.deletes) AS deletes, sum(t.rows_read) AS rows_read, max(r.ended_at) AS last_run
        FROM _cdc_run_tables AS t JOIN _cdc_runs AS r ON r.run_id = t.run_id AND r.seq = t.seq
        WHERE r.ended_at > now() - INTERVAL 7 DAYS
        GROUP BY t.table_name, t.target ORDER BY max(r.ended_at) DESC
        """,
    ),
    "runs": (
        "Runs",
        f"""
        SELECT started_at, ended_at, command, exit_code, transactions,
          inserts + updates + deletes + truncates AS changes, rows_read, statements, lag_seconds
        FROM _cdc_runs WHERE {WEEK} ORDER BY ended_at DESC LIMIT 500
        """,
    ),
}


def main() -> None:
    FILE.write_text(text(), encoding="utf-8")


def text() -> str:
    """The dashboard's file."""
    return json.dumps(dashboard(), indent=2, ensure_ascii=False) + "\n"


def dashboard() -> dict[str, Any]:
    datasets = [
        {"name": name, "displayName": title, "queryLines": _lines(query)}
        for name, (title, query) in DATASETS.items()
    ]
    layout = [
        _text("title", ["## pgbronze\n", "The last seven days, from the receipts of the runs.\n"]),
        _counter("age", "now", "age_minutes", "Age of the data, minutes"),
        _counter("failed", "now", "failed_runs", "Failed runs, 24 h"),
        _counter("ended", "now", "ended_runs", "Runs, 24 h"),
        _counter("changes_of_day", "now", "changes", "Changes, 24 h"),
        _counter("lag_now", "wal", "lag_mb", "Lag, MB of WAL"),
        _counter("retained_now", "wal", "retained_gb", "WAL retained, GB"),
        _chart("line", "lag", "positions", "lag_minutes", "Lag when runs ended, minutes"),
        _chart("line", "retained", "positions", "retained_mb", "WAL retained by the slot, MB"),
        _chart("bar", "changes_by_hour", "changes", "changes", "Changes by hour", "kind"),
        _chart("bar", "runs_by_hour", "outcomes", "runs", "Runs by hour", "outcome"),
        _table(
            "failed_runs", "failures", "Failed runs, with what to do",
            ["ended_at", "command", "exit_code", "error"],
        ),
        _table(
            "tables_changed", "tables", "Tables changed or read",
            ["table_name", "target", "inserts", "updates", "deletes", "rows_read", "last_run"],
        ),
        _table(
            "last_runs", "runs", "Runs",
            ["started_at", "ended_at", "command", "exit_code", "transactions", "changes",
             "rows_read", "statements", "lag_seconds"],
        ),
    ]  # fmt: skip
    places = [
        (0, 0, 6, 1),
        *((column, 1, 1, 2) for column in range(6)),
        (0, 3, 3, 5), (3, 3, 3, 5), (0, 8, 3, 5), (3, 8, 3, 5),
        (0, 13, 6, 5), (0, 18, 6, 7), (0, 25, 6, 8),
    ]  # fmt: skip
    return {
        "datasets": datasets,
        "pages": [
            {
                "name": "overview",
                "displayName": "Overview",
                "pageType": "PAGE_TYPE_CANVAS",
                "layout": [
                    {
                        "widget": widget,
                        "position": {"x": x, "y": y, "width": width, "height": height},
                    }
                    for widget, (x, y, width, height) in zip(layout, places, strict=True)
                ],
            }
        ],
    }


def _lines(query: str) -> list[str]:
    """The lines of a query without the indentation that they have here."""
    stripped = [line.removeprefix(" " * 8).rstrip() for line in query.strip("\n").split("\n")]
    while stripped and not stripped[-1]:
        stripped.pop()
    return [f"{line}\n" for line in stripped]


def _queries(dataset: str, *fields: str) -> list[dict[str, Any]]:
    return [
        {
            "name": "main_query",
            "query": {
                "datasetName": dataset,
                "fields": [{"name": name, "expression": f"`{name}`"} for name in fields],
                "disaggregated": True,
            },
        }
    ]


def _text(name: str, lines: list[str]) -> dict[str, Any]:
    return {"name": name, "multilineTextboxSpec": {"lines": lines}}


def _counter(name: str, dataset: str, field: str, title: str) -> dict[str, Any]:
    return {
        "name": name,
        "queries": _queries(dataset, field),
        "spec": {
            "version": 2,
            "widgetType": "counter",
            "encodings": {"value": {"fieldName": field, "displayName": title}},
            "frame": {"showTitle": True, "title": title},
        },
    }


def _chart(
    kind: str, name: str, dataset: str, field: str, title: str, color: str = ""
) -> dict[str, Any]:
    encodings: dict[str, Any] = {
        "x": {"fieldName": "hour", "scale": {"type": "temporal"}, "displayName": "Time"},
        "y": {"fieldName": field, "scale": {"type": "quantitative"}, "displayName": title},
    }
    if color:
        encodings["color"] = {
            "fieldName": color, "scale": {"type": "categorical"}, "displayName": color,
        }  # fmt: skip
    fields = ["hour", field, *([color] if color else [])]
    return {
        "name": name,
        "queries": _queries(dataset, *fields),
        "spec": {
            "version": 3,
            "widgetType": kind,
            "encodings": encodings,
            "frame": {"showTitle": True, "title": title},
        },
    }


def _table(name: str, dataset: str, title: str, fields: list[str]) -> dict[str, Any]:
    columns = [
        {"fieldName": field, "displayName": field.replace("_", " ").capitalize()}
        for field in fields
    ]
    return {
        "name": name,
        "queries": _queries(dataset, *fields),
        "spec": {
            "version": 2,
            "widgetType": "table",
            "encodings": {"columns": columns},
            "frame": {"showTitle": True, "title": title},
        },
    }


if __name__ == "__main__":
    main()
