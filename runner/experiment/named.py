"""The named models of a run: those that its scorers and solvers ask beside the main one. Made, launched and ended here."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from runner import build
from runner.config.schema.model import LocalModel
from runner.experiment.served import pin, pin_recorded

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator, Mapping

    from runner.config.schema import RunConfig
    from runner.cost.budget import Budget
    from runner.limits import Limiter
    from runner.lm.lm import LM


class NamedModels:
    """The LMs of a run by name, each with its own key, limiter and transport, and with the run's cache, limits and budget.

    Args:
        config: the run's config.

    Attributes:
        lms: the LMs.

    Raises:
        ConfigError: a model cannot be built.
    """

    def __init__(self, config: RunConfig) -> None:
        self._configs = build.named(config)
        self._part = build.scoring_budget(config) if self._configs else None
        self._of_scoring = {name for name, _, _ in build.scoring_models(config)}
        self.lms = {name: build.lm(own) for name, own in self._configs.items()}
        self._launched: list[LM] = []

    def __bool__(self) -> bool:
        return bool(self.lms)

    @property
    def needs_launch(self) -> bool:
        """Return whether one of them is served on this machine."""
        return any(isinstance(config.model, LocalModel) for config in self._configs.values())

    @property
    def configs(self) -> Mapping[str, RunConfig]:
        """The config that each is built from."""
        return self._configs

    def of_scoring(self, counted: Mapping[str, dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Yield those amounts, given by name, that are of scorers."""
        return (amounts for name, amounts in counted.items() if name in self._of_scoring)

    def check(self) -> None:
        """Raise ConfigError for parameters that a model does not take."""
        for lm in self.lms.values():
            lm.parameters()

    def facts(self) -> dict[str, dict[str, Any]]:
        """Return what a manifest says of each."""
        return {
            name: {
                "requested": lm.model,
                "endpoint": lm.request(prompt="").endpoint,
                "parameters": lm.parameters(),
                **lm.recorded_form,
            }
            for name, lm in self.lms.items()
        }

    def pin(self, recorded: Mapping[str, Any] | None, nameless: set[tuple[str, str]] | None = None) -> bool:
        """Have their endpoints name the weights that servers serve.

        Args:
            recorded: those of a run that has begun; None: the servers are asked.
            nameless: as in `runner.experiment.served.pin`.

        Returns:
            Whether one of them names weights now that were not recorded.
        """
        for name, lm in self.lms.items():
            if recorded is not None:
                pin_recorded(lm, recorded.get(name, {}).get("endpoint"))
            else:
                pin(self._configs[name], lm, nameless=nameless)
        return recorded is None and any(lm.pinned is not None for lm in self.lms.values())

    def as_recorded(self, recorded: Mapping[str, Any]) -> None:
        """Send requests in the form that a record has."""
        for name, lm in self.lms.items():
            if name in recorded:
                lm.as_recorded(recorded[name])

    def refresh(self) -> None:
        """Ask again what the cache has answers to, and replace these."""
        for lm in self.lms.values():
            if lm.store is not None and lm.store.writes:
                lm.store.mode = "refresh"

    def charge(self, counted: Mapping[str, dict[str, Any]]) -> None:
        """Charge what earlier sittings have used to the scorers' part of the budget."""
        for amounts in self.of_scoring(counted) if self._part else ():
            self._part.charge(**amounts)  # type: ignore[union-attr]

    def lend(self, budget: Budget | None, limiter: Callable[[RunConfig, LM], Limiter]) -> None:
        """Give each its key, its limiter, and the run's budget. Raises ConfigError if a key is not set."""
        if self._part is not None:
            self._part.within = budget
        for name, lm in self.lms.items():
            config = self._configs[name]
            lm.kwargs.update(build.access(config))
            lm.budget = self._part if self._part is not None and name in self._of_scoring else budget
            lm.limiter = limiter(config, lm)

    @contextlib.contextmanager
    def using(self) -> Iterator[None]:
        """Use their limiters within the block."""
        with contextlib.ExitStack() as stack:
            for lm in self.lms.values():
                if lm.limiter is not None:
                    stack.enter_context(lm.limiter.using())
            yield

    async def launch(self, progress: Callable[[int, int | None], None]) -> None:
        """Start the servers of local ones. Those with the same weights share one, with the main model too. Raises LaunchError."""
        for name, lm in self.lms.items():
            model = self._configs[name].model
            if not isinstance(model, LocalModel):
                continue
            if model.backend == "llamacpp":
                from runner.models import served

                await asyncio.to_thread(served.pull, model.name, progress=progress)
            self._launched.append(lm)  # before the launch: `kill` then ends a server that is still starting
            await asyncio.to_thread(lm.launch)

    async def kill(self, kept: Container[LM] = ()) -> None:
        """Stop the servers that `launch` started, but those of LMs in `kept`. A second call does nothing."""
        launched, self._launched = self._launched, []
        for lm in launched:
            if lm not in kept:
                await asyncio.to_thread(lm.kill)

    async def aclose(self) -> None:
        """Close their connections."""
        for lm in self.lms.values():
            await lm.aclose()

    def close(self) -> None:
        """Close their caches."""
        for lm in self.lms.values():
            if lm.store:
                lm.store.close()
