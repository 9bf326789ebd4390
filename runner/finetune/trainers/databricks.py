"""Fine-tune by Databricks' foundation-model training, over plain HTTP: upload to a volume, train, register, serve.

The calls are those that dspy's provider makes through ``databricks_genai`` 1.1.8 and ``databricks-sdk``, which bring MLflow,
datasets and IPython along: ``/api/2.0/fs/files`` for the rows, GraphQL at ``/api/2.0/genai-mapi/graphql`` for the run,
``/api/2.0/serving-endpoints`` for the endpoint. Tested against a server that answers as those libraries expect, never against a
real workspace.

No run is paid for twice: the uploaded file is named after the attempt. Before a run is created, the existing runs are listed, and
one that trains on that file is adopted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from runner.errors import BadRequestError, LMError, MalformedError, NotFoundError, PermissionDeniedError, QuotaError
from runner.finetune.jobs.backend import Report
from runner.finetune.jobs.status import TrainingStatus
from runner.network.client import send, status_error

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runner.finetune.jobs.ledger import JobFolder

_STATUS = {
    "PENDING": TrainingStatus.pending,
    "QUEUED": TrainingStatus.pending,
    "STARTING": TrainingStatus.running,
    "RUNNING": TrainingStatus.running,
    "TERMINATING": TrainingStatus.running,
    "UNKNOWN": TrainingStatus.running,
    "COMPLETED": TrainingStatus.succeeded,
    "STOPPED": TrainingStatus.cancelled,
    "CANCELED": TrainingStatus.cancelled,
    "FAILED": TrainingStatus.failed,
}
_TASK = {"chat": "CHAT_COMPLETION", "completion": "INSTRUCTION_FINETUNE"}
_SAVE_FOLDER = "dbfs:/databricks/mlflow-tracking/{mlflow_experiment_id}/{mlflow_run_id}/artifacts"

_RUN = "id name status createdAt startedAt completedAt reason details { model trainDataPath }"
_CREATE = (
    "mutation CreateFinetune($createFinetuneData: CreateFinetuneInput!) "
    f"{{ createFinetune(createFinetuneData: $createFinetuneData) {{ {_RUN} }} }}"
)
_LIST = (
    "query GetFinetunesPaginated($getFinetunesPaginatedData: GetFinetunesPaginatedInput!) "
    "{ getFinetunesPaginated(getFinetunesPaginatedData: $getFinetunesPaginatedData) "
    f"{{ cursor hasNextPage finetunes {{ {_RUN} }} }} }}"
)
_STOP = (
    "mutation StopFinetunes($getFinetunesData: GetFinetunesInput!, $stopFinetunesData: StopFinetunesInput) "
    "{ stopFinetunes(getFinetunesData: $getFinetunesData, stopFinetunesData: $stopFinetunesData) { id name status } }"
)
_EVENTS = (
    "query GetFinetuneEvents($getFinetuneEventsData: GetFinetuneEventsInput!) "
    "{ getFinetuneEvents(getFinetuneEventsData: $getFinetuneEventsData) { eventType eventTime eventMessage } }"
)
_PAGES = 20
"""Pages, of a hundred runs each, that are searched for the attempt's run."""


