"""Parquet files of a run, and the folders that hold them."""
