"""Declare what a config holds: one frozen Struct per group, one tagged Struct per `kind`, with their checks.

conf/GROUP/default.yaml explains each field, with its unit.
"""

from __future__ import annotations

from runner.config.schema.base import Config, Name, Text
from runner.config.schema.data import DataSource, InlineData
from runner.config.schema.finetuning import FinetuneKind, Gate
from runner.config.schema.model import LocalModel, Model
from runner.config.schema.request import Adapter, ChatAdapter, Prompt, Sampling
from runner.config.schema.roles import Adjustable, Aside, Identity
from runner.config.schema.running import Budget, Cache, Execution, Launch, Limits
from runner.config.schema.schedule import Schedule
from runner.config.schema.scoring import ExactScoring, Expect, Scoring
from runner.config.schema.solver import PlainSolver, Solver
from runner.config.schema.sweep import Sweep


class RunConfig(Config, frozen=True, kw_only=True):
    """Declare one whole experiment: each group, and its role in the experiment's identity.

    Every field has a default: ``RunConfig()`` equals the default.yaml of each group.
    """

    name: Identity[Name | None] = None
    model: Identity[Model] = LocalModel()
    sampling: Identity[Sampling] = Sampling()
    prompt: Identity[Prompt] = Prompt()
    data: Identity[DataSource] = InlineData()
    adapter: Identity[Adapter] = ChatAdapter()
    solver: Identity[Solver] = PlainSolver()
    scoring: Identity[Scoring] = ExactScoring()
    cache: Identity[Cache] = Cache()
    limits: Adjustable[Limits] = Limits()
    budget: Adjustable[Budget] = Budget()
    launch: Adjustable[Launch] = Launch()
    expect: Adjustable[Expect] = Expect()
    finetune: Identity[FinetuneKind | None] = None
    alias: Aside[Name | None] = None
    gate: Aside[Gate] = Gate()
    execution: Adjustable[Execution] = Execution()
    sweep: Aside[Sweep] = Sweep()
    schedule: Aside[Schedule] = Schedule()
    runs_dir: Aside[Text] = "runs"
