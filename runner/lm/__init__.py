"""One call to a model, from its arguments to its answer."""
