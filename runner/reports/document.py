"""The page around the content: one file with styles and script, and a content security policy that allows no requests."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from functools import cache
from importlib.resources import files
from typing import Any

import msgspec

from runner.reports.markup import Html, esc, tag

_UNSAFE = {b"<": b"\\u003c", b">": b"\\u003e", b"&": b"\\u0026", "\u2028".encode(): b"\\u2028", "\u2029".encode(): b"\\u2029"}


def document(title: str, body: Html, data: dict[str, Any]) -> str:
    """Return the whole page.

    Args:
        title: of the browser's tab.
        body: what stands in ``<body>``.
        data: the script's input, as plain JSON data.
    """
    style, script = _asset("page.css"), _asset("page.js")
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n<meta name="color-scheme" content="light dark">\n'
        f"<title>{esc(title)}</title>\n<style>{style}</style>\n</head>\n<body>\n{body}\n"
        f"{tag('script', embedded(data), type='application/json', id='data')}\n<script>{script}</script>\n</body>\n</html>\n"
    )


def embedded(data: dict[str, Any]) -> Html:
    """Return JSON without any ``<``, ``>`` or ``&``, so that no HTML parser can take part of it for the end of its script."""
    text = msgspec.json.encode(data)
    for unsafe, safe in _UNSAFE.items():
        text = text.replace(unsafe, safe)
    return Html(text.decode())


@cache
def _asset(name: str) -> str:
    return (files("runner.reports") / name).read_text("utf-8")


def _digest(text: str) -> str:
    return f"sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
