"""Recognise secrets, and remove them from text before it is shown or written."""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from typing import Any
from urllib.parse import parse_qsl

from runner.errors import ConfigError

_NAMED = ("hf", "gsk", "r8", "ghp", "gho", "glpat", "xai", "pplx", "nvapi", "tgp_v1", "fw", "dapi", "csk")
"""Prefixes of other providers' keys, before a hyphen or an underscore."""
_KNOWN = re.compile(
    rf"""(?x)\b(?:
        sk-(?:ant-|proj-|or-)?[A-Za-z0-9_-]{{16,}}      # OpenAI, Anthropic, OpenRouter
      | AIza[A-Za-z0-9_-]{{30,}}                        # Google
      | (?:{"|".join(_NAMED)})[_-][A-Za-z0-9_-]{{16,}}
      | AKIA[A-Z0-9]{{16}}                              # AWS
      | eyJ[A-Za-z0-9_-]{{10,}}\.[A-Za-z0-9_-]{{10,}}\.[A-Za-z0-9_-]{{5,}}   # JSON web tokens
    )"""
)
_BEARER = re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}")
_SIGNING = {
    # AWS signature 4 and CloudFront, Google Cloud Storage V4, Azure SAS (2026-02-06): they sign, or say until when and for whom
    *(f"x-{who}-{what}" for who in ("amz", "goog") for what in ("algorithm", "credential", "date", "expires", "signature")),
    *("x-amz-signedheaders", "x-amz-security-token", "x-goog-signedheaders", "x-id", "x-amz-checksum-mode"),
    *("signature", "expires", "policy", "key-pair-id", "awsaccesskeyid", "googleaccessid"),
    *("sig", "sv", "se", "st", "sp", "sr", "spr", "sip", "skoid", "sktid", "skt", "ske", "sks", "skv"),
}
"""Parameters of signed URLs, in lower case."""
_SIGNS = (
    r"(?:signature|sig|api_?key|access_?token|(?:[\w.-]+[-_.])?(?:signature|token|secret|passw(?:or)?d|credentials?|auth|key))"
)
_SIGNED_QUERY = re.compile(rf"(?i)(://[^\s?#\"'<>]*\?)(?:[^\s#\"'<>?]*&)?{_SIGNS}=[^\s#\"'<>]*")
_CONCEALED = re.compile(r"\?\*\*\*[0-9a-f]{0,8}(?=#|$)")
_USERINFO = re.compile(r"(?<=://)[^/\s@]+@")
_SENSITIVE_NAME = re.compile(r"(?i)(?:^|[-_.]|api)(key|token|secret|password|passwd|authorization|credentials?|auth)(?:$|[-_.])")

_JOINED_MARKS = ("sk-", *(f"{name}-".replace("_", "-") for name in _NAMED))
"""Marks, in lower case and with hyphens for underscores, one of which each key with a prefix has."""

_HARMLESS = "0123456789abcdef-:.+TZ"
"""Characters that make no secret by themselves: hashes and times, which are in each sample."""

_BASIC = ("basic", "bas\u0131c", "basi\u0307c")
"""The word as `casefold` leaves it: a pattern that ignores case takes an i without a dot, or a capital one with it, for an i."""

_SHORTEST = len("basic 12345678")
"""Length of the shortest text that can look like a secret: pages and tables clean very many short texts."""

_seen: set[str] = set()
_queries: dict[str, str] = {}
"""URLs with a secret query of this process, by what `concealed` made of them."""


def names_a_secret(name: str) -> bool:
    """Return whether a config key such as ``api_key`` or ``x-auth-token`` would hold a secret. ``*_env`` names a variable."""
    name = name.rsplit(".", 1)[-1].partition("[")[0]
    return bool(_SENSITIVE_NAME.search(name)) and not name.endswith("_env")


def is_secret(name: str, value: str) -> bool:
    """Return whether `value`, found under the config key `name`, is a secret: it has a known prefix, or looks random."""
    if _KNOWN.search(value) or (_BEARER.search(value) and (names_a_secret(name) or "headers." in name)):
        return True
    return names_a_secret(name) and len(value) >= 12 and " " not in value and _entropy(value) >= 3.0  # noqa: PLR2004


