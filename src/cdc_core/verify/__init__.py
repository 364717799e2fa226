"""Comparing source and destination, and repairing what differs."""
