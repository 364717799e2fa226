"""The Databricks destination on the local warehouse."""
