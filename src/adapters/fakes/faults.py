"""A script of faults: which call fails, and how."""

from __future__ import annotations

from dataclasses import dataclass, field


class InjectedCrash(BaseException):
    """Stands for the process being killed: no handler for errors catches it."""


@dataclass
class FaultPlan:
    """Counts the calls that pass it and fails the chosen ones.

    `at` maps the number of a call (from 0, over all names) to the exception that it raises. `named`
    maps a name to the exception that each call of that name raises. Sweep `at={n: InjectedCrash()}`
    over n to kill a run at every call.
    """

    at: dict[int, BaseException] = field(default_factory=dict)
    named: dict[str, BaseException] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    _crash: InjectedCrash | None = None

    def pass_by(self, call: str) -> None:
        if self._crash is not None:
            raise self._crash  # a process that was killed makes no more calls
        number = len(self.calls)
        self.calls.append(call)
        fault = self.at.get(number) or self.named.get(call)
        if isinstance(fault, InjectedCrash):
            self._crash = fault
        if fault is not None:
            raise fault
