"""Findings about source and tables, and the remedy of each."""
