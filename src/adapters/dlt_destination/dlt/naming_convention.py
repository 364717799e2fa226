"""A dlt naming convention that leaves every name unchanged.

`cdc_core.values.naming` maps names before they reach dlt. dlt finds a convention by its module.
Source: dlt documentation, "Naming convention".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlt.common.normalizers.naming.naming import NamingConvention as BaseNamingConvention

if TYPE_CHECKING:
    from collections.abc import Sequence


class NamingConvention(BaseNamingConvention):
    """The identity, for names and for paths of names."""

    @property
    def is_case_sensitive(self) -> bool:
        return True

    def normalize_identifier(self, identifier: str) -> str:
        return identifier

    def break_path(self, path: str) -> Sequence[str]:
        return [path]

    def normalize_path(self, path: str) -> str:
        return path

    def normalize_tables_path(self, path: str) -> str:
        return path
