"""The status of a pipeline as one self-contained page."""
