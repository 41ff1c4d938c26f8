"""From series to checked stations."""
