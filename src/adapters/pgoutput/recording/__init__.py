"""Recordings: a file with what a run reads from slot and catalog, and a source that reads it."""
