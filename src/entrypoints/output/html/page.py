"""The whole page: one file without network access, which a strict content security policy enforces.

Source: W3C, "Content Security Policy Level 3" (hashes of inline scripts and styles).
"""

from __future__ import annotations

import hashlib
from base64 import b64encode
from importlib.resources import files
from typing import TYPE_CHECKING

from entrypoints.output.html import sections
from entrypoints.output.html.assessment import Level, assess
from entrypoints.output.html.history import History
from entrypoints.output.html.markup import Html, join, tag

if TYPE_CHECKING:
    from entrypoints.output.html.facts import PageFacts

#: The icon of the browser's tab, by level.
_ICON = {Level.GOOD: "#1a7f37", Level.ATTENTION: "#bf8700", Level.BAD: "#cf222e"}
_WORD = {Level.GOOD: "OK", Level.ATTENTION: "Attention", Level.BAD: "Act now"}


def render(facts: PageFacts) -> str:
    """Return the page as HTML."""
    history = History.of(facts.receipts, facts.at)
    assessment = assess(facts, history)
    style, script = _resource("style.css"), _resource("script.js")
    policy = (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    icon = (
        "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 8 8'%3E"
        f"%3Ccircle cx='4' cy='4' r='4' fill='%23{_ICON[assessment.level][1:]}'/%3E%3C/svg%3E"
    )
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="robots", content="noindex"),
        tag("title", f"{_WORD[assessment.level]} · {facts.dataset} · pgbronze"),
        Html(f'<link rel="icon" href="{icon}">'),
        Html(f"<style>{style}</style>"),
    )
    body = tag(
        "body",
        tag("a", "Skip to the tables", href="#tables", class_="skip"),
        tag(
            "main",
            sections.header(facts, assessment),
            sections.answers(assessment),
            sections.tasks(assessment),
            sections.charts(facts, history),
            sections.facts_list(facts, history),
            sections.tables(facts),
            sections.runs(facts, history),
        ),
        tag(
            "footer",
            f"pgbronze {facts.version}. Written by ",
            tag("code", "pgbronze status --html FILE"),
            "; run it again for the state of now.",
        ),
        Html(f"<script>{script}</script>"),
    )
    return "<!DOCTYPE html>\n" + tag("html", join(head, body), lang="en") + "\n"


def _resource(name: str) -> str:
    return (files("entrypoints.output.html") / name).read_text(encoding="utf-8")


def _hash(content: str) -> str:
    return "sha256-" + b64encode(hashlib.sha256(content.encode()).digest()).decode()
