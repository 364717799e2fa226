"""What people see: log lines, progress, reports, on which console."""
