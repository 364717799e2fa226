"""Delta tables on Databricks: store, statements, sessions, errors."""
