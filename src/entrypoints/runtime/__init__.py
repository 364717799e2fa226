"""Settings of our own processes: memory, stop requests, errors."""
