"""The demo, and the random transactions of `simulate`."""
