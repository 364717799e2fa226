"""Build the documentation site from the files that people read in the repository.

`docs/` is copied to `build/site-pages` with README.md as the front page. A page's links to files
outside `docs/` become the files' paths, because the site has no such pages. Then Zensical builds
`build/site`, and fails on any warning.
"""

from __future__ import annotations

import posixpath
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGES = ROOT / "build" / "site-pages"
_LINK = re.compile(r"\[([^\]]+)\]\((?!https?:|mailto:|#)([^)\s]+)\)")


def main() -> int:
    shutil.rmtree(PAGES, ignore_errors=True)
    for source in (ROOT / "docs").rglob("*"):
        if source.suffix not in {".md", ".svg", ".png"}:
            continue
        page = PAGES / source.relative_to(ROOT / "docs")
        page.parent.mkdir(parents=True, exist_ok=True)
        if source.suffix == ".md":
            page.write_text(within_site(source, PAGES / source.relative_to(ROOT / "docs")))
        else:
            shutil.copyfile(source, page)
    (PAGES / "index.md").write_text(within_site(ROOT / "README.md", PAGES / "index.md"))
    command = [sys.executable, "-m", "zensical", "build", "--clean", "--strict"]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


def within_site(source: Path, page: Path) -> str:
    """The text of `source`, with links as they work from `page`."""

    def link(found: re.Match[str]) -> str:
        text, target = found.groups()
        path, _, anchor = target.partition("#")
        linked = (source.parent / path).resolve()
        if not linked.is_relative_to(ROOT / "docs"):
            name = linked.relative_to(ROOT).as_posix()
            return f"`{name}`" if text in {name, linked.name} else f"{text} (`{name}`)"
        moved = PAGES / linked.relative_to(ROOT / "docs")
        relative = posixpath.relpath(moved.as_posix(), page.parent.as_posix())
        return f"[{text}]({relative}{'#' + anchor if anchor else ''})"

    return _LINK.sub(link, source.read_text(encoding="utf-8"))


if __name__ == "__main__":
    raise SystemExit(main())
