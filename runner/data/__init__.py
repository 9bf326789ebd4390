"""Data: rows from inline lists, JSONL, JSON, CSV and TSV, streamed, with stable ids and errors that name file and line."""

from runner.data.dataset import Columns, Dataset, Selection, open_dataset

__all__ = ["Columns", "Dataset", "Selection", "open_dataset"]