def _entropy(text: str) -> float:
    """Return the Shannon entropy of the characters, in bits per character."""
    counts = Counter(text)
    return -sum(n / len(text) * math.log2(n / len(text)) for n in counts.values())


def from_env(name: str, *, where: str) -> str:
    """Return the secret in the environment variable `name`, and remember it, so that `redact` hides it everywhere.

    Args:
        name: the variable.
        where: the config key that names it, for the error.

    Raises:
        ConfigError: the variable is not set, or is empty.
    """
    value = os.environ.get(name, "").strip()
    if not value:
        raise ConfigError(f"{where}: the environment variable {name} is not set; export {name}=... and run again")
    remember(value)
    return value


def remember(value: str) -> None:
    """Have `redact` hide this value from now on. Values under 8 characters are ignored: they would hide half of all text."""
    if len(value) >= 8:  # noqa: PLR2004
        _seen.add(value)


def holds_secret(text: str) -> bool:
    """Return whether `text` holds a remembered secret, or one with a known prefix. Unlike `redact`, it does not guess."""
    return any(value in text for value in _seen) or _KNOWN.search(text) is not None


def is_clean(text: str) -> bool:
    """Return whether `redact` surely leaves a text, and any part of it, as it is. It takes one look at many texts, joined."""
    return "://" not in text and not (_seen and any(value in text for value in _seen)) and not _is_suspect(text)


def redact(text: str) -> str:
    """Return `text` with remembered secrets, everything that looks like one, and user names in URLs replaced by ``***``."""
    for value in sorted(_seen, key=len, reverse=True) if _seen else ():  # the longest first: one may be part of another
        text = text.replace(value, "***")
    if len(text) >= _SHORTEST and _is_suspect(text):
        text = _KNOWN.sub("***", text)
        text = _BEARER.sub(r"\1 ***", text)
    return _SIGNED_QUERY.sub(r"\1***", _USERINFO.sub("***@", text)) if "://" in text else text


def concealed(url: str) -> str:
    """Return a URL as it may be written: a signed one without its query, which this process keeps for `revealed`.

    Parameters that do not sign are hashed, so that two files of one path differ.
    """
    base, asked, query = url.partition("?")
    query, hashed, pin = query.partition("#")
    if not asked or not _SIGNED_QUERY.search(url) or _CONCEALED.search(url):
        return url
    others = sorted((name, value) for name, value in parse_qsl(query, keep_blank_values=True) if not _signs(name))
    import hashlib  # here, because it loads OpenSSL, and every command imports this module

    mark = hashlib.sha256(repr(others).encode()).hexdigest()[:8] if others else ""
    shown = f"{base}?***{mark}"
    remember(query)
    _queries[shown] = f"{base}?{query}"
    return f"{shown}{hashed}{pin}"


def revealed(url: str) -> str | None:
    """Return the URL that `concealed` made `url` of; any other as it is; None if it was concealed by another process."""
    return _queries.get(url) if _CONCEALED.search(url) else url


def _signs(name: str) -> bool:
    return name.lower() in _SIGNING or names_a_secret(name)


_TEXTLESS = frozenset({type(None), bool, int, float})


def redacted(value: Any) -> Any:
    """Return JSON data with every text in it redacted. Done before encoding, which the mask could break."""
    if isinstance(value, str):
        return value if len(value) < _SHORTEST and not _seen and "://" not in value else redact(value)
    if isinstance(value, dict):
        return {name: part if type(part) in _TEXTLESS else redacted(part) for name, part in value.items()}
    return [redacted(part) for part in value] if isinstance(value, list) else value


def _is_suspect(text: str) -> bool:
    """Return whether the first two patterns may find something: they take ten times as long as to look for marks, or more."""
    if not text.strip(_HARMLESS):
        return False
    folded = text.casefold()
    if "bearer" in folded or ("bas" in folded and any([word in folded for word in _BASIC])):  # noqa: C419 - twice as fast
        return True
    if "AIza" in text or "AKIA" in text or "eyJ" in text:
        return True
    if "-" not in folded and "_" not in folded:
        return False
    joined = folded.replace("_", "-")
    return any([mark in joined for mark in _JOINED_MARKS])  # noqa: C419 - twice as fast
