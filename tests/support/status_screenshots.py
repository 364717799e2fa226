"""Make the screenshots of the status page: `python -m tests.support.status_screenshots`.

The weeks that they show are made up (`tests.support.status_week`). Needs Chromium.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from entrypoints.output.html.page import render
from tests.support.chromium import Chromium
from tests.support.status_week import NOW, calm, slot_lost, troubled

FOLDER = Path(__file__).parents[2] / "docs/how-to/images"

#: The file's name, the week, width and height of the window, and whether it is dark.
SHOTS = (
    ("status-calm", calm, 1040, 1070, False),
    ("status-troubled", troubled, 1040, 820, False),
    ("status-slot-lost-phone", slot_lost, 390, 900, True),
)


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, Chromium() as browser:
        for name, week, width, height, dark in SHOTS:
            page = Path(folder, f"{name}.html")
            page.write_text(render(week()), encoding="utf-8")
            browser.open(page, width=width, height=height, dark=dark, now=NOW)
            browser.screenshot(FOLDER / f"{name}.png", whole=False)


if __name__ == "__main__":
    main()
