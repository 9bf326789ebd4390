"""Run experiments, sweeps, pipelines and schedules through Prefect, and keep the servers that record them. Policy is runner's."""
