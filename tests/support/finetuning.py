"""Everything that trains, for tests: servers that speak the APIs of OpenAI and Databricks, and the trainer of `trainer.py`.

A server holds its jobs at ``running`` until it is told how they end, can be told to misbehave at any request, and counts the
jobs that would be paid for.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from runner import LM
from runner.providers.command import CommandProvider
from runner.providers.databricks import DatabricksProvider
from runner.providers.local import LocalProvider
from runner.providers.openai import OpenAIProvider
from tests.support.command import REPOSITORY
from tests.support.loopback import Loopback, Request, Script, response

if TYPE_CHECKING:
    from runner.finetune.jobs.future import TrainingJob

KEY = "sk-pretend-0123456789abcdef"


@dataclass
class Job:
    """A job at a provider."""

    id: str
    asked: dict[str, Any]
    status: str
    looks: int = 0
    error: str | None = None
    events: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Fault:
    """What goes wrong with a request: `status` is answered; it is cut, before or after the work; or nothing comes."""

    kind: str  # status | before | after | hang
    status: int = 500
    message: str = "scripted"


class Hosted(Loopback):
    """A provider of fine-tuning on loopback, as a context manager."""

    def __init__(self) -> None:
        super().__init__()
        self.jobs: list[Job] = []
        self.requests: list[str] = []
        self.outcome: str | None = None
        self.error = "the loss is not a number"
        self.queue = 2  # looks before a job runs
        self._faults: list[tuple[str, Fault]] = []
        self._lock = threading.RLock()

    def misbehave(self, pattern: str, *faults: Fault) -> None:
        """Do so at the next requests whose ``METHOD /path`` matches."""
        with self._lock:
            self._faults += [(pattern, fault) for fault in faults]

    def count(self, pattern: str) -> int:
        return sum(re.search(pattern, request) is not None for request in self.requests)

    def _fault(self, request: str) -> Fault | None:
        with self._lock:
            for entry in self._faults:
                if re.search(entry[0], request):
                    self._faults.remove(entry)
                    return entry[1]
        return None

    def _progress(self, job: Job, words: dict[str, str]) -> None:
        """One look further: queued, running, and then as the outcome says."""
        job.looks += 1
        if job.status in (words["queued"], words["running"]) and job.looks > self.queue:
            job.status = words["running"]
            if self.outcome:
                job.status = words[self.outcome]
                job.error = self.error if self.outcome == "failed" else None

    def answer(self, method: str, path: str, query: dict[str, str], body: bytes) -> tuple[int, Any]:
        raise NotImplementedError

    async def route(self, request: Request) -> Script:
        """Answer as the provider would, but for the faults that are told."""
        parts = urlsplit(request.path)
        told = f" {json.loads(request.body)['query'][:40]}" if parts.path.endswith("graphql") else ""
        name = f"{request.method} {parts.path}{told}"
        with self._lock:
            self.requests.append(name)
        fault = self._fault(name)
        if fault and fault.kind == "before":
            return Script((), "reset")
        if fault and fault.kind == "status":
            headers = {"Retry-After": "0"} if fault.status == 429 else {}
            return _sent(fault.status, {"error": {"message": fault.message, "code": "scripted"}}, **headers)
        if request.headers.get("authorization") != f"Bearer {KEY}":
            return _sent(401, {"error": {"message": "Incorrect API key provided"}})
        with self._lock:
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            status, found = self.answer(request.method, parts.path, query, request.body)
        if fault and fault.kind in ("after", "hang"):
            return Script((), "reset" if fault.kind == "after" else "hang")
        return _sent(status, found)


def _sent(status: int, found: Any, **headers: str) -> Script:
    return Script((response(json.dumps(found).encode() if found is not None else b"", status, **headers),))


class OpenAI(Hosted):
    """Speaks OpenAI's /v1/files and /v1/fine_tuning/jobs, with pages of two."""

    def __init__(self) -> None:
        super().__init__()
        self.files: dict[str, bytes] = {}
        self.plain = False
        """Whether it is a server that knows no metadata."""

    @property
    def url(self) -> str:
        return f"{self.address}/v1"

    def answer(self, method: str, path: str, query: dict[str, str], body: bytes) -> tuple[int, Any]:  # noqa: PLR0911
        if (method, path) == ("POST", "/v1/files"):
            assert b"fine-tune" in body
            name = f"file-{len(self.files) + 1}"
            self.files[name] = body
            facts = {"object": "file", "purpose": "fine-tune", "filename": "x", "created_at": 1, "status": "processed"}
            return 200, {"id": name, "bytes": len(body), **facts}
        if (method, path) == ("POST", "/v1/fine_tuning/jobs"):
            return self._create(json.loads(body))
        if (method, path) == ("GET", "/v1/fine_tuning/jobs"):
            return 200, self._page([self._shown(job) for job in reversed(self.jobs)], query)
        found = re.fullmatch(r"/v1/fine_tuning/jobs/([\w-]+)(?:/(events|cancel|checkpoints))?", path)
        job = next((job for job in self.jobs if found and job.id == found[1]), None)
        if found is None or job is None:
            return 404, {"error": {"message": f"no such path or job: {path}"}}
        if found[2] == "events":
            return 200, self._page(job.events[::-1], query)
        if found[2] == "checkpoints":
            return 200, self._page([self._checkpoint(job, step) for step in (5, 3, 1)], query)
        if found[2] == "cancel":
            if job.status in ("succeeded", "failed", "cancelled"):
                return 400, {"error": {"message": f"Job has already completed: {job.status}"}}
            job.status = "cancelled"
            return 200, self._shown(job)
        before = job.status
        self._progress(job, {name: name for name in ("queued", "running", "succeeded", "failed", "cancelled")})
        if job.status != before and job.status == "running":
            for step in range(1, 6):
                self._event(job, f"Step {step}/5", {"step": step, "train_loss": 2.0 / step, "valid_loss": 3.0 / step})
        if job.status != before:
            self._event(job, f"The job is {job.status}")
        return 200, self._shown(job)

    def _create(self, asked: dict[str, Any]) -> tuple[int, Any]:
        if asked["model"] == "closed":
            return 403, {"error": {"message": "Fine-tuning is no longer available"}}
        if self.plain and "metadata" in asked:
            return 400, {"error": {"message": "Unrecognized request argument supplied: metadata"}}
        if asked["training_file"] not in self.files or len(asked.get("suffix", "")) > 64:
            return 400, {"error": {"message": f"no such file: {asked['training_file']}"}}
        job = Job(f"ftjob-{len(self.jobs) + 1}", asked, "queued")
        self.jobs.append(job)
        self._event(job, "Created")
        return 200, self._shown(job)

    def _event(self, job: Job, message: str, data: dict[str, Any] | None = None) -> None:
        kind = "metrics" if data else "message"
        event = {"id": f"ftevent-{job.id}-{len(job.events)}", "object": "fine_tuning.job.event", "created_at": 1, "level": "info"}
        job.events.append({**event, "message": message, "type": kind, "data": data})

    @staticmethod
    def _checkpoint(job: Job, step: int) -> dict[str, Any]:
        facts = {"object": "fine_tuning.job.checkpoint", "created_at": 1, "fine_tuning_job_id": job.id, "metrics": {"step": step}}
        name = f"ft:{job.asked['model']}:org::x:ckpt-step-{step}"
        return {"id": f"ckpt-{job.id}-{step}", "step_number": step, "fine_tuned_model_checkpoint": name, **facts}

    def _shown(self, job: Job) -> dict[str, Any]:
        tuned = f"ft:{job.asked['model']}:org:{job.asked['suffix']}:x{job.id}" if job.status == "succeeded" else None
        facts = {"id": job.id, "object": "fine_tuning.job", "created_at": 1, "finished_at": None, "hyperparameters": {}}
        facts |= {"organization_id": "org", "result_files": [], "seed": job.asked.get("seed", 0), "trained_tokens": None}
        error = {"code": "x", "message": job.error, "param": None} if job.error else None
        facts |= {"training_file": job.asked["training_file"], "validation_file": None, "metadata": job.asked.get("metadata")}
        return {**facts, "status": job.status, "model": job.asked["model"], "fine_tuned_model": tuned, "error": error}

    @staticmethod
    def _page(items: list[dict[str, Any]], query: dict[str, str]) -> dict[str, Any]:
        ids = [item["id"] for item in items]
        first = ids.index(query["after"]) + 1 if "after" in query else 0
        return {"object": "list", "data": items[first : first + 2], "has_more": first + 2 < len(items)}


