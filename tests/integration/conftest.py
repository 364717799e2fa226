"""The local warehouse that integration tests share, fresh for each."""

from tests.integration.warehouse.fixtures import warehouse, warehouse_server

__all__ = ["warehouse", "warehouse_server"]
