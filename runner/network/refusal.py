"""Decide what a server's refusal means: by its words (`runner.network.words`), else by its HTTP status."""

from __future__ import annotations

from typing import NamedTuple

from runner.errors import (
    AuthenticationError,
    BadRequestError,
    ContextWindowError,
    LMError,
    LMTimeoutError,
    NotFoundError,
    PermissionDeniedError,
    QuotaError,
    RateLimitError,
    ServerError,
    TransportError,
)

_BY_STATUS: dict[int, type[LMError]] = {
    400: BadRequestError,
    401: AuthenticationError,
    402: QuotaError,
    403: PermissionDeniedError,
    404: NotFoundError,
    405: NotFoundError,
    408: LMTimeoutError,
    409: ServerError,
    410: NotFoundError,  # Hugging Face, for an address that it has given up
    413: ContextWindowError,
    422: BadRequestError,
    423: ServerError,
    424: ServerError,  # TGI and Bedrock: the model failed during the answer
    425: ServerError,
    429: RateLimitError,
    498: ServerError,  # Groq: no capacity in the flex tier
    499: ServerError,  # Google and nginx: the request was cancelled
    501: BadRequestError,
    504: LMTimeoutError,
    524: LMTimeoutError,  # Cloudflare: no answer within its time
}


class Verdict(NamedTuple):
    """The meaning of a refusal. `remedy` says what to do; it is empty where the advice of the class is enough."""

    kind: type[LMError]
    remedy: str = ""


def judge(status: int | None, words: str, otherwise: type[LMError] | None = None) -> Verdict:
    """Return what a refusal means.

    Args:
        status: the HTTP status; None if there was none. With 200, words alone decide.
        words: all that the body says (`runner.network.said.Said.words`): some servers use 400, 429 or 500 for everything.
        otherwise: the class if no rule fits; default: that of the status.
    """
    if status is None:
        return Verdict(otherwise or TransportError)
    from runner.network.words import RULES  # some 200 patterns, which a run without a refusal need not compile

    rule = next((rule for rule in RULES if rule.fits(status, words)), None)
    if rule is not None:
        return Verdict(rule.kind, rule.remedy)
    return Verdict(otherwise or _BY_STATUS.get(status, BadRequestError if status < 500 else ServerError))  # noqa: PLR2004


def classify(status: int | None, words: str) -> type[LMError]:
    """Return the class of a failure, by HTTP status and the server's words."""
    return judge(status, words).kind
