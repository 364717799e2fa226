"""What the next run would do: the values of a plan, and the definitions that it would send."""
