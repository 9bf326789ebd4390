"""Playing again what is on record, on this machine or another, and saying what has changed."""
