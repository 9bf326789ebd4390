"""One run and its folder. Plain Python, usable in a notebook, and independent of Prefect."""
