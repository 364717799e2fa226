"""Headless Chromium, driven through its DevTools protocol over a pipe.

Source: Chromium, `--remote-debugging-pipe`, whose messages end with a NUL byte; Chrome DevTools
Protocol.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
from collections import deque
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from pathlib import Path

#: How long to wait for the browser.
ANSWER_SECONDS = 20.0

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")


def program() -> str | None:
    """The browser on this machine; None without one."""
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


def kind() -> str:
    """The browser in words, for the last lines of a test run."""
    found = program()
    if found is None:
        return "not installed: the tests of the status page in a browser are SKIPPED"
    version = subprocess.run([found, "--version"], capture_output=True, text=True, check=False)
    return f"{version.stdout.strip() or 'installed'} ({found})"


class Chromium:
    """One page of a browser of its own. `problems` are its console errors and exceptions."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.requests: list[str] = []
        self._number = 0
        self._events: deque[dict[str, Any]] = deque()

    def __enter__(self) -> Self:
        found = program()
        assert found is not None
        self._folder = tempfile.TemporaryDirectory(prefix="pgbronze-chromium-")
        there, ours = os.pipe()
        back, theirs = os.pipe()

        def give_pipes() -> None:
            # The browser reads from 3 and writes to 4.
            low, high = os.dup(there), os.dup(theirs)
            os.dup2(low, 3)
            os.dup2(high, 4)

        self._process = subprocess.Popen(
            [
                found,
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--hide-scrollbars",
                "--no-first-run",
                f"--user-data-dir={self._folder.name}",
                "--remote-debugging-pipe",
                "about:blank",
            ],
            preexec_fn=give_pipes,
            close_fds=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(there)
        os.close(theirs)
        self._write, self._read = ours, back
        self._pending = b""
        self._session: str | None = None
        targets = self.call("Target.getTargets")["targetInfos"]
        page = next(target for target in targets if target["type"] == "page")
        attached = self.call("Target.attachToTarget", targetId=page["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        return self

    def __exit__(self, *exc: object) -> None:
        os.close(self._write)
        os.close(self._read)
        self._process.terminate()
        self._process.wait(timeout=30)
        self._folder.cleanup()

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and return its result."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            found = self._receive()
            if found.get("id") == self._number:
                if "error" in found:
                    raise RuntimeError(f"{method}: {found['error']}")
                return dict(found["result"])

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._pending:
            if not select.select([self._read], [], [], ANSWER_SECONDS)[0]:
                raise RuntimeError("the browser does not answer")
            part = os.read(self._read, 1 << 16)
            if not part:
                raise RuntimeError("the browser went away")
            self._pending += part
        text, _, self._pending = self._pending.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        if "method" in message:
            self._note(message)
        return message

    def _note(self, event: dict[str, Any]) -> None:
        parameters = event["params"]
        match event["method"]:
            case "Runtime.exceptionThrown":
                self.problems.append(str(parameters["exceptionDetails"]))
            case "Runtime.consoleAPICalled" if parameters["type"] in ("error", "warning"):
                self.problems.append(str(parameters["args"]))
            case "Log.entryAdded" if parameters["entry"]["level"] in ("error", "warning"):
                self.problems.append(parameters["entry"]["text"])
            case "Network.requestWillBeSent":
                self.requests.append(parameters["request"]["url"])
            case _:
                self._events.append(event)

    def open(
        self,
        file: Path,
        *,
        width: int = 1280,
        height: int = 900,
        dark: bool = False,
        now: datetime | None = None,
    ) -> None:
        """Load a file in a window of this size, and wait until it has loaded. `now` is the page's
        clock."""
        if now is not None:
            clock = f"Date.now = () => {now.timestamp() * 1000}"
            self.call("Page.addScriptToEvaluateOnNewDocument", source=clock)
        self.problems.clear()
        self.requests.clear()
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media="", features=[scheme])
        self._events.clear()
        self.call("Page.navigate", url=file.as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self._events):
            self._receive()

    def print_media(self) -> None:
        self.call("Emulation.setEmulatedMedia", media="print", features=[])

    def run(self, script: str) -> Any:
        """Evaluate an expression in the page and return its JSON value."""
        found = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in found:
            raise RuntimeError(str(found["exceptionDetails"]))
        return found["result"].get("value")

    def press(self, *keys: str) -> None:
        """Press keys by their DOM names, such as Tab, Enter or ArrowLeft; a single character types
        it."""
        codes = {"Tab": 9, "Enter": 13, " ": 32, "ArrowLeft": 37, "ArrowRight": 39, "Home": 36}
        for key in keys:
            text = {"Enter": "\r", "Tab": None}.get(key, key if len(key) == 1 else None)
            options = {"key": key, "windowsVirtualKeyCode": codes.get(key, 0)}
            if text:
                options["text"] = text
            self.call("Input.dispatchKeyEvent", type="keyDown", **options)
            self.call("Input.dispatchKeyEvent", type="keyUp", **options)

    def screenshot(self, file: Path, *, whole: bool = True) -> None:
        """Write a PNG of the whole page, or of the window."""
        found = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        file.write_bytes(base64.b64decode(found["data"]))

    def focus_path(self, keys: Sequence[str]) -> list[str]:
        """What has the focus after each of these keys."""
        found = []
        for key in keys:
            self.press(key)
            found.append(self.run("document.activeElement.textContent.slice(0, 40)"))
        return found
