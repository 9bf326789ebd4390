"""Read data sets of the Hugging Face Hub. A branch may move, so its commit is found out first, and files are read there.

The only module of huggingface_hub, whose settings count (``HF_ENDPOINT``, ``HF_TOKEN``, ``hf auth login``, ``HF_HUB_OFFLINE``).
"""

from __future__ import annotations

import fnmatch
import glob
import os
import re
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote, unquote

import msgspec

from runner.data.formats import kind_of
from runner.data.remote.door import UnreachableError
from runner.data.remote.http import Http
from runner.data.remote.naming import pinned
from runner.errors import ConfigError, DataError
from runner.wording.suggest import suggest

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from runner.data.remote.door import Reply

_REVISION = r"(?:~parquet|refs/(?:convert|pr)/[^/@]+|[^/@]+)"
_ADDRESS = re.compile(rf"hf://(?:datasets/)?(?P<repo>[^/@]+/[^/@]+)(?:@(?P<revision>{_REVISION}))?(?:/(?P<rest>.*))?")
_ALIASES = {"~parquet": "refs/convert/parquet"}

_SPLITS = (("train", "training"), ("validation", "valid", "val", "dev"), ("test", "testing", "eval", "evaluation"))
"""Names of one split in names of files (`datasets` 5.2, data_files.SPLIT_KEYWORDS)."""


class Place(NamedTuple):
    """Hold what an address names: a repository, a revision, and a file, folder, pattern or split in it."""

    repo: str
    revision: str
    rest: str


class File(msgspec.Struct, frozen=True):
    """A file of a repository, as the Hub lists it."""

    rfilename: str
    lfs: dict[str, Any] | None = None


class Repository(msgspec.Struct, frozen=True):
    """Hold what the Hub says of a repository at a revision (``/api/datasets/REPO/revision/REVISION``)."""

    sha: str
    siblings: list[File] = []
    cardData: dict[str, Any] | None = None  # noqa: N815 - the Hub's name


