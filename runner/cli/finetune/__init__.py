"""The verbs of `ostinato ft`."""
