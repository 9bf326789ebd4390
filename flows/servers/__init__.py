"""Choose, start, find and stop Prefect servers, and keep their databases clean."""
