"""Fine-tuning over OpenAI's API: files, jobs, events, cancel. The only door to the OpenAI SDK.

Works with every server that speaks ``/files`` and ``/fine_tuning/jobs``: OpenAI, Azure by its v1 address
(``https://NAME.openai.azure.com/openai/v1/``; a model must be deployed there before it answers), gateways. Together and Fireworks
train under paths of their own (``/fine-tunes``, ``/supervisedFineTuningJobs``) and take files in ways of their own, which this
module does not speak. Tested against a server that answers as the SDK expects; never against a paid account.

No job is paid for twice: each attempt has a file of its own, whose id is in the ledger before a job is made of it, and a key,
which goes into the job's suffix and metadata. Before a job is made, those there are are listed, and the one with our file or key
is adopted. So a process may be killed, or a connection cut, between the making of a job and the answer, and nothing is lost: a
create is never repeated without looking first.
"""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar

from runner.errors import (
    BadRequestError,
    FinetuneError,
    LMError,
    LMTimeoutError,
    MalformedError,
    NotFoundError,
    PermissionDeniedError,
    QuotaError,
    TransportError,
)
from runner.finetune.data.formats import TrainDataFormat
from runner.finetune.jobs.backend import Report
from runner.finetune.jobs.status import TrainingStatus
from runner.network.client import status_error

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runner.finetune.jobs.ledger import JobFolder

END_OF_NEW_JOBS = "2027-01-06"
"""The day from which on OpenAI itself takes no new fine-tuning jobs."""

_STATUS = {
    "validating_files": TrainingStatus.pending,
    "queued": TrainingStatus.pending,
    "pending": TrainingStatus.pending,
    "running": TrainingStatus.running,
    "paused": TrainingStatus.running,
    "succeeded": TrainingStatus.succeeded,
    "failed": TrainingStatus.failed,
    "cancelled": TrainingStatus.cancelled,
}
_MOST_LISTED = 1000
"""How many of the account's latest jobs are looked through for ours."""

_METRICS = {
    "train_loss": "loss",
    "valid_loss": "valid_loss",
    "full_valid_loss": "valid_loss",
    "train_mean_token_accuracy": "accuracy",
}


