"""Call a model: from the arguments of a call to its answer."""
