"""What runs report about themselves: counts, positions and receipts."""
