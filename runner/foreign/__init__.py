"""Turn what other tools made into ours: their runs become records, their configs become experiments."""
