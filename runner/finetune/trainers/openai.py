"""Fine-tune over OpenAI's API: files, jobs, events, cancel. The only module that imports the OpenAI SDK.

Works with every server that speaks ``/files`` and ``/fine_tuning/jobs``: OpenAI, Azure by its v1 address
(``https://NAME.openai.azure.com/openai/v1/``; a model must be deployed there before it answers), gateways. Together and Fireworks
train under their own paths (``/fine-tunes``, ``/supervisedFineTuningJobs``) and take files in their own ways, which this module
does not support. Tested against a server that answers as the SDK expects, never against a paid account.

No job is paid for twice: each attempt has its own file, whose id is in the ledger before a job is created from it, and a key,
which goes into the job's suffix and metadata. Before a job is created, the existing jobs are listed, and one with our file or key
is adopted. So nothing is lost if the process is killed, or the connection cut, between the creation of a job and the answer.
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
"""The day from which OpenAI itself accepts no new fine-tuning jobs."""

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
"""How many of the account's latest jobs are searched for the attempt's job."""

_METRICS = {
    "train_loss": "loss",
    "valid_loss": "valid_loss",
    "full_valid_loss": "valid_loss",
    "train_mean_token_accuracy": "accuracy",
}


class OpenAITrainer:
    """Train at OpenAI, or at a server that speaks its API.

    Args:
        api_key: the key; it is never written.
        api_base: the server's address; None: OpenAI.
        poll_s: seconds between two polls.
        timeout_s: seconds for one request; ten times as many for uploads.
    """

    paid: ClassVar[bool] = True

    def __init__(self, *, api_key: str, api_base: str | None = None, poll_s: float = 10.0, timeout_s: float = 60.0) -> None:
        self.poll_s = poll_s
        self._api_key = api_key
        self._api_base = api_base
        self._timeout_s = timeout_s
        self._client: Any = None

    def advance(self, job: JobFolder) -> Report:
        """Do the next step that is not done: upload, create or poll."""
        with _translated(), self._connected():
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
            found = self._client.fine_tuning.jobs.retrieve(remote)
            self._hear(job, remote)  # after the poll, so that no event of a finished job is missed
            report = self._report(found)
            if report.status is TrainingStatus.succeeded:
                self._keep_checkpoints(job, remote)
            return report

    def cancel(self, job: JobFolder) -> None:
        """Cancel the remote job. Does nothing if it has ended."""
        remote = job.state().remote.get("job")
        if remote is None:
            return
        with _translated(), self._connected():
            try:
                self._client.fine_tuning.jobs.cancel(remote)
            except Exception as error:
                if not isinstance(_mapped(error), BadRequestError):  # a job that is over cannot be cancelled
                    raise

    @contextlib.contextmanager
    def _connected(self) -> Iterator[None]:
        """Have a client during the block. Its connections are closed afterwards: polls are seconds apart."""
        import openai

        with openai.OpenAI(
            api_key=self._api_key, base_url=self._api_base, timeout=self._timeout_s, max_retries=0
        ) as self._client:
            yield

    def _adopted(self, job: JobFolder) -> str | None:
        """Find the remote job of this attempt, if it was created: by its file, which has no other use, or by our key."""
        key, file = _key(job), job.state().remote.get("train")
        jobs = self._client.fine_tuning.jobs.list(limit=100)  # newest first; the SDK fetches the pages
        for listed in islice(jobs, _MOST_LISTED):
            ours = (listed.metadata or {}).get("ostinato") == key or f":{key}:" in (listed.fine_tuned_model or "")
            if ours or (file is not None and listed.training_file == file):
                job.event("adopted", f"{listed.id} was created before; it is followed")
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
        create = self._client.fine_tuning.jobs.create
        try:
            with _translated():
                created = create(**asked, metadata={"ostinato": key})
        except BadRequestError as error:
            if "metadata" not in error.message:
                raise
            created = create(**asked)  # the server does not support it; the file identifies the job as well
        if not getattr(created, "id", None):
            raise MalformedError("the server's answer to the creation of a job has no job id", provider="openai")
        job.event("created", f"{created.id} at {self._api_base or 'OpenAI'}")
        return str(created.id)

    def _uploaded(self, job: JobFolder, part: str) -> str:
        """Return the id of an uploaded file. It is uploaded once per attempt."""
        if known := job.state().remote.get(part):
            return known
        content = (job.path / f"{part}.jsonl").read_bytes()
        sent = self._client.files.create(
            file=(f"{_key(job)}-{part}.jsonl", content), purpose="fine-tune", timeout=10 * self._timeout_s
        )
        job.remember(**{part: str(sent.id)})
        return str(sent.id)

    def _hear(self, job: JobFolder, remote: str) -> None:
        """Copy new events, oldest first. An event's metrics are written before it, so that a kill in between loses none."""
        known = {event["id"] for event in job.events() if "id" in event}
        new = []
        for event in self._client.fine_tuning.jobs.list_events(remote, limit=100):
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
        """Record the models of earlier steps, which can be used too. Some servers have none."""
        known = {event.get("id") for event in job.events()}
        try:
            with _translated():
                listed = list(self._client.fine_tuning.jobs.checkpoints.list(remote, limit=100))
        except NotFoundError:
            return
        for found in sorted(listed, key=lambda one: one.step_number):
            if found.id not in known:
                job.event("checkpoint", found.fine_tuned_model_checkpoint, id=found.id, step=found.step_number)

    def _report(self, found: Any) -> Report:
        status = _STATUS.get(found.status)
        if status is None:
            raise MalformedError(f"{found.id}: unknown status {found.status!r}", provider="openai")
        if status is TrainingStatus.succeeded and not found.fine_tuned_model:
            raise MalformedError(f"{found.id} has succeeded, but the server names no model", provider="openai")
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
                f"; OpenAI accepts no new fine-tuning jobs {'since' if over else 'from'} {END_OF_NEW_JOBS}{'' if over else ' on'}"
            )
        elif isinstance(error, NotFoundError):
            hint = "; does this server speak OpenAI's /files and /fine_tuning/jobs?"
        return f"the job was refused: {error.message}{hint}"


def _key(job: JobFolder) -> str:
    """Return the key of this attempt's remote job, in characters that a suffix allows."""
    return f"ostinato-{job.spec.job}-{job.state().attempt}"


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Turn the SDK's errors into ours."""
    try:
        yield
    except (LMError, FinetuneError):
        raise
    except Exception as error:  # boundary: the SDK also raises the errors of its dependencies
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
