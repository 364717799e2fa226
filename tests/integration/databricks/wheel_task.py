"""Runs an entry point of an installed wheel as a serverless task does, in that wheel's environment.

Called as a function in an interactive Python, with arguments in `sys.argv`; whatever it raises
fails the task. What came of it goes to a file: standard output and error are the task's log.
Run by `test_lakeflow` in a fork (`tests.support.forked`), never imported.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from IPython.core.interactiveshell import InteractiveShell

CELL = """
import sys
from importlib import metadata
sys.argv = [{entry_point!r}, *{parameters!r}]
scripts = metadata.distribution({package_name!r}).entry_points
(entry,) = [entry for entry in scripts if entry.name == {entry_point!r}]
entry.load()()
"""

task, outcome_file = json.loads(sys.argv[1]), Path(sys.argv[2])
shell = InteractiveShell.instance(colors="NoColor")
result = shell.run_cell(task.pop("before") + CELL.format(**task))
error = result.error_in_exec or result.error_before_exec
dlt = sys.modules.get("dlt")
outcome = {
    "succeeded": result.success,
    "error": str(error or ""),
    "code": getattr(error, "code", None),
    "dlt": getattr(dlt, "__file__", None),
    "credentials": bool(dlt and dlt.secrets.get("sources.pg_replication.credentials")),
}
outcome_file.write_text(json.dumps(outcome))
