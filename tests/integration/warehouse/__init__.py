"""A local stand-in for a Databricks SQL warehouse, for tests; README.md says how far it goes."""

from .client import Warehouse, read_delta

__all__ = ["Warehouse", "read_delta"]
