"""Data in few words."""

from runner.data import Columns, Selection, open_dataset


def dataset(kind, *, id=None, target=None, columns=None, limit=None, shuffle=False, seed=0, **source):  # noqa: A002 - as in the config
    """Open data with the keys that the config group ``data`` has."""
    return open_dataset(
        kind, columns=Columns(id, target, columns or {}), selection=Selection(limit=limit, shuffle=shuffle, seed=seed), **source
    )
