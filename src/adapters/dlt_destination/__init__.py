"""Destinations on dlt: one adapter, and a thin variant of it for each kind of table store.

The way of a batch: Parquet files -> a dlt load package -> one atomic step per table -> the
checkpoint as dlt state. Nothing here imports dlt before a destination is opened.
Source: https://dlthub.com/docs/dlt-ecosystem/destinations.
"""
