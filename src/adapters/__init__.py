"""What talks to the outside: one folder a system, none knows another."""
