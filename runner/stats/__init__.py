"""Statistics. Knows nothing of records."""
