"""What a provider is: whoever owns a model's life (launch, kill, fine-tune). Sending requests is the transport's work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from runner.errors import FinetuneError
from runner.finetune.jobs import future

if TYPE_CHECKING:
    from runner.finetune.data.formats import TrainDataFormat


class Launchable(Protocol):
    """What a provider needs of an LM.

    Attributes:
        model: ``provider/name``.
        kwargs: what each request is sent with; `launch` puts ``api_base`` and ``api_key`` here, `kill` takes them away.
        launch_kwargs: the LM's own launch settings.
    """

    model: str
    kwargs: dict[str, Any]
    launch_kwargs: dict[str, Any]


class Provider:
    """Base of all providers; as it is, one whose models are always there and cannot be trained.

    Follows the contract of dspy 2.6's ``Provider``: a subclass overrides what it can do. Methods are called on an instance and
    may be static in a subclass.

    Attributes:
        finetunable: whether `finetune` can work.
        reinforceable: whether the provider can train by reinforcement.
        TrainingJob: the class of the jobs that `finetune` is handed.
    """

    finetunable: bool = False
    reinforceable: bool = False
    TrainingJob: ClassVar[type[future.TrainingJob]] = future.TrainingJob

    @staticmethod
    def is_provider_model(model: str) -> bool:  # noqa: ARG004 - the base class owns no model
        """Whether the provider owns the model of this name. Must need no network and no heavy import."""
        return False

    def launch(self, lm: Launchable, launch_kwargs: dict[str, Any] | None = None) -> None:
        """Make the model answer, and set ``api_base`` and ``api_key`` in ``lm.kwargs`` where it needs that.

        May be called when the model is up already; then it does nothing.

        Args:
            lm: the LM to make answer.
            launch_kwargs: settings that win over ``lm.launch_kwargs``.

        Raises:
            LaunchError: the model could not be made to answer.
            ConfigError: a setting is wrong.
        """

    def kill(self, lm: Launchable, launch_kwargs: dict[str, Any] | None = None) -> None:
        """Give up what `launch` started for this LM. May be called when nothing is running; then it does nothing.

        Args:
            lm: the LM that needs its model no more.
            launch_kwargs: settings that win over ``lm.launch_kwargs``.
        """

    def endpoint(self, lm: Launchable) -> str | None:  # noqa: ARG002 - the base class serves no weights
        """Which weights answer this LM, for the cache key; known before launch, and the same on every machine.

        Returns:
            ``sha256:...`` or a name; None if the LM's ``api_base`` says it well enough.
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
            job: the future of this training, to keep remote ids in.
            model: the model to start from.
            train_data: the rows.
            train_data_format: what a row looks like.
            train_kwargs: the provider's own settings.

        Returns:
            The name of the trained model.

        Raises:
            FinetuneError: the provider cannot train, or the training failed.
        """
        raise FinetuneError(f"{type(self).__name__} cannot fine-tune {model!r}: training is not among the things it does")
