"""One run and its folder. Plain Python, usable in a notebook; knows nothing of Prefect."""
