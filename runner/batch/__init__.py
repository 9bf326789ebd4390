"""Ask many rows: one of them (asker), many at once (engine), and their totals (tally)."""