class Databricks(Hosted):
    """Speaks what databricks_genai and databricks-sdk ask of a workspace, with pages of two."""

    WORDS = {"queued": "QUEUED", "running": "RUNNING", "succeeded": "COMPLETED", "failed": "FAILED", "cancelled": "STOPPED"}  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()
        self.files: dict[str, bytes] = {}
        self.endpoints: dict[str, int] = {}
        self.deployments = 0

    def answer(self, method: str, path: str, query: dict[str, str], body: bytes) -> tuple[int, Any]:  # noqa: PLR0911
        if path == "/api/2.0/genai-mapi/graphql":
            asked = json.loads(body)
            return 200, self._graphql(asked["query"], asked["variables"])
        if method == "PUT" and path.startswith("/api/2.0/fs/directories/Volumes/"):
            return 204, None
        if method == "PUT" and path.startswith("/api/2.0/fs/files/Volumes/"):
            self.files["dbfs:" + path.removeprefix("/api/2.0/fs/files")] = body
            return 204, None
        if path == "/api/2.0/preview/scim/v2/Me":
            return 200, {"userName": "somebody@example.com"}
        if path == "/api/2.1/unity-catalog/models/main.tuned.tickets/versions":
            return 200, {"model_versions": [{"version": 1}, {"version": 2}]}
        if path == "/api/2.0/serving-endpoints/get-model-optimization-info/main.tuned.tickets/2":
            return 200, {"optimizable": True, "throughput_chunk_size": 980}
        if (method, path) == ("POST", "/api/2.0/serving-endpoints"):
            self.deployments += 1
            self.endpoints[json.loads(body)["name"]] = 0
            return 200, {}
        name = path.removeprefix("/api/2.0/serving-endpoints/").removesuffix("/config")
        if name not in self.endpoints:
            return 404, {"message": f"no such path or endpoint: {path}"}
        if method == "PUT":
            self.deployments += 1
            return 200, {}
        self.endpoints[name] += 1
        ready = self.endpoints[name] > 2
        return 200, {
            "state": {"ready": "READY" if ready else "NOT_READY", "config_update": "NOT_UPDATING" if ready else "IN_PROGRESS"}
        }

    def _graphql(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        if "createFinetune" in query:
            config = variables["createFinetuneData"]["config"]
            if config["model"] == "closed":
                return {"errors": [{"message": "Fine-tuning is no longer available", "extensions": {"code": 403}}]}
            assert config["trainDataPath"] in self.files
            assert config["experimentTracker"]["mlflow"]["modelRegistryPath"] == "main.tuned.tickets"
            job = Job(
                f"run-{len(self.jobs) + 1}",
                config,
                "QUEUED",
                events=[{"eventType": "CREATED", "eventTime": "t", "eventMessage": "made"}],
            )
            self.jobs.append(job)
            return {"data": {"createFinetune": self._shown(job)}}
        if "stopFinetunes" in query:
            stopped = self._named(variables["getFinetunesData"]["filters"])
            for job in stopped:
                if job.status in ("QUEUED", "RUNNING"):
                    job.status = "STOPPED"
            return {"data": {"stopFinetunes": [self._shown(job) for job in stopped]}}
        if "getFinetuneEvents" in query:
            (job,) = [job for job in self.jobs if job.id == variables["getFinetuneEventsData"]["name"]]
            return {"data": {"getFinetuneEvents": job.events}}
        asked = variables["getFinetunesPaginatedData"]
        found = self._named(asked["filters"])
        if asked["filters"]:
            for job in found:
                self._progress(job, self.WORDS)
        first = int(asked.get("cursor", 0))
        page = {
            "cursor": str(first + 2),
            "hasNextPage": first + 2 < len(found),
            "finetunes": [self._shown(job) for job in found[first : first + 2]],
        }
        return {"data": {"getFinetunesPaginated": page}}

    def _named(self, filters: dict[str, Any]) -> list[Job]:
        names = filters.get("name", {}).get("in")
        return [job for job in self.jobs if names is None or job.id in names]

    @staticmethod
    def _shown(job: Job) -> dict[str, Any]:
        return {
            "id": job.id,
            "name": job.id,
            "status": job.status,
            "reason": job.error,
            "details": {"trainDataPath": job.asked["trainDataPath"]},
        }


ROWS = [
    {"messages": [{"role": "user", "content": f"where does ticket {n} go?"}, {"role": "assistant", "content": f"queue {n % 3}"}]}
    for n in range(6)
]


class Rig:
    """One way to train, ready for a test: how an LM is made that trains so, and how its training is steered.

    Args:
        kind: ``local``, ``command``, ``openai`` or ``databricks``.
        folder: a folder of the test's own.
        server: the provider's server, of the hosted kinds.
    """

    def __init__(self, kind: str, folder: Path, server: Hosted | None = None) -> None:
        self.kind = kind
        self.folder = folder
        self.server = server
        self.hosted = server is not None
        self._weights = folder / "base.gguf"
        self._weights.write_bytes(b"GGUF not really")
        self.environment = {
            "PYTHONPATH": str(REPOSITORY),
            "TRAINER_STARTS": str(folder / "starts"),
            "TRAINER_GO": str(folder / "go"),
        }
        self.environment |= {"TRAINER_HOLD_AT": "3", "OPENAI_API_KEY": KEY, "DATABRICKS_TOKEN": KEY}

    @property
    def settings(self) -> dict[str, Any]:
        """The train_kwargs."""
        match self.kind:
            case "local":
                return {"max_steps": 5}
            case "command":
                return {"command": [sys.executable, "-m", "tests.support.trainer", "{folder}"]}
            case "openai":
                return {"n_epochs": 2, "poll_s": 0.01}
        place = {"train_data_path": "/Volumes/main/data/rows/tickets", "register_to": "main.tuned.tickets"}
        return {**place, "databricks_host": self.server.address, "poll_s": 0.01}

    def lm(self, model: str | None = None) -> LM:
        match self.kind:
            case "local":
                return LM(f"local/{self._weights}", provider=StubProvider())
            case "command":
                return LM(f"local/{self._weights}", provider=CommandProvider())
            case "openai":
                return LM(f"openai/{model or 'base'}", provider=OpenAIProvider(), api_base=self.server.url, api_key=KEY)
        return LM(f"databricks/{model or 'base'}", provider=DatabricksProvider())

    def finetune(self, rows: list[dict[str, Any]] = ROWS, **settings: Any) -> TrainingJob:
        return self.lm().finetune(rows, "chat", {**self.settings, **settings})

    def begun(self) -> int:
        """How many trainings were begun, and, of the hosted kinds, would be paid for."""
        if self.server is not None:
            return len(self.server.jobs)
        starts = self.folder / "starts"
        return len(starts.read_text().splitlines()) if starts.exists() else 0

    def finish(self) -> None:
        """Let it succeed."""
        if self.server is not None:
            self.server.outcome = "succeeded"
        (self.folder / "go").touch()

    def process(self, **environment: str) -> subprocess.Popen[bytes]:
        """A process that fine-tunes so and waits for the end; it may be killed."""
        url = self.server.address if self.server else ""
        words = [sys.executable, "-m", "tests.support.finetuning", self.kind, str(self.folder), url]
        return subprocess.Popen(words, env={**os.environ, **environment}, stdout=subprocess.PIPE, start_new_session=True)


class StubProvider(LocalProvider):
    """The local provider, with the trainer of tests/support/trainer.py."""

    trainer = "tests.support.trainer"


class _There:
    """A server of another process."""

    def __init__(self, address: str) -> None:
        self.address, self.url = address, f"{address}/v1"


if __name__ == "__main__":
    rig = Rig(sys.argv[1], Path(sys.argv[2]), _There(sys.argv[3]) if sys.argv[3] else None)
    sys.stdout.write(rig.finetune().result().model)
