"""Define every error that Ostinato raises on purpose, in one tree. Imports nothing of the library.

    OstinatoError
    ├── ConfigError (ValueError)     the config, an override or an argument is wrong        exit 2
    ├── DataError (ValueError)       a data file or a row is wrong                           exit 1
    ├── CacheError                   a cache that cannot be used as asked (replay miss, ...) exit 1
    ├── RecordError                  a run folder that cannot be read or written             exit 1
    ├── BudgetExceeded               the run's budget is spent                               exit 3
    ├── LaunchError                  a model server that could not be started or reached     exit 1
    ├── OrchestratorError            no Prefect server is available                          exit 1
    ├── ScheduleError                a scheduled run that failed or is incomplete            exit 1
    │   └── CanaryUndecided          what was left out could turn the verdict on a canary   exit 3
    ├── CanaryFailed                 scores significantly worse than the reference's         exit 100
    ├── FinetuneError                a training job that could not be run                    exit 1
    ├── SolverError                  the program of a row failed                             its row
    ├── StageError                   a stage of a pipeline that is incomplete                exit 3
    └── LMError                      one request to a model failed
        ├── AuthenticationError      401          stop   the key is missing or refused
        ├── PermissionDeniedError    403          stop   the key may not use this model
        ├── NotFoundError            404          stop   no such model or path
        ├── QuotaError               402, 429     stop   daily quota or credit used up
        ├── BadRequestError          400, 422     row    the request itself is refused
        ├── ContextWindowError       400          row    this row's prompt is too long
        ├── ContentFilterError       400          row    the provider refused this row
        ├── RateLimitError           429          retry  too fast; `retry_after` when told
        ├── LMTimeoutError           408, 504     retry  no answer in time
        ├── ServerError              5xx          retry  the server failed
        ├── TransportError           -            retry  no connection
        │   └── ConnectionLostError  -            retry  the request was sent; the connection closed without an answer
        ├── MalformedError           2xx          retry  a body that is not an answer
        └── EndpointClosedError      -            stop   not sent: it would fail as an earlier request did

`disposition` of an LMError says whose fault it is, and so what happens next: `retry` is the moment's (runner.network.retry
tries again), `row` is this row's alone, `stop` is the endpoint's (every other request to it would fail in the same way). The
limiter sees the replies to all rows: it makes a `stop` of one row a `row` while others are answered (runner.limits.endpoint).
A failed row is data: it is recorded once, on its own sample, and never cancels its siblings. To add a class: derive it here,
give it `code` and `disposition`, and map to it in the table of runner.network.words or in the transport that sees it. All
errors pickle.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal, TypeGuard

Disposition = Literal["retry", "row", "stop"]


class OstinatoError(Exception):
    """Base class of every error that Ostinato raises on purpose. `exit_code` is the exit code of the command."""

    exit_code: ClassVar[int] = 1


class ConfigError(OstinatoError, ValueError):
    """Signal that a config file, an override or an argument is wrong; the message says where, and what is allowed."""

    exit_code = 2


class DataError(OstinatoError, ValueError):
    """Signal that a data file or a row cannot be used; the message names the file and the line or row."""


class CacheError(OstinatoError):
    """Signal that the cache cannot be used as requested, for example a miss in replay mode."""


class RecordError(OstinatoError):
    """Signal that a run folder cannot be read or written."""


class BudgetExceeded(OstinatoError):  # noqa: N818 - the name that users of DSPy and LangChain know
    """Signal that the budget of the run does not allow another request."""

    exit_code = 3


class LaunchError(OstinatoError):
    """Signal that a model server could not be started, found or reached."""


class OrchestratorError(OstinatoError):
    """Signal that the orchestrator (a Prefect server) could not be started or reached."""


class ScheduleError(OstinatoError):
    """Signal that a scheduled run failed, or is incomplete."""


class CanaryFailed(OstinatoError):  # noqa: N818 - a verdict rather than a mistake
    """Signal that a canary's scores are significantly worse than its reference's."""

    exit_code = 100


class CanaryUndecided(ScheduleError):  # noqa: N818 - likewise
    """Signal that samples without a score could turn the verdict on a canary."""

    exit_code = 3


class FinetuneError(OstinatoError):
    """Signal that a fine-tuning job could not be run."""


class SolverError(OstinatoError):
    """Signal that a solver could not answer a row, for example because the user's function raised. It is this row's error."""


class StageError(OstinatoError):
    """Signal that a stage of a pipeline is incomplete: rows failed or are owed. Running the pipeline again resumes it."""

    exit_code = 3


class LMError(OstinatoError):
    """Signal that one request to a model failed.

    Attributes:
        provider: the provider of the model (``openai``), or None.
        model: the model as requested, or None.
        status: the HTTP status, or None when there was none.
        request_id: the provider's name for the request, or None.
        retry_after: seconds to wait, as the provider says, or None.
        attempts: how many attempts were made before giving up.
        disposition: what happens next, see above. An instance may differ from its class.
        sent: False if the request cannot have reached the server: there was no connection.
        begun: whether a part of a streamed answer had come.
        parameter: the parameter that the server refuses, which every request of a run has; None if it names none.
    """

    code: ClassVar[str] = "error"
    disposition: Disposition = "row"

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
        self.sent = True
        self.begun = False
        self.parameter: str | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        details = {key: value for key, value in vars(self).items() if key not in ("message", "__notes__")}
        return (_rebuild, (type(self), self.message, details))


def _rebuild(cls: type[LMError], message: str, details: dict[str, Any]) -> LMError:
    error = cls(message)
    vars(error).update(details)
    return error


class AuthenticationError(LMError):
    """Signal that the key is missing, wrong or revoked."""

    code = "authentication"
    disposition = "stop"


class PermissionDeniedError(LMError):
    """Signal that the key is good but may not use this model."""

    code = "permission_denied"
    disposition = "stop"


class NotFoundError(LMError):
    """Signal that there is no such model, or no such path on the server."""

    code = "not_found"
    disposition = "stop"


class QuotaError(LMError):
    """Signal that a quota or credit is used up; waiting for seconds does not help."""

    code = "quota"
    disposition = "stop"


class BadRequestError(LMError):
    """Signal that the server refuses the request as it is."""

    code = "bad_request"
    disposition = "row"


class ContextWindowError(LMError):
    """Signal that the prompt and the answer do not fit into the model's window, or into what the account may use at once."""

    code = "context_window"
    disposition = "row"


