"""Run experiments at their times: deployments, the worker that runs them, the flow of one turn."""
