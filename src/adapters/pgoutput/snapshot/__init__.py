"""Reading whole tables in an exported snapshot."""
