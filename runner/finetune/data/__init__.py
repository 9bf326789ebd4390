"""Training rows: read, filtered, checked."""
