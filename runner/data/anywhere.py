"""Open data wherever it lies."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from runner.data.dataset import Dataset, Kind, open_dataset
from runner.data.remote import is_remote, title
from runner.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence


def open_anywhere(
    kind: Kind, path: str | Sequence[str], *, token_env: str | None = None, name: str | None = None, **how: Any
) -> Dataset:
    """Open files, of which some may be remote: these are fetched first, and their messages name their addresses.

    Args:
        kind: as for `open_dataset`.
        path: the file, or several, as for `open_dataset`; or remote ones, as for `fetched`.
        token_env: the environment variable that holds a token for the servers.
        name: name of the data; default: the name of the data set on a hub, else the file's stem.
        how: the other arguments of `open_dataset`.

    Raises:
        ConfigError, DataError: as `open_dataset` and `fetched`.
    """
    given = [path] if isinstance(path, str) else path
    if not any(map(is_remote, given)):
        return open_dataset(kind, path=path, name=name, **how)
    from runner.data.remote.fetch import fetched, in_place  # which loads what HTTP needs

    found = {one: fetched(one, token_env) for one in dict.fromkeys(given) if is_remote(one)}
    files = [file for one in given for file in found.get(one, ())]
    paths = [there for one in given for there in ([str(file.path) for file in found[one]] if one in found else [one])]
    try:
        data = open_dataset(kind, path=paths, name=name or title(given[0]), **how)
    except DataError as error:
        raise DataError(in_place(str(error), files)) from error
    data.fetched = tuple(file.kept for file in files)
    for remark in dict.fromkeys(file.remark for file in files if file.remark):
        warnings.warn(remark, stacklevel=2)
        data.remarks.append(remark)
    return data
