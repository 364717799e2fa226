"""Reading whole tables, in parts that survive a killed run."""
