"""Tables and figures for people, from finished tables and records."""
