"""In-memory implementations of every port, for the tests of services that embed the library.

They keep the ports' contracts (the same suites test them as the real adapters) and can fail at
any call (`FaultPlan`). Nothing here imports a driver.
"""

from adapters.fakes.clock import ManualClock
from adapters.fakes.destination import InMemoryDestination, Lake
from adapters.fakes.faults import FaultPlan, InjectedCrash
from adapters.fakes.postgres import InMemoryPostgres
from adapters.fakes.progress import RecordedProgress
from adapters.fakes.secrets import InMemorySecrets
from adapters.fakes.source import InMemoryMonitor, InMemorySource

__all__ = [
    "FaultPlan",
    "InMemoryDestination",
    "InMemoryMonitor",
    "InMemoryPostgres",
    "InMemorySecrets",
    "InMemorySource",
    "InjectedCrash",
    "Lake",
    "ManualClock",
    "RecordedProgress",
]
