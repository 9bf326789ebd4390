"""An endpoint of OpenAI's format on loopback, under a config: any program gets cache, limits, budget and a record."""
