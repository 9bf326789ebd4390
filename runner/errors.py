"""Every error Ostinato raises on purpose, in one tree, importing nothing of the library.

    OstinatoError
    ├── ConfigError (ValueError)     the config, an override or an argument is wrong        exit 2
    ├── DataError (ValueError)       a data file or a row is wrong                           exit 1
    ├── CacheError                   a cache that cannot be used as asked (replay miss, ...) exit 1
    ├── RecordError                  a run folder that cannot be read or written             exit 1
    ├── BudgetExceeded               the run's budget is spent                               exit 3
    ├── LaunchError                  a model server that could not be started or reached     exit 1
    ├── OrchestratorError            no Prefect server could be had                          exit 1
    ├── ScheduleError                a scheduled run that could not be played to its end     exit 1
    ├── CanaryFailed                 scores significantly worse than the reference's         exit 100
    ├── FinetuneError                a training job that could not be run                    exit 1
    ├── StageError                   a stage of a pipeline that has not come to its end      exit 3
    └── LMError                      one request to a model failed
        ├── AuthenticationError      401          stop   the key is missing or refused
        ├── PermissionDeniedError    403          stop   the key may not use this model
        ├── NotFoundError            404          stop   no such model or path
        ├── QuotaError               402, 429     stop   daily quota or credit used up
        ├── BadRequestError          400, 422     stop   the request itself is refused
        ├── ContextWindowError       400          row    this row's prompt is too long
        ├── ContentFilterError       400          row    the provider refused this row
        ├── RateLimitError           429          retry  too fast; `retry_after` when told
        ├── LMTimeoutError           408, 504     retry  no answer in time
        ├── ServerError              5xx          retry  the server failed
        ├── TransportError           -            retry  no connection, or it broke
        ├── MalformedError           2xx          retry  an answer that is not an answer
        └── EndpointClosedError      -            stop   not sent: an earlier error would meet this request too

`disposition` of an LMError says who must act: `retry` (runner.network.retry tries again), `row` (only this row has failed),
`stop` (every other request to this endpoint would fail in the same way). A failed row is data: it is recorded once, on its own
sample, and never cancels its siblings. To add a class: derive it here, give it `code` and `disposition`, and map to it in
the transport that sees it. All errors pickle.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

Disposition = Literal["retry", "row", "stop"]


class OstinatoError(Exception):
    """Base of every error that Ostinato raises on purpose. `exit_code` is what the command ends with."""

    exit_code: ClassVar[int] = 1


class ConfigError(OstinatoError, ValueError):
    """A config file, an override or an argument is wrong; the message says where, and what is allowed."""

    exit_code = 2


class DataError(OstinatoError, ValueError):
    """A data file or a row cannot be used; the message names the file and the line or row."""


class CacheError(OstinatoError):
    """The cache cannot do what was asked of it, for example a miss in replay mode."""


class RecordError(OstinatoError):
    """A run folder cannot be read or written."""


class BudgetExceeded(OstinatoError):  # noqa: N818 - the name users of DSPy and LangChain look for
    """The budget of the run does not allow another request."""

    exit_code = 3


class LaunchError(OstinatoError):
    """A model server could not be started, found or reached."""


class OrchestratorError(OstinatoError):
    """The orchestrator (a Prefect server) could not be started or reached."""


class ScheduleError(OstinatoError):
    """A scheduled run could not be played, or not to its end."""


class CanaryFailed(OstinatoError):  # noqa: N818 - a verdict rather than a mistake
    """A canary's scores are significantly worse than its reference's."""

    exit_code = 100


class FinetuneError(OstinatoError):
    """A fine-tuning job could not be run."""


class StageError(OstinatoError):
    """A stage of a pipeline has not come to its end: rows failed or are owed. Running the pipeline again goes on with it."""

    exit_code = 3


class LMError(OstinatoError):
    """One request to a model failed.

    Attributes:
        provider: who was asked (``openai``), or None.
        model: the model as it was asked for, or None.
        status: the HTTP status, or None when there was none.
        request_id: the provider's name for the request, or None.
        retry_after: seconds the provider asked us to wait, or None.
        attempts: how many attempts were made before giving up.
    """

    code: ClassVar[str] = "error"
    disposition: ClassVar[Disposition] = "row"

    def __init__(
        self,
        message: str,
        *,
        provider: str | None = None,
        model: str | None = None,
        status: int | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
        attempts: int = 1,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.provider = provider
        self.model = model
        self.status = status
        self.request_id = request_id
        self.retry_after = retry_after
        self.attempts = attempts

    def __reduce__(self) -> tuple[Any, ...]:
        details = {key: value for key, value in vars(self).items() if key not in ("message", "__notes__")}
        return (_rebuild, (type(self), self.message, details))


def _rebuild(cls: type[LMError], message: str, details: dict[str, Any]) -> LMError:
    return cls(message, **details)


class AuthenticationError(LMError):
    """The key is missing, wrong or revoked."""

    code = "authentication"
    disposition = "stop"


class PermissionDeniedError(LMError):
    """The key is good but may not use this model."""

    code = "permission_denied"
    disposition = "stop"


class NotFoundError(LMError):
    """There is no such model, or no such path on the server."""

    code = "not_found"
    disposition = "stop"


class QuotaError(LMError):
    """A quota or credit is used up; waiting seconds does not help."""

    code = "quota"
    disposition = "stop"


class BadRequestError(LMError):
    """The server refuses the request as it is."""

    code = "bad_request"
    disposition = "stop"


class ContextWindowError(LMError):
    """The prompt and the answer do not fit into the model's window."""

    code = "context_window"
    disposition = "row"


class ContentFilterError(LMError):
    """The provider's filter refused the prompt."""

    code = "content_filter"
    disposition = "row"


class RateLimitError(LMError):
    """Too many requests or tokens in a minute."""

    code = "rate_limit"
    disposition = "retry"


class LMTimeoutError(LMError, TimeoutError):
    """No answer within the time allowed for one attempt."""

    code = "timeout"
    disposition = "retry"


class ServerError(LMError):
    """The server answered 5xx."""

    code = "server"
    disposition = "retry"


class TransportError(LMError, ConnectionError):
    """No connection could be made, or it broke."""

    code = "transport"
    disposition = "retry"


class EndpointClosedError(LMError):
    """The request was not sent, because an earlier error said that every request to this endpoint would fail."""

    code = "endpoint_closed"
    disposition = "stop"


class MalformedError(LMError):
    """The server answered 2xx with something that is not an answer."""

    code = "malformed"
    disposition = "retry"
