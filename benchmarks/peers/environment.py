"""A virtual environment for each peer, made when it is first asked for and kept in a cache.

Needs `uv`. What cannot be installed here is `NotMeasured`, with the installer's own words.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.bench import NotMeasured

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAMS = Path(__file__).parent / "programs"
#: A newer interpreter than the one at hand is looked for where pyenv keeps them, too.
_INTERPRETERS = Path("~/.pyenv/versions").expanduser()


def default_cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "pgbronze-benchmarks"


@dataclass(frozen=True)
class Environment:
    """`requirements` are pinned: figures speak of versions. Only wheels are installed, as nothing
    may be built here. `python` is the least version that the peer asks for."""

    name: str
    requirements: tuple[str, ...]
    python: tuple[int, int] = (3, 11)

    def bin(self, cache: Path) -> Path:
        """The folder of its programs; made if need be."""
        home = cache / self.name
        mark = home / "requirements.json"
        wanted = json.dumps(self.requirements)
        if not mark.exists() or mark.read_text() != wanted:
            self._make(home)
            mark.write_text(wanted)
        return home / "bin"

    def _make(self, home: Path) -> None:
        uv = shutil.which("uv")
        if uv is None:
            raise NotMeasured("uv, which installs peers, is not on the path")
        python = interpreter(self.python)
        if python is None:
            least = ".".join(map(str, self.python))
            raise NotMeasured(f"needs Python {least} or newer, and none is here")
        shutil.rmtree(home, ignore_errors=True)
        _call(uv, "venv", "--quiet", "--python", python, str(home))
        _call(
            uv, "pip", "install", "--quiet", "--only-binary", ":all:",
            "--python", str(home / "bin" / "python"), *self.requirements,
        )  # fmt: skip


def interpreter(least: tuple[int, int]) -> str | None:
    """A Python of that version or a newer one; the one that runs this, if it will do."""
    if sys.version_info[:2] >= least:
        return sys.executable
    return next(filter(None, map(_works, _candidates(least))), None)


def _candidates(least: tuple[int, int]) -> Iterator[str]:
    names = [f"python3.{minor}" for minor in range(least[1], least[1] + 4)]
    yield from filter(None, map(shutil.which, names))
    for name in names:
        yield from map(str, _INTERPRETERS.glob(f"{name.removeprefix('python')}.*/bin/{name}"))


def _works(python: str) -> str | None:
    done = subprocess.run([python, "-c", ""], capture_output=True, check=False)
    return None if done.returncode else python


def _call(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        words = " ".join((done.stderr or done.stdout).split())
        raise NotMeasured(f"cannot be installed: {words[:240]}")
