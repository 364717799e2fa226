"""Continuity of slot and checkpoint, and how much WAL the slot may retain."""