class DatabricksTrainer:
    """Train in a Databricks workspace.

    Args:
        host: its address.
        token: an access token; never written.
        poll_s: seconds between two polls.
        timeout_s: seconds for one request; ten times as many for uploads.
    """

    paid: ClassVar[bool] = True

    def __init__(self, *, host: str, token: str, poll_s: float = 30.0, timeout_s: float = 60.0) -> None:
        self.poll_s = poll_s
        self._host = host.rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}"}
        self._timeout_s = timeout_s

    def advance(self, job: JobFolder) -> Report:
        """Do the next step that is not done: upload, create, poll or serve."""
        remote = job.state().remote.get("job")
        if remote is None:
            remote = self._adopted(job)
            if remote is None and job.cancel_asked():
                return Report(TrainingStatus.cancelled)
            try:
                remote = remote or self._create(job)
            except (BadRequestError, PermissionDeniedError, NotFoundError, QuotaError) as error:
                return Report(TrainingStatus.failed, error=f"the run was refused: {error.message}")
            job.remember(job=remote)
        found = next(self._runs({"name": {"in": [remote]}}), None)
        if found is None:
            raise NotFoundError(f"the run {remote} no longer exists", provider="databricks")
        self._hear(job, remote)  # after the poll, so that no event of a finished run is missed
        status = _STATUS.get(found["status"], TrainingStatus.running)
        if status is TrainingStatus.failed:
            return Report(status, error=found.get("reason") or "the service gives no reason")
        if status is not TrainingStatus.succeeded:
            return Report(status)
        return self._serve(job)

    def cancel(self, job: JobFolder) -> None:
        """Stop the run. Does nothing if it has ended."""
        if remote := job.state().remote.get("job"):
            chosen = {"filters": {"name": {"in": [remote]}}}
            self._graphql(_STOP, {"getFinetunesData": chosen, "stopFinetunesData": {"reason": "cancelled by ostinato"}})

    # --- the run

    def _adopted(self, job: JobFolder) -> str | None:
        """Find the run of this attempt, if it was created: the one that trains on its file."""
        file = f"dbfs:{_file(job, 'train')}"
        for run in self._runs({}):
            if (run.get("details") or {}).get("trainDataPath") == file:
                job.event("adopted", f"{run['name']} was created before; it is followed")
                return str(run["name"])
        return None

    def _create(self, job: JobFolder) -> str:
        hyper = job.spec.hyper
        self._upload(job, "train")
        config = {
            "model": job.spec.base.name,
            "taskType": _TASK[job.spec.train_data_format],
            "trainDataPath": f"dbfs:{_file(job, 'train')}",
            "saveFolder": _SAVE_FOLDER,
            "trainingDuration": hyper["training_duration"],
            "learningRate": hyper["learning_rate"],
            "contextLength": hyper["context_length"],
            "experimentTracker": {
                "mlflow": {
                    "experimentPath": hyper["experiment_path"] or f"/Users/{self._me()}/{{}}",
                    "modelRegistryPath": hyper["register_to"],
                    "createExperimentAndRun": True,
                }
            },
            "disableCredentialsCheck": False,
        }
        if job.spec.data.valid_rows:
            self._upload(job, "valid")
            config["evalDataPath"] = f"dbfs:{_file(job, 'valid')}"
        given = {name: value for name, value in config.items() if value is not None}
        made = self._graphql(_CREATE, {"createFinetuneData": {"config": given}})["createFinetune"]
        job.event("created", f"{made['name']} at {self._host}")
        return str(made["name"])

    def _upload(self, job: JobFolder, part: str) -> None:
        """Upload the rows to the volume. Repeating it is harmless: it is the same file in the same place."""
        path = _file(job, part)
        self._rest("PUT", f"/api/2.0/fs/directories{path.rpartition('/')[0]}")
        content = (job.path / f"{part}.jsonl").read_bytes()
        self._rest("PUT", f"/api/2.0/fs/files{path}?overwrite=true", content)

    def _me(self) -> str:
        return str(self._rest("GET", "/api/2.0/preview/scim/v2/Me").get("userName", ""))

    def _runs(self, filters: dict[str, Any]) -> Iterator[dict[str, Any]]:
        cursor: str | None = None
        for _ in range(_PAGES):
            asked = {"filters": filters, "includeDeleted": False, "limit": 100, **({"cursor": cursor} if cursor else {})}
            page = self._graphql(_LIST, {"getFinetunesPaginatedData": asked})["getFinetunesPaginated"]
            yield from page["finetunes"]
            cursor = page.get("cursor")
            if not page.get("hasNextPage") or not cursor:
                return

    def _hear(self, job: JobFolder, remote: str) -> None:
        """Copy new events."""
        known = sum(1 for event in job.events() if event.get("kind") == "remote")
        events = self._graphql(_EVENTS, {"getFinetuneEventsData": {"name": remote}})["getFinetuneEvents"]
        for event in events[known:]:
            job.event("remote", f"{event.get('eventType')}: {event.get('eventMessage')}", remote_at=event.get("eventTime"))

    # --- the endpoint

    def _serve(self, job: JobFolder) -> Report:
        """Deploy the registered model, once, and report whether it is ready."""
        registered = job.spec.hyper["register_to"]
        endpoint = registered.replace(".", "_")  # a name must not contain dots
        done = Report(TrainingStatus.succeeded, model=f"databricks/{endpoint}")
        if job.spec.hyper["skip_deploy"]:
            return done
        if "endpoint" not in job.state().remote:
            try:
                self._deploy(registered, endpoint)
            except (BadRequestError, PermissionDeniedError) as error:
                return Report(TrainingStatus.failed, error=f"{registered} is trained, but cannot be served: {error.message}")
            job.remember(endpoint=endpoint)
            job.event("endpoint", f"{endpoint} is being deployed")
        state = self._rest("GET", f"/api/2.0/serving-endpoints/{endpoint}").get("state", {})
        if state.get("config_update") == "UPDATE_FAILED":
            return Report(TrainingStatus.failed, error=f"{registered} is trained, but its endpoint {endpoint} has failed")
        ready = state.get("ready") == "READY" and state.get("config_update") in (None, "NOT_UPDATING")
        return done if ready else Report(TrainingStatus.running)

    def _deploy(self, registered: str, endpoint: str) -> None:
        """Create the endpoint, or give the existing one the new version. Repeating it is harmless."""
        versions = self._rest("GET", f"/api/2.1/unity-catalog/models/{registered}/versions").get("model_versions", [])
        if not versions:
            raise BadRequestError("it has no version in Unity Catalog", provider="databricks")
        version = str(max(int(found["version"]) for found in versions))
        info = self._rest("GET", f"/api/2.0/serving-endpoints/get-model-optimization-info/{registered}/{version}")
        if not info.get("optimizable"):
            raise BadRequestError("it is not eligible for provisioned throughput", provider="databricks")
        entity = {
            "name": endpoint,
            "entity_name": registered,
            "entity_version": version,
            "min_provisioned_throughput": 0,
            "max_provisioned_throughput": info["throughput_chunk_size"],
        }
        try:
            self._rest("GET", f"/api/2.0/serving-endpoints/{endpoint}")
        except NotFoundError:
            self._rest("POST", "/api/2.0/serving-endpoints", {"name": endpoint, "config": {"served_entities": [entity]}})
        else:
            self._rest("PUT", f"/api/2.0/serving-endpoints/{endpoint}/config", {"served_entities": [entity]})

    # --- HTTP

    def _rest(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        timeout_s = self._timeout_s * (10 if isinstance(body, bytes) else 1)
        return send("databricks", method, f"{self._host}{path}", headers=self._headers, body=body, timeout_s=timeout_s)

    def _graphql(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        answer = self._rest("POST", "/api/2.0/genai-mapi/graphql", {"query": query, "variables": variables})
        if errors := answer.get("errors"):
            raise _error(errors[0])
        data = answer.get("data")
        if not isinstance(data, dict):
            raise MalformedError("the GraphQL answer has no data", provider="databricks")
        return data


def _error(error: dict[str, Any]) -> LMError:
    code = (error.get("extensions") or {}).get("code")
    return status_error("databricks", code if isinstance(code, int) else 400, str(error.get("message")))


def _file(job: JobFolder, part: str) -> str:
    """Return the path of this attempt's rows in the volume."""
    folder = str(job.spec.hyper["train_data_path"]).rstrip("/")
    return f"{folder}/ostinato-{job.spec.job}-{job.state().attempt}-{part}.jsonl"
