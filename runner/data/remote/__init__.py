"""Data that lies elsewhere (``https://``, ``s3://``, ``hf://``): fetched whole, kept by content, and read from there."""

from runner.data.remote.fetch import Fetched, fetched, in_place
from runner.data.remote.naming import is_remote, pinned, title
from runner.data.remote.store import Kept

__all__ = ["Fetched", "Kept", "fetched", "in_place", "is_remote", "pinned", "title"]
