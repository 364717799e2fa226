"""The options of the data source, as a user of `spark.read` gives them.

Spark ignores the case of their names. `credentials` is a secret: Spark shows no options of a Python
data source in plans, and our errors never contain it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, cast, get_args

from adapters.pgoutput.session.settings import SourceSettings
from cdc_core.values.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping

#: What becomes of a value that its Spark type cannot hold.
Unfit = Literal["error", "null", "column"]

_NAMES = (
    "credentials",
    "table",
    "snapshot",
    "maxConnections",
    "rowsPerPartition",
    "unrepresentable",
)


@dataclass(frozen=True)
class ReadOptions:
    """`snapshots` are the names under which one snapshot was exported; none: a new one."""

    credentials: str = field(repr=False)
    table: str
    snapshots: tuple[str, ...] = ()
    max_connections: int = 16
    rows_per_partition: int = 1_000_000
    unrepresentable: Unfit = "error"

    @property
    def source(self) -> SourceSettings:
        # A publication's row filter does not apply: the name of none is empty.
        return SourceSettings(self.credentials, pub_name="")

    @classmethod
    def parse(cls, options: Mapping[str, str]) -> ReadOptions:
        """Raises `SettingsError`, which names the option."""
        given = {name.lower(): value for name, value in options.items()}
        known = {name.lower(): name for name in _NAMES}
        unknown = sorted(given.keys() - known.keys())
        if unknown:
            raise SettingsError(f"unknown option {unknown[0]!r}", f"use one of {', '.join(_NAMES)}")
        for name in ("credentials", "table"):
            if not given.get(name):
                raise SettingsError(f"option {name!r} is missing", f'add .option("{name}", "…")')
        unfit = given.get("unrepresentable", "error")
        if unfit not in get_args(Unfit):
            raise SettingsError(
                f"option 'unrepresentable' is {unfit!r}", f"use one of {', '.join(get_args(Unfit))}"
            )
        names = given.get("snapshot", "").split(",")
        return cls(
            given["credentials"],
            given["table"],
            tuple(name.strip() for name in names if name.strip()),
            _positive(given, "maxConnections", cls.max_connections),
            _positive(given, "rowsPerPartition", cls.rows_per_partition),
            cast("Unfit", unfit),
        )


def _positive(given: Mapping[str, str], name: str, default: int) -> int:
    text = given.get(name.lower(), str(default))
    if not text.isdecimal() or not int(text):
        raise SettingsError(f"option {name!r} is {text!r}", "use a whole number above 0")
    return int(text)
