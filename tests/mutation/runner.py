"""Runs the unit tests of a file against its mutants: one process that has collected the tests, and
a fork of it for each mutant.

In the fork only the code of the mutated function is exchanged, so that every module that has
imported it has the mutant. A test that runs through no line of the function is left out.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import select
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, Phase, settings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.mutation.mutants import Mutant

ROOT = Path(__file__).parents[2]
#: A mutant that takes longer than this, and several times as long as its tests take with a trace,
#: has been noticed: it does not end.
SECONDS, TIMES = 20.0, 4
#: The longest that any test takes.
MOST = 300.0
_KILLED, _SURVIVED = 1, 0


@dataclass
class MutantRunner:
    """A plugin of pytest: collects the tests, then runs them for each mutant.

    `survivors` are filled in when pytest has ended. `choose` returns the mutants, once the file's
    module is imported.
    """

    module: str
    mutants: Sequence[Mutant]
    survivors: list[Mutant] = field(default_factory=list)
    seconds: float = 0.0

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        began = time.monotonic()
        module = importlib.import_module(self.module)
        items = [item for item in session.items if _is_fast(item)]
        lines, seconds = _lines_run(items, str(module.__file__))
        for mutant in self.mutants:
            first, last = _span(mutant)
            wanted = [item for item in items if any(first <= n <= last for n in lines[item])]
            limit = max(SECONDS, TIMES * sum(seconds[item] for item in wanted))
            if not self._noticed(module, mutant, wanted, limit):
                self.survivors.append(mutant)
        self.seconds = time.monotonic() - began
        return True

    def _noticed(self, module: Any, mutant: Mutant, items: list[pytest.Item], limit: float) -> bool:
        def run() -> int:
            _exchange(module, mutant)
            return _KILLED if any(_fails(item) for item in items) else _SURVIVED

        return _in_fork(run, limit) != _SURVIVED


def run_mutants(module: str, mutants: Sequence[Mutant], tests: Sequence[str]) -> MutantRunner:
    """Return the runner with the mutants that no test has noticed."""
    # The first example that fails is enough.
    settings.register_profile(
        "mutation", settings.get_profile("default"), deadline=None, derandomize=True,
        database=None, phases=(Phase.explicit, Phase.generate), report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    runner = MutantRunner(module, mutants)
    options = [
        "-q", "--no-header", "--no-summary", "-o", "addopts=", "--import-mode=importlib",
        "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:timeout",
        "--hypothesis-profile=mutation",
    ]  # fmt: skip
    with Path(os.devnull).open("w") as quiet, contextlib.redirect_stdout(quiet):
        code = pytest.main([*options, *tests], plugins=[runner])
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        raise RuntimeError(f"the tests of {module} cannot be collected: {code!r}")
    return runner


def _is_fast(item: pytest.Item) -> bool:
    """Whether a test needs no server and no other process."""
    slow = {"postgres", "database", "sql"}
    return not slow & {*getattr(item, "fixturenames", ())}


def _fails(item: pytest.Item) -> bool:
    errors = [call.excinfo for call in _calls(item) if call.excinfo is not None]
    return any(not error.errisinstance(pytest.skip.Exception) for error in errors)


def _calls(item: pytest.Item) -> list[pytest.CallInfo[None]]:
    hook = item.ihook
    calls = [pytest.CallInfo.from_call(lambda: hook.pytest_runtest_setup(item=item), "setup")]
    if calls[0].excinfo is None:
        run = pytest.CallInfo.from_call(lambda: hook.pytest_runtest_call(item=item), "call")
        calls.append(run)
    hook_down = pytest.CallInfo.from_call(
        lambda: hook.pytest_runtest_teardown(item=item, nextitem=None), "teardown"
    )
    return [*calls, hook_down]


def _lines_run(
    items: Sequence[pytest.Item], file: str
) -> tuple[dict[pytest.Item, set[int]], dict[pytest.Item, float]]:
    """The lines of a file that each test runs, and how long it takes with a trace. Raises
    `RuntimeError` if a test fails as it is."""
    found, seconds = {}, {}
    for item in items:
        read, write = os.pipe()

        def run(item: pytest.Item = item, write: int = write) -> int:
            lines: set[int] = set()

            def trace(frame: Any, event: str, _: object) -> Any:
                if frame.f_code.co_filename != file:
                    return None
                lines.add(frame.f_lineno)
                return trace

            sys.settrace(trace)
            failed = _fails(item)
            sys.settrace(None)
            os.write(write, " ".join(map(str, sorted(lines))).encode())
            return _KILLED if failed else _SURVIVED

        began = time.monotonic()
        if _in_fork(run, MOST, close=read) != _SURVIVED:
            raise RuntimeError(f"{item.nodeid} fails without a mutant")
        seconds[item] = time.monotonic() - began
        os.close(write)
        with os.fdopen(read, "rb") as pipe:
            found[item] = {int(word) for word in pipe.read().split()}
    return found, seconds


def _span(mutant: Mutant) -> tuple[int, int]:
    from tests.mutation.mutants import _find

    node = _find(mutant.tree, mutant.name)
    return node.lineno, node.end_lineno or node.lineno


def _exchange(module: Any, mutant: Mutant) -> None:
    """Give the function the mutant's code."""
    import ast

    code = compile(ast.fix_missing_locations(mutant.tree), module.__file__, "exec")
    space: dict[str, Any] = {"__name__": module.__name__, "__file__": module.__file__}
    exec(code, space)
    *owner, name = mutant.name.split(".")
    old: Any = vars(module)[owner[0]].__dict__[name] if owner else vars(module)[name]
    new: Any = space[owner[0]].__dict__[name] if owner else space[name]
    for wrapper in ("fget", "__func__", "func", "__wrapped__"):
        if hasattr(old, wrapper) and not hasattr(old, "__code__"):
            old, new = getattr(old, wrapper), getattr(new, wrapper)
    if hasattr(old, "__wrapped__"):  # such as `contextmanager`
        old, new = old.__wrapped__, new.__wrapped__
    old.__code__ = new.__code__
    old.__defaults__, old.__kwdefaults__ = new.__defaults__, new.__kwdefaults__


def _in_fork(run: Callable[[], int], limit: float, close: int | None = None) -> int:
    """Run in a fork; its exit code, or -1 if it did not end in time."""
    child = os.fork()
    if child == 0:
        code = _KILLED
        try:
            if close is not None:
                os.close(close)
            with Path(os.devnull).open("w") as quiet:
                os.dup2(quiet.fileno(), 1)
                os.dup2(quiet.fileno(), 2)
            code = run()
        finally:
            os._exit(code)
    opened = os.pidfd_open(child)
    try:
        ready, _, _ = select.select([opened], [], [], limit)
        if not ready:
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        return os.waitstatus_to_exitcode(status)
    finally:
        os.close(opened)
