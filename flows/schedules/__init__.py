"""Run experiments on schedules: deployments, the worker that runs them, the flow of one turn."""
