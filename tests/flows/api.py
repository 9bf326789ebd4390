"""Prefect's REST API, as tests ask it."""

import json
import urllib.error
import urllib.request
from dataclasses import dataclass

from tests.support.clock import wait_until

ENDED = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


@dataclass
class Api:
    """Prefect's REST API."""

    url: str

    def post(self, path, body=None):
        return self.call("POST", path, body)

    def call(self, method, path, body=None):
        """Ask once more as long as the server says that SQLite is busy."""
        content, kind = (None if body is None else json.dumps(body).encode()), {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.url}/{path}", content, kind, method=method)

        def answer():
            try:
                with urllib.request.urlopen(request) as reply:
                    return reply.read() or b"null"
            except urllib.error.HTTPError as error:
                with error:
                    if error.code != 503:
                        raise
                    return None

        return json.loads(wait_until(answer, f"{method} {path}"))

    def flow_run(self, name):
        (run,) = self.post("flow_runs/filter", {"flow_runs": {"name": {"any_": [name]}}})
        return run

    def task_states(self, name):
        tasks = self.post("task_runs/filter", {"flow_runs": {"name": {"any_": [name]}}})
        return {task["name"]: task["state_type"] for task in tasks}

    def settled(self, name, count):
        """The states of a flow run's tasks, when all `count` of them have ended (a server that stays records a little later)."""

        def ended():
            states = self.task_states(name)
            return states if len(states) == count and ENDED.issuperset(states.values()) else None

        return wait_until(ended, f"{count} ended tasks of {name}")
