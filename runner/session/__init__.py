"""One sitting: an event loop, signals, an orchestrator. The same for a run, a sweep and a pipeline."""
