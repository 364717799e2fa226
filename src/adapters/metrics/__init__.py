"""Metrics of runs, added up from their events, and the ways by which they leave the process."""