class Hub:
    """Files at ``hf://org/name[@revision]/...`` addresses, where ``...`` is a split, or a file, a folder or a pattern.

    Args:
        token: sent to the Hub; None: the one of its own settings, if there is one.
    """

    def __init__(self, token: str | None = None) -> None:
        constants, own = _settings()
        self._endpoint = (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")
        self._offline = bool(constants.HF_HUB_OFFLINE)
        self._http = Http(token or own)

    def addresses(self, address: str) -> list[str]:
        """Return the addresses of all files of the split, at the commit of today; those in large-file storage are pinned."""
        place = parsed(address)
        found = self._repository(address, place)
        names = chosen(address, place.rest, found)
        digests = {file.rfilename: file.lfs.get("sha256") for file in found.siblings if file.lfs}
        return [pinned(f"hf://{place.repo}@{found.sha}/{name}", digests.get(name)) for name in names]

    def fixed(self, address: str) -> bool:
        """Return whether an address names a commit."""
        return bool(re.fullmatch(r"[0-9a-f]{40}", parsed(address).revision))

    def open(self, address: str, *, start: int = 0, version: str | None = None, unless: str | None = None) -> Reply | None:
        """Begin to read a file. See `Door`."""
        self._refuse_offline()
        place = parsed(address)
        url = f"{self._endpoint}/datasets/{place.repo}/resolve/{quote(place.revision, safe='')}/{quote(place.rest)}"
        return self._http.read(address, url, start=start, version=version, unless=unless)

    def _repository(self, address: str, place: Place) -> Repository:
        self._refuse_offline()
        url = f"{self._endpoint}/api/datasets/{place.repo}/revision/{quote(place.revision, safe='')}?blobs=true"
        reply = self._http.read(f"hf://{place.repo}@{place.revision}", url)
        assert reply is not None
        try:
            return msgspec.json.decode(b"".join(reply.blocks), type=Repository)
        except msgspec.MsgspecError as error:
            raise DataError(f"{address}: the Hub at {self._endpoint} says what cannot be understood: {error}") from None

    def _refuse_offline(self) -> None:
        if self._offline:
            raise UnreachableError("the Hub cannot be reached: HF_HUB_OFFLINE is set")


def parsed(address: str) -> Place:
    """Return what an address names.

    Raises:
        DataError: it is not ``hf://org/name[@revision]/...``.
    """
    found = _ADDRESS.fullmatch(address)
    if found is None:
        raise DataError(
            f"{address}: write hf://org/name/split or hf://org/name@revision/split; instead of the split, a file's path"
        )
    revision = unquote(found["revision"] or "main")
    return Place(found["repo"], _ALIASES.get(revision, revision), unquote(found["rest"] or "").strip("/"))


def chosen(address: str, rest: str, found: Repository) -> list[str]:
    """Return the names of the files that `rest` stands for: a file, a pattern, a split, or a folder.

    Raises:
        DataError: there are none, or it does not say which.
    """
    names = sorted(file.rfilename for file in found.siblings)
    if rest in names:
        return [rest]
    data = [name for name in names if kind_of(name) is not None]
    if glob.has_magic(rest):
        matching = [name for name in names if name.count("/") == rest.count("/") and fnmatch.fnmatchcase(name, rest)]
        return matching or _none(address, data)
    return (
        _declared(rest, found.cardData or {}, names)
        or _by_name(address, rest, data)
        or [name for name in data if name.startswith(f"{rest}/")]
        or _none(address, data)
    )


def _declared(rest: str, card: dict[str, Any], names: Sequence[str]) -> list[str]:
    """Return the files of a split that the README declares (``configs``); ``config/split`` names one of several configs."""
    config, _, split = rest.rpartition("/")
    for entry in card.get("configs") or ():
        files = entry.get("data_files")
        if (config and entry.get("config_name") != config) or not isinstance(files, list):
            continue
        if not config and not entry.get("default") and len(card["configs"]) > 1 and entry.get("config_name") != "default":
            continue
        patterns = [path for part in files if isinstance(part, dict) and part.get("split") == split for path in _paths(part)]
        folder = entry.get("data_dir")
        patterns = [f"{folder.strip('/')}/{path}" for path in patterns] if folder else patterns
        if found := [name for name in names if any(fnmatch.fnmatchcase(name, path) for path in patterns)]:
            return found
    return []


def _paths(part: dict[str, Any]) -> list[str]:
    path = part.get("path", [])
    return [path] if isinstance(path, str) else [str(one) for one in path]


def _by_name(address: str, rest: str, data: Sequence[str]) -> list[str]:
    """Return the files with the name of a split in theirs, or in that of their folder; of one folder, as ``folder/split``."""
    folder, _, split = rest.rpartition("/")
    words = next((group for group in _SPLITS if split in group), (split,))
    named = re.compile(rf"(?:^|[^a-z0-9])(?:{'|'.join(map(re.escape, words))})(?:[^a-z0-9]|$)", re.IGNORECASE)
    inside = [name for name in data if not folder or name.startswith(f"{folder}/")]
    found = [name for name in inside if split and named.search(name.removeprefix(folder).rpartition(".")[0])]
    tops = sorted({name.rpartition("/")[0] for name in found})
    if len(tops) > 1 and not any(split in top.split("/") for top in tops):
        raise DataError(f"{address}: the split is in several folders; name one: {_several(f'{top}/{split}' for top in tops)}")
    return found


def _none(address: str, data: Sequence[str]) -> list[str]:
    rest = parsed(address).rest
    hint = suggest(rest, data) or ";"
    what = f"nothing in it is the split, file or folder {rest!r}{hint}" if rest else "name a split, a file or a folder;"
    raise DataError(f"{address}: {what} its data files are {_several(data) or 'none of a kind that can be read'}")


def _several(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - 8} more" if len(listed) > 8 else ""  # noqa: PLR2004
    return ", ".join(listed[:8]) + more


def _settings() -> tuple[Any, str | None]:
    """Return the constants of huggingface_hub and the user's token."""
    try:
        from huggingface_hub import constants, get_token
    except ImportError:
        raise ConfigError("hf:// needs a package that is not installed: pip install 'ostinato[remote]'") from None
    return constants, get_token()
