"""The interface of providers, which launch, kill and fine-tune models. Transports send the requests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from runner.errors import FinetuneError
from runner.finetune.jobs import future

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runner.finetune.data.formats import TrainDataFormat
    from runner.types import Request


class Launchable(Protocol):
    """The part of an LM that providers use.

    Attributes:
        model: ``provider/name``.
        kwargs: the arguments of each request; `launch` adds ``api_base`` and ``api_key``, `kill` removes them.
        launch_kwargs: the LM's own launch settings.
    """

    model: str
    kwargs: dict[str, Any]
    launch_kwargs: dict[str, Any]


class Provider:
    """Base class of all providers. On its own, it stands for models that are always up and cannot be trained.

    Follows the contract of dspy 2.6's ``Provider``: a subclass overrides what it can do. Methods are called on an instance and
    may be static in a subclass.

    Attributes:
        finetunable: whether `finetune` is supported.
        reinforceable: whether the provider supports reinforcement learning.
        TrainingJob: the class of the jobs that are passed to `finetune`.
    """

    finetunable: bool = False
    reinforceable: bool = False
    TrainingJob: ClassVar[type[future.TrainingJob]] = future.TrainingJob

    @staticmethod
    def is_provider_model(model: str) -> bool:  # noqa: ARG004 - the base class owns no model
        """Return whether the provider owns the model of this name. Must not need the network or a heavy import."""
        return False

    def launch(self, lm: Launchable, launch_kwargs: dict[str, Any] | None = None) -> None:
        """Bring the model up, and set ``api_base`` and ``api_key`` in ``lm.kwargs`` if it needs them.

        Does nothing if the model is up.

        Args:
            lm: the LM whose model is brought up.
            launch_kwargs: settings that override ``lm.launch_kwargs``.

        Raises:
            LaunchError: the model cannot be brought up.
            ConfigError: a setting is wrong.
        """

    def kill(self, lm: Launchable, launch_kwargs: dict[str, Any] | None = None) -> None:
        """Release what `launch` started for this LM. Does nothing if nothing is running.

        Args:
            lm: the LM that no longer needs its model.
            launch_kwargs: settings that override ``lm.launch_kwargs``.
        """

    def share(self, lm: Launchable, requests: Sequence[Request]) -> None:
        """Prepare the model that `launch` has brought up for many requests like these. Answers stay repeatable.

        Args:
            lm: the LM that will send them.
            requests: some of them, from all over a run.
        """

    def endpoint(self, lm: Launchable) -> str | None:  # noqa: ARG002 - the base class serves no weights
        """Return the identity of this LM's weights, for the cache key. It is known before launch, and the same on every machine.

        Returns:
            ``sha256:...`` or a name; None if the LM's ``api_base`` identifies them.
        """
        return None

    def finetune(
        self,
        job: future.TrainingJob,  # noqa: ARG002
        model: str,
        train_data: list[dict[str, Any]],  # noqa: ARG002
        train_data_format: TrainDataFormat | str | None,  # noqa: ARG002
        train_kwargs: dict[str, Any] | None = None,  # noqa: ARG002
    ) -> str:
        """Train the model and wait for it.

        Args:
            job: the future of this training.
            model: the model to start from.
            train_data: the rows.
            train_data_format: what a row looks like.
            train_kwargs: the provider's own settings.

        Returns:
            The name of the trained model.

        Raises:
            FinetuneError: the provider cannot train, or the training failed.
        """
        raise FinetuneError(f"{type(self).__name__} cannot fine-tune {model!r}: this provider does not train")
