"""Models served on this machine: ``local/NAME``. Servers are started, shared among the LMs of this process, and ended here.

A server belongs to the LMs that launched it, and ends with the last `kill` or with this process. A kept server (``ostinato
launch``) that fits is used instead of a new one, and is never ended here.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
import weakref
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from runner.errors import ConfigError
from runner.finetune.jobs.hyper import Hyper, LocalHyper, whole
from runner.finetune.jobs.spec import Recipe
from runner.finetune.trainers.child import ChildTrainer
from runner.models import served
from runner.models.bases import base_of
from runner.providers.names import LOCAL, is_local
from runner.providers.trainable import TrainableProvider
from runner.servers import kept, prefixes, server

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runner.finetune.jobs.backend import Backend
    from runner.finetune.jobs.future import TrainingJob
    from runner.finetune.jobs.spec import ProviderName
    from runner.providers.base import Launchable
    from runner.types import Request

WITH_ADAPTER = {"lora": [{"id": 0, "scale": 1.0}]}
"""Fields of each request to llama.cpp where an adapter is loaded.

Without it, a request after one that switched the adapter off can be answered over the base's prompt cache (xllamacpp 2026.10).
"""

_Key = tuple[str, server.Settings]


@dataclass
class _Shared:
    """A server of this process and the LMs that use it (by id: an LM that is dropped without `kill` keeps its server up)."""

    users: set[int] = field(default_factory=set)
    starting: threading.Lock = field(default_factory=threading.Lock)
    server: server.Server | None = None
    clear: weakref.finalize[..., Any] | None = None
    """Removes the folder with the log, at the latest when Python exits. None: the server is kept, so it is not ended here."""

    def stop(self) -> None:
        with self.starting:
            if self.clear is not None:
                if self.server is not None:
                    self.server.process.stop()
                self.clear()
            self.server = self.clear = None


_lock = threading.Lock()
_shared: dict[_Key, _Shared] = {}


class LocalProvider(TrainableProvider):
    """Serve models on this machine with llama.cpp, vLLM or SGLang.

    ``local/NAME``: NAME is one of the weights that `runner.models.weights` knows (``smollm2``, ``hf:...``, the path of a
    ``.gguf`` file or of a model's folder) or, for vLLM and SGLang, a Hugging Face repository. Launch settings are those of
    `runner.servers.server.Settings`. Safe to use from many threads.

    Attributes:
        trains_as: this provider's name in the ledger.
        trainer: the program that trains (see `runner.finetune.trainers.child.ChildTrainer`).
        hyper: the settings of that program.
    """

    trains_as: ClassVar[ProviderName] = "local"
    trainer: ClassVar[str] = "runner.finetune.trainers.local"
    hyper: ClassVar[type[Hyper]] = LocalHyper

    @staticmethod
    def is_provider_model(model: str) -> bool:
        """Return whether the model is named ``local/...``."""
        return is_local(model)

    def endpoint(self, lm: Launchable) -> str:
        """Return the identity of the weights: ``sha256:...`` of the GGUF, or ``vllm:NAME``. Needs no launch.

        Raises:
            ConfigError: no such weights, or a wrong launch setting.
            LaunchError: the weights are not pinned, so they must be read, and cannot be fetched.
        """
        settings = server.Settings.of(lm.launch_kwargs)
        return server.identity(_name(lm), settings.backend, settings.args)

    def launch(self, lm: Launchable, launch_kwargs: dict[str, Any] | None = None) -> None:
        """Start the model's server, or share a running one, and point the LM to it.

        Blocks until the server answers. Launching again does nothing unless the server has died or the settings have changed.

        Args:
            lm: its ``kwargs`` get ``api_base`` and ``api_key``.
            launch_kwargs: settings that override ``lm.launch_kwargs``.

        Raises:
            ConfigError: no such weights, or a wrong setting.
            LaunchError: the server cannot be started (see `server.start`).
        """
        settings = server.Settings.of({**lm.launch_kwargs, **(launch_kwargs or {})})
        name = _name(lm)
        key = (server.identity(name, settings.backend), msgspec.structs.replace(settings, timeout_s=1.0))
        with _lock:
            shared = _shared.setdefault(key, _Shared())
            shared.users.add(id(lm))  # before it starts, so that no other kill ends it in between
        try:
            with shared.starting:
                if shared.server is None or not shared.server.process.alive():
                    _start(shared, key[0], name, settings)
                running = shared.server
        except BaseException:
            self._release(lm, key)
            raise
        self._release(lm, *(other for other in list(_shared) if other != key))
        assert running is not None
        lm.kwargs.update(api_base=running.api_base, api_key=running.api_key)
        if settings.backend == "llamacpp" and served.has_adapter(name):
            lm.kwargs["api_body"] = WITH_ADAPTER

    def share(self, lm: Launchable, requests: Sequence[Request]) -> None:
        """Have llama.cpp evaluate once what these requests' prompts have in common (see `runner.servers.prefixes`)."""
        api_base, api_key = lm.kwargs.get("api_base"), lm.kwargs.get("api_key")
        if len(requests) < 2 or not api_base or not api_key or server.Settings.of(lm.launch_kwargs).backend != "llamacpp":  # noqa: PLR2004
            return
        body = lm.kwargs.get("api_body", {})
        if name := server.share(api_base, api_key, [{**_prompt(one), **body} for one in requests]):
            lm.kwargs["api_body"] = {**body, prefixes.FIELD: name}

    def kill(self, lm: Launchable, launch_kwargs: dict[str, Any] | None = None) -> None:  # noqa: ARG002 - the base's signature
        """Release the LM's server. It ends if no other LM of this process uses it; a kept one keeps running. Idempotent.

        A server that is still starting in another thread ends as well, and the `launch` there raises LaunchError.

        Args:
            lm: its ``kwargs`` lose the ``api_base`` and ``api_key`` that `launch` set.
            launch_kwargs: ignored.
        """
        for released in self._release(lm, *list(_shared)):
            if lm.kwargs.get("api_base") == released.api_base:
                for name in ("api_base", "api_key", "api_body"):
                    lm.kwargs.pop(name, None)

    def training(self, job: TrainingJob, model: str, settings: dict[str, Any]) -> tuple[Recipe, Backend]:  # noqa: ARG002
        """Train on this machine, in a process that outlives this one."""
        hyper = whole(self.hyper, settings)
        recipe = Recipe(self.trains_as, base_of(model.removeprefix(LOCAL)), hyper, window=hyper.get("max_length"))
        return recipe, ChildTrainer(self.trainer)

    @staticmethod
    def _release(lm: Launchable, *keys: _Key) -> list[server.Server]:
        """Take the LM off these servers, and end those without users. Return the servers it used."""
        released, unused = [], []
        with _lock:
            for key in keys:
                shared = _shared.get(key)
                if shared is None or id(lm) not in shared.users:
                    continue
                shared.users.discard(id(lm))
                if shared.server is not None:
                    released.append(shared.server)
                if not shared.users:
                    unused.append(_shared.pop(key))
        for shared in unused:
            shared.stop()
        return released


def _prompt(request: Request) -> dict[str, Any]:
    """Return the part of a request's body that its prompt is made of."""
    if request.model_type == "text":
        return {"prompt": request.prompt}
    params = {**request.params, **request.params.get("extra_body", {})}
    return {"messages": request.messages, **{name: params[name] for name in prefixes.FORM if name in params}}


def _start(shared: _Shared, identity: str, name: str, settings: server.Settings) -> None:
    if shared.clear is not None:  # the server has died
        shared.clear()
    shared.server = shared.clear = None
    if known := kept.matching(identity, settings):
        shared.server = known.server()
        return
    folder = Path(tempfile.mkdtemp(prefix="ostinato-"))
    shared.clear = weakref.finalize(shared, shutil.rmtree, folder, ignore_errors=True)
    shared.server = server.start(name, settings, folder=folder, wanted=lambda: bool(shared.users))


def _name(lm: Launchable) -> str:
    name = lm.model.removeprefix(LOCAL)
    if not name or name == lm.model:
        raise ConfigError(f"LocalProvider serves models named local/NAME, not {lm.model!r}")
    return name
