"""Files of models: weights, adapters, aliases."""
