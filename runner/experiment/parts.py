"""Build the parts of an experiment: data, scorers, model and adapter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from runner import build
from runner.adapters import conversation_of
from runner.attachments.store import FOLDER as ATTACHED
from runner.batch.asker import Asker
from runner.experiment.calibrated import calibration_remarks
from runner.experiment.leaks import leaked_examples
from runner.experiment.named import NamedModels
from runner.scoring.counting import Counting

if TYPE_CHECKING:
    from pathlib import Path

    from runner.adapters import Adapter
    from runner.config.schema import RunConfig
    from runner.data import Dataset
    from runner.lm.lm import LM
    from runner.scoring import Scorer
    from runner.solvers import Solver
    from runner.solvers.conversation import Conversation
    from runner.tools import Toolbox


class Parts(NamedTuple):
    """The parts of one experiment."""

    dataset: Dataset
    scorers: dict[str, Scorer]
    lm: LM
    adapter: Adapter
    retry_empty: int = 0
    counting: Counting = Counting()
    answers: Literal["first", "mean", "best", "worst"] = "first"
    pass_at: tuple[int, ...] = ()
    named: NamedModels | None = None
    conversation: Conversation | None = None
    solver: Solver | None = None

    @classmethod
    def of(cls, config: RunConfig, dataset: Dataset | None = None) -> Parts:
        """Build the parts of a config, on data that is open already or is opened here. Raises ConfigError and DataError."""
        data = build.dataset(config) if dataset is None else dataset
        lm, adapter = build.lm(config), build.adapter(config)
        if (conversation := conversation_of(adapter)) is not None:
            from runner.transport.attaching import AttachingTransport

            lm.transport = AttachingTransport(lm.transport, conversation.attachments)
        return cls(
            data,
            build.scorers(config),
            lm,
            adapter,
            config.limits.retry_empty,
            build.counting(config),
            getattr(config.scoring, "answers", "first"),
            build.pass_at(config),
            NamedModels(config),
            build.conversation(config, adapter),
            build.solver(config),
        )

    @property
    def tools(self) -> Toolbox | None:
        """The tools that the model may call; None without any."""
        return self.conversation.tools if self.conversation is not None else None

    def keep(self, folder: Path, *, sealed: bool = False) -> None:
        """Keep attachments and results of tools in the folder of a record; if `sealed`, attach nothing from elsewhere."""
        if (conversation := conversation_of(self.adapter)) is not None:
            conversation.attachments.keep(folder / ATTACHED, sealed=sealed)
        if self.tools is not None:
            self.tools.keep(folder)

    def close(self) -> None:
        """End what was started for tools."""
        if self.tools is not None:
            self.tools.close()

    @property
    def seed(self) -> int | None:
        """The seed that the model is sent; None if none is sent."""
        seed = self.lm.kwargs.get("seed")
        return seed if isinstance(seed, int) else None

    def remarks(self, config: RunConfig) -> list[str]:
        """Return what is to be said of the rows, the parameters that are sent (servers may ignore some), and the scorers."""
        sent = build.remarks(config, self.lm.parameters(**self.adapter.params()))
        leaks = leaked_examples(config.prompt.examples, self.dataset, self.adapter)
        return [*self.dataset.remarks, *leaks, *sent, *build.scoring_remarks(config), *calibration_remarks(config)]

    def asker(self) -> Asker:
        """Make the asker, which turns rows into samples."""
        asker = Asker(
            self.lm,
            self.adapter,
            self.scorers,
            seed=self.seed,
            retry_empty=self.retry_empty,
            counting=self.counting,
            answers=self.answers,
        )
        if self.named is not None:
            asker.named = self.named.lms
        if (solver := self.solver or self.conversation) is not None:
            asker.solve_with(solver)
        return asker
