"""Data: rows from files of many kinds, or from the YAML itself, streamed, with stable ids and errors that name file and line."""

from runner.data.anywhere import open_anywhere
from runner.data.dataset import Columns, Dataset, Kind, open_dataset
from runner.data.selection import Selection

__all__ = ["Columns", "Dataset", "Kind", "Selection", "open_anywhere", "open_dataset"]