class OpenAITrainer:
    """Trains at OpenAI, or at a server that speaks its API.

    Args:
        api_key: the key; no secret of it is ever written.
        api_base: the server's address; None is OpenAI.
        poll_s: seconds between two looks.
        timeout_s: seconds for one request; uploads have ten times as many.
    """

    paid: ClassVar[bool] = True

    def __init__(self, *, api_key: str, api_base: str | None = None, poll_s: float = 10.0, timeout_s: float = 60.0) -> None:
        self.poll_s = poll_s
        self._api_key = api_key
        self._api_base = api_base
        self._timeout_s = timeout_s
        self._client: Any = None

    def advance(self, job: JobFolder) -> Report:
        """Upload, create, look: what of it is still to be done."""
        with _translated():
            remote = job.state().remote.get("job")
            if remote is None:
                try:
                    with _translated():
                        remote = self._adopted(job)
                        if remote is None and job.cancel_asked():
                            return Report(TrainingStatus.cancelled)
                        remote = remote or self._create(job)
                except (BadRequestError, PermissionDeniedError, NotFoundError, QuotaError) as error:
                    return Report(TrainingStatus.failed, error=self._refused(error))
                job.remember(job=remote)
            found = self._open().fine_tuning.jobs.retrieve(remote)
            self._hear(job, remote)  # after the look, so that of a job that has ended all is heard
            report = self._report(found)
            if report.status is TrainingStatus.succeeded:
                self._keep_checkpoints(job, remote)
            return report

    def cancel(self, job: JobFolder) -> None:
        """Cancel the remote job; one that has ended meanwhile is left alone."""
        remote = job.state().remote.get("job")
        if remote is None:
            return
        with _translated():
            try:
                self._open().fine_tuning.jobs.cancel(remote)
            except Exception as error:
                if not isinstance(_mapped(error), BadRequestError):  # a job that is over cannot be cancelled
                    raise

    def _open(self) -> Any:
        if self._client is None:
            import openai

            self._client = openai.OpenAI(api_key=self._api_key, base_url=self._api_base, timeout=self._timeout_s, max_retries=0)
        return self._client

    def _adopted(self, job: JobFolder) -> str | None:
        """The remote job of this attempt, when it was made already: by its file, which has no other use, or by our key."""
        key, file = _key(job), job.state().remote.get("train")
        for listed in islice(self._open().fine_tuning.jobs.list(limit=100), _MOST_LISTED):  # newest first; the SDK turns pages
            ours = (listed.metadata or {}).get("ostinato") == key or f":{key}:" in (listed.fine_tuned_model or "")
            if ours or (file is not None and listed.training_file == file):
                job.event("adopted", f"{listed.id} was made before; it is followed")
                return str(listed.id)
        return None

    def _create(self, job: JobFolder) -> str:
        spec, key = job.spec, _key(job)
        asked: dict[str, Any] = {"training_file": self._uploaded(job, "train")}
        if spec.data.valid_rows:
            asked["validation_file"] = self._uploaded(job, "valid")
        hyper = {name: value for name, value in spec.hyper.items() if value is not None}
        if "seed" in hyper:
            asked["seed"] = hyper.pop("seed")
        method = "dpo" if spec.train_data_format == TrainDataFormat.PREFERENCE else "supervised"
        if method != "dpo":
            hyper.pop("beta", None)
        asked |= {"model": spec.base.name, "suffix": key, "method": {"type": method, method: {"hyperparameters": hyper}}}
        create = self._open().fine_tuning.jobs.create
        try:
            with _translated():
                created = create(**asked, metadata={"ostinato": key})
        except BadRequestError as error:
            if "metadata" not in error.message:
                raise
            created = create(**asked)  # a server that does not know it; the file marks the job all the same
        if not getattr(created, "id", None):
            raise MalformedError("the server's answer to the creation of a job names no job", provider="openai")
        job.event("created", f"{created.id} at {self._api_base or 'OpenAI'}")
        return str(created.id)

    def _uploaded(self, job: JobFolder, part: str) -> str:
        """The id of an uploaded file: uploaded once an attempt."""
        if known := job.state().remote.get(part):
            return known
        content = (job.path / f"{part}.jsonl").read_bytes()
        sent = self._open().files.create(
            file=(f"{_key(job)}-{part}.jsonl", content), purpose="fine-tune", timeout=10 * self._timeout_s
        )
        job.remember(**{part: str(sent.id)})
        return str(sent.id)

    def _hear(self, job: JobFolder, remote: str) -> None:
        """Copy the events that are new, oldest first. Metrics go first, so that a kill in between loses none."""
        known = {event["id"] for event in job.events() if "id" in event}
        new = []
        for event in self._open().fine_tuning.jobs.list_events(remote, limit=100):
            if event.id in known:
                break
            new.append(event)
        for event in reversed(new):
            data = event.data if isinstance(event.data, dict) else {}
            values = {ours: data[theirs] for theirs, ours in _METRICS.items() if isinstance(data.get(theirs), int | float)}
            if values and isinstance(data.get("step"), int):
                job.measured(data["step"], **values)
            job.event("remote", event.message, id=event.id, remote_at=event.created_at)

    def _keep_checkpoints(self, job: JobFolder, remote: str) -> None:
        """Note the models of earlier steps, which answer, too; a server without them has none."""
        known = {event.get("id") for event in job.events()}
        try:
            with _translated():
                listed = list(self._open().fine_tuning.jobs.checkpoints.list(remote, limit=100))
        except NotFoundError:
            return
        for found in sorted(listed, key=lambda one: one.step_number):
            if found.id not in known:
                job.event("checkpoint", found.fine_tuned_model_checkpoint, id=found.id, step=found.step_number)

    def _report(self, found: Any) -> Report:
        status = _STATUS.get(found.status)
        if status is None:
            raise MalformedError(f"{found.id}: the server says its status is {found.status!r}", provider="openai")
        if status is TrainingStatus.succeeded and not found.fine_tuned_model:
            raise MalformedError(f"{found.id} has succeeded, and the server names no model", provider="openai")
        error = None
        if status is TrainingStatus.failed:
            error = getattr(found.error, "message", None) or "the server gives no reason"
        model = f"openai/{found.fine_tuned_model}" if status is TrainingStatus.succeeded else None
        return Report(status, model=model, error=error)

    def _refused(self, error: LMError) -> str:
        hint = ""
        if self._api_base is None or "api.openai.com" in self._api_base:
            over = datetime.now(UTC).date().isoformat() >= END_OF_NEW_JOBS
            hint = (
                f"; OpenAI takes no new fine-tuning jobs {'since' if over else 'from'} {END_OF_NEW_JOBS}{'' if over else ' on'}"
            )
        elif isinstance(error, NotFoundError):
            hint = "; does this server speak OpenAI's /files and /fine_tuning/jobs?"
        return f"the job was refused: {error.message}{hint}"


def _key(job: JobFolder) -> str:
    """What marks the remote job of this attempt: of characters that a suffix may have."""
    return f"ostinato-{job.spec.job}-{job.state().attempt}"


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """The SDK's errors as ours."""
    try:
        yield
    except (LMError, FinetuneError):
        raise
    except Exception as error:  # boundary: of an SDK that raises what its own dependencies raise, too
        mapped = _mapped(error)
        if mapped is None:
            raise
        raise mapped from error


def _mapped(error: Exception) -> LMError | None:
    import openai

    if isinstance(error, LMError):
        return error
    if isinstance(error, openai.APITimeoutError):
        return LMTimeoutError("no answer in time", provider="openai")
    if isinstance(error, openai.APIConnectionError):
        return TransportError(f"no connection: {error.__cause__ or error}", provider="openai")
    if isinstance(error, openai.APIStatusError):
        after = error.response.headers.get("retry-after")
        return status_error("openai", error.status_code, _message(error), after=after, request_id=error.request_id)
    if isinstance(error, openai.OpenAIError):
        return MalformedError(str(error), provider="openai")
    return None


def _message(error: Any) -> str:
    body = error.body if isinstance(error.body, dict) else {}
    return str(body.get("message") or error.message)
