"""Tables and figures for people, from finished tables and records (floor 5, no torch)."""
