"""Destinations on dlt: one adapter, and one table store for each kind of destination.

A batch becomes Parquet files, then one atomic step per table, then a dlt load package that stores
the checkpoint as dlt state. Nothing here imports dlt before a destination is opened.
Source: https://dlthub.com/docs/dlt-ecosystem/destinations.
"""
