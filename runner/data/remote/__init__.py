"""Data that lies elsewhere (``https://``, ``s3://``, ``hf://``): fetched whole, kept by content, and read from there."""

from runner.data.remote.naming import is_remote, pinned, title

__all__ = ["is_remote", "pinned", "title"]
