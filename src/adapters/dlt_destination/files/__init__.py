"""Parquet files of a run and where they lie."""
