"""A process of its own, as far as settings and logging go: empty folder, empty environment."""

from __future__ import annotations

import logging
import os
import warnings
from typing import TYPE_CHECKING

import pytest

from entrypoints.output.log import redact

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: No test may print it, in any form.
PASSWORD = "hunter2-Zebra"
DSN = f"postgresql://app:{PASSWORD}@127.0.0.1:1/shop"


@pytest.fixture(autouse=True)
def clean_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in list(os.environ):
        if name.startswith(("PIPELINE__", "SOURCES__", "DESTINATION__", "DATABRICKS_", "DLT_")):
            monkeypatch.delenv(name)
    monkeypatch.delenv("LOG_LEVEL", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("DLT_PROJECT_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    # dlt's global folder; for root it is fixed, so the tests must not find a real one.
    monkeypatch.setattr(
        "adapters.secrets.dlt_providers._global_folder", lambda *_: tmp_path / "global"
    )
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    # A destination that was opened in this process has silenced these for good.
    silenced = {name: logging.getLogger(name).level for name in ("databricks", "dlt")}
    for name in silenced:
        logging.getLogger(name).setLevel(logging.NOTSET)
    with warnings.catch_warnings():
        yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, before in silenced.items():
        logging.getLogger(name).setLevel(before)
    logging.captureWarnings(capture=False)
    redact._secrets.clear()
    redact.add(())
