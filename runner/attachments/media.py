"""Recognise the media that models take by their first bytes: a name may lie, and bytes of a column have none."""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

Kind: TypeAlias = Literal["image", "audio", "file"]


class Media(NamedTuple):
    """One format that can be sent.

    Attributes:
        kind: the part of a message that it makes.
        ending: the ending of its files, without the dot; for sounds also the ``format`` of OpenAI's API.
        media_type: as in data URLs. It is ``image/jpeg``, as registered, and not ``image/jpg``.
        begins: its first bytes.
        at: where these are.
    """

    kind: Kind
    ending: str
    media_type: str
    begins: bytes
    at: int = 0


FORMATS = (
    Media("image", "png", "image/png", b"\x89PNG\r\n\x1a\n"),
    Media("image", "jpg", "image/jpeg", b"\xff\xd8\xff"),
    Media("image", "gif", "image/gif", b"GIF8"),
    Media("image", "webp", "image/webp", b"WEBP", 8),
    Media("audio", "wav", "audio/wav", b"WAVE", 8),
    Media("audio", "mp3", "audio/mpeg", b"ID3"),
    Media("audio", "mp3", "audio/mpeg", b"\xff\xfb"),
    Media("audio", "mp3", "audio/mpeg", b"\xff\xf3"),
    Media("file", "pdf", "application/pdf", b"%PDF-"),
)
"""The formats that are sent: a cautious choice of common ones, not measured at the vendors. The signatures are those of the
formats' specifications. A model may take fewer (what litellm's map says of it is checked) or more; other formats have to be
converted first."""

_REFUSED = (("TIFF", b"II*\0", 0), ("TIFF", b"MM\0*", 0), ("BMP", b"BM", 0), ("HEIC", b"ftyp", 4), ("Ogg", b"OggS", 0))


def recognise(content: bytes) -> Media | None:
    """Return the format of some bytes; None if it is none of `FORMATS`."""
    return next((media for media in FORMATS if content.startswith(media.begins, media.at)), None)


def told(content: bytes) -> str:
    """Say what bytes seem to be that are none of `FORMATS`."""
    if not content:
        return "empty"
    known = next((name for name, begins, at in _REFUSED if content.startswith(begins, at)), None)
    return known or f"of an unknown format (it begins with {content[:8]!r})"


def allowed(kind: Kind) -> str:
    """Return the formats of a kind, for messages."""
    return ", ".join(dict.fromkeys(media.ending.upper() for media in FORMATS if media.kind == kind))


def media_type(name: str) -> str:
    """Return the media type of a kept file, by its ending."""
    ending = name.rpartition(".")[2]
    return next(media.media_type for media in FORMATS if media.ending == ending)
