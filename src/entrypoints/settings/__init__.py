"""The settings: one validated model, and where its values come from."""
