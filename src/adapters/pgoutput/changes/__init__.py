"""Reading changes from the slot: in bulk through SQL, or as a stream."""
