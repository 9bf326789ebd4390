"""Parts of other packages: scorers, data sources, adapters, solvers and transports, by the names of their entry points."""

from runner.plugins.installed import GROUPS, Added, Part, add, distribution

__all__ = ["GROUPS", "Added", "Part", "add", "distribution"]
