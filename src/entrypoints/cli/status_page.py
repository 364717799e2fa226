"""`status --html`: collect what the page shows, and write it."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING

from cdc_core.values.errors import CdcError
from entrypoints.cli.arguments import PROGRAM
from entrypoints.output import log
from entrypoints.output.html.facts import RECEIPTS_SHOWN, PageFacts
from entrypoints.output.html.page import render

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cdc_core.values.runs import RunReceipt
    from entrypoints.container import Container
    from entrypoints.output.atomic_file import AtomicFile

logger = logging.getLogger("pgbronze")


def write_page(container: Container, file: AtomicFile) -> PageFacts:
    """Write the page and return its facts.

    If an end cannot be reached, the page says so and shows the rest; `error` is then the reason.
    """
    settings = container.settings()
    report, error = None, None
    receipts: Sequence[RunReceipt] = ()
    try:
        report = container.show_status().run()
    except CdcError as caught:
        error = caught
    try:
        receipts = _receipts(container)
    except CdcError as caught:
        error = error or caught
    facts = PageFacts(
        pipeline=settings.pipeline.name,
        destination=settings.pipeline.destination,
        dataset=settings.pipeline.dataset_name,
        at=datetime.now(UTC),
        version=version(PROGRAM),
        report=report,
        error=error,
        receipts=receipts,
        receipts_kept=settings.pipeline.receipts,
    )
    file.write(log.redact(render(facts)))
    logger.info("wrote %s", file.path)
    return facts


def _receipts(container: Container) -> Sequence[RunReceipt]:
    with container.destination() as destination:
        return destination.receipts(RECEIPTS_SHOWN)
