"""The clock port held by hand."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class ManualClock:
    """Time passes when someone sleeps, at once, or when a test says so."""

    now: float = 0.0
    sleeps: list[float] = field(default_factory=list)

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.pass_time(seconds)

    def pass_time(self, seconds: float) -> None:
        self.now += max(0.0, seconds)
