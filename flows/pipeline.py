"""The flow of a pipeline: its stages as Prefect's tasks, by reference to the pipeline folder. What a stage does is runner's."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from prefect import flow, task  # noqa: TID253 - the home of Prefect; whoever needs this module imports it inside a function
from prefect.artifacts import acreate_table_artifact  # noqa: TID253
from prefect.cache_policies import NO_CACHE  # noqa: TID253

from flows.experiment import note
