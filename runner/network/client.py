"""HTTP as the hosted trainers need it: a JSON request at a time, its failures as our errors. Tries once."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

from runner.errors import (
    BadRequestError,
    LMError,
    LMTimeoutError,
    MalformedError,
    TransportError,
)
from runner.network.refusal import classify, retry_after

if TYPE_CHECKING:
    from collections.abc import Mapping


def status_error(provider: str, status: int, message: str, *, after: str | None = None, request_id: str | None = None) -> LMError:
    """What an answer with this HTTP status, these words and this ``Retry-After`` means."""
    wait = retry_after({"retry-after": after or ""})
    return classify(status, message)(message, provider=provider, status=status, retry_after=wait, request_id=request_id)


def send(
    provider: str, method: str, url: str, *, headers: Mapping[str, str], body: Any = None, timeout_s: float = 60.0
) -> dict[str, Any]:
    """Send `body` (bytes as they are, anything else as JSON) and return the JSON object of the answer, empty for an empty one.

    Raises:
        LMError: no answer, or one that says no.
    """
    content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    kind = "application/octet-stream" if isinstance(body, bytes) else "application/json"
    request = urllib.request.Request(url, content, {"Content-Type": kind, **headers}, method=method)  # noqa: S310 - checked below
    if not url.startswith(("http://", "https://")):
        raise BadRequestError(f"{url} is no address", provider=provider)
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:  # noqa: S310
            text = answer.read()
    except urllib.error.HTTPError as error:
        raise status_error(provider, error.code, _said(error), after=error.headers.get("Retry-After")) from None
    except TimeoutError:
        raise LMTimeoutError(f"no answer within {timeout_s:g} s", provider=provider) from None
    except (OSError, http.client.HTTPException) as error:
        raise TransportError(f"no connection: {getattr(error, 'reason', None) or error}", provider=provider) from None
    try:
        found = json.loads(text) if text.strip() else {}
    except ValueError:
        raise MalformedError(f"the answer is not JSON: {text[:80]!r}", provider=provider) from None
    if not isinstance(found, dict):
        raise MalformedError("the answer is no JSON object", provider=provider)
    return found


def _said(error: urllib.error.HTTPError) -> str:
    """What the body of a refusal says."""
    try:
        text = error.read().decode("utf-8", errors="replace")
    except OSError:
        return error.reason or str(error.code)
    try:
        body = json.loads(text)
    except ValueError:
        return text.strip()[:300] or error.reason or str(error.code)
    inner = body.get("error", body) if isinstance(body, dict) else body
    return str(inner.get("message") if isinstance(inner, dict) else inner)
