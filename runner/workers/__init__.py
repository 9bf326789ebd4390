"""Play the rows of a run on workers: the head has plan, cache, record, limits and budget; workers answer and score."""
