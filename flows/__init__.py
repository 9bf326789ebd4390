"""What flows is: an experiment's stages as Prefect shows them, and the servers that keep their history. Policy is runner's."""
