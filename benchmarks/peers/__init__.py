"""Other tools, as they come from the package index, each in an environment of its own."""
