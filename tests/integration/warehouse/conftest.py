"""The warehouse's fixtures, for its own tests."""

from tests.integration.warehouse.fixtures import warehouse, warehouse_server

__all__ = ["warehouse", "warehouse_server"]
