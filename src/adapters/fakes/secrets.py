"""The secrets port over a mapping."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from adapters.fakes.faults import FaultPlan

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass
class InMemorySecrets:
    """Secrets by their dotted key; a fault at `secrets.get` stands for a store that refuses."""

    values: Mapping[str, str] = field(default_factory=dict, repr=False)
    faults: FaultPlan = field(default_factory=FaultPlan)

    def get(self, key: str) -> str | None:
        self.faults.pass_by("secrets.get")
        return self.values.get(key)
