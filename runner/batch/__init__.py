"""Playing many rows: what one row is (asker), how many at once (engine), and what they add up to (tally)."""
