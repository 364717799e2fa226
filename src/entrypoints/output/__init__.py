"""Log lines, progress and reports, each on its console."""