class ContentFilterError(LMError):
    """Signal that the provider's filter refused the prompt."""

    code = "content_filter"
    disposition = "row"


class RateLimitError(LMError):
    """Signal too many requests or tokens per minute."""

    code = "rate_limit"
    disposition = "retry"


class LMTimeoutError(LMError, TimeoutError):
    """Signal that no answer came within the time allowed for one attempt."""

    code = "timeout"
    disposition = "retry"


class ServerError(LMError):
    """Signal that the server answered 5xx."""

    code = "server"
    disposition = "retry"


class TransportError(LMError, ConnectionError):
    """Signal that no connection could be made."""

    code = "transport"
    disposition = "retry"


class ConnectionLostError(TransportError):
    """Signal that the server took the request and closed the connection before it had answered."""

    code = "connection_lost"


class EndpointClosedError(LMError):
    """Signal that the request was not sent, because an earlier error said that every request to this endpoint would fail."""

    code = "endpoint_closed"
    disposition = "stop"


class MalformedError(LMError):
    """Signal that the server answered 2xx with a body that is not an answer."""

    code = "malformed"
    disposition = "retry"


def is_of_row(error: BaseException) -> TypeGuard[LMError]:
    """Return whether only this row has failed."""
    return isinstance(error, LMError) and error.disposition != "stop"


def first_of(group: ExceptionGroup[Exception]) -> Exception:
    """Return the error to report: one of Ostinato's own if there is any."""
    flat = [error for error in group.exceptions if not isinstance(error, ExceptionGroup)]
    flat += [first_of(error) for error in group.exceptions if isinstance(error, ExceptionGroup)]
    return next((error for error in flat if isinstance(error, OstinatoError)), flat[0])
