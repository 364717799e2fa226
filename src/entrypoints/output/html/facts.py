"""The facts that a page shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from cdc_core.use_cases.show_status import StatusReport
    from cdc_core.values.errors import CdcError
    from cdc_core.values.runs import RunReceipt


@dataclass(frozen=True)
class PageFacts:
    """`report` is None if an end could not be reached; `error` then says which. `receipts` are rows
    of `_cdc_runs`, newest first; `receipts_kept`: the settings have runs leave them."""

    pipeline: str
    destination: str
    dataset: str
    at: datetime
    version: str
    report: StatusReport | None
    error: CdcError | None = None
    receipts: Sequence[RunReceipt] = ()
    receipts_kept: bool = True


#: Receipts on a page: a week of a run that follows, with room.
RECEIPTS_SHOWN = 12_000
