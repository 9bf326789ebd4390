"""Declare what a config holds: one frozen Struct per group, one tagged Struct per `kind`, with their checks.

conf/GROUP/default.yaml explains each field, with its unit.
"""

from __future__ import annotations

import enum
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

import msgspec
from msgspec import Meta

Positive: TypeAlias = Annotated[int, Meta(ge=1)]
Count: TypeAlias = Annotated[int, Meta(ge=0)]
Seconds: TypeAlias = Annotated[float, Meta(gt=0)]
_YEAR_S = 366 * 86_400
UpToAYear: TypeAlias = Annotated[float, Meta(gt=0, le=_YEAR_S)]
Dollars: TypeAlias = Annotated[float, Meta(ge=0)]
Fraction: TypeAlias = Annotated[float, Meta(ge=0, le=1)]
Text: TypeAlias = Annotated[str, Meta(min_length=1)]
Name: TypeAlias = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base class of every group: frozen, keyword-only, unknown keys are refused."""


class Kind(Config, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind"):
    """Base class of groups with several kinds, distinguished by the key `kind`."""


# --- model -----------------------------------------------------------------------------------------------------------

Thinking: TypeAlias = Literal["split", "keep"]
Unsupported: TypeAlias = Literal["warn", "drop", "error"]


class LocalModel(Kind, frozen=True, kw_only=True, tag="local"):
    """Use a model that is served on this machine during the run, or by `ostinato launch`."""

    name: Text = "smollm2"
    backend: Literal["llamacpp", "vllm", "sglang"] = "llamacpp"
    model_type: Literal["chat", "text"] = "chat"
    thinking: Thinking = "split"
    params: dict[str, Any] = msgspec.field(default_factory=lambda: {"seed": 0})


class Price(Config, frozen=True, kw_only=True):
    """Give the price of a model in US dollars per million tokens. Without `prompt` and `completion` it is not given."""

    prompt: Dollars | None = None
    completion: Dollars | None = None
    cached_prompt: Dollars | None = None
    cache_write: Dollars | None = None
    reasoning: Dollars | None = None

    def __post_init__(self) -> None:
        given = [name for name in self.__struct_fields__ if getattr(self, name) is not None]
        if given and (self.prompt is None or self.completion is None):
            raise ValueError(f"{given[0]} is given alone; a price needs both prompt and completion")


class LiteLLMModel(Kind, frozen=True, kw_only=True, tag="litellm"):
    """Use any model that litellm reaches, as ``provider/name``."""

    name: Text = "openai/gpt-5.4-mini"
    api_base: str | None = None
    api_key_env: str | None = None
    model_type: Literal["chat", "text", "responses"] = "chat"
    headers: dict[str, str] = {}
    transport: Literal["auto", "direct", "litellm"] = "auto"
    price: Price = Price()
    thinking: Thinking = "split"
    unsupported: Unsupported = "warn"
    params: dict[str, Any] = {}


class ServerModel(Kind, frozen=True, kw_only=True, tag="server"):
    """Use a model behind any endpoint with OpenAI's wire format. `software`, if given, is only for remarks on what it ignores."""

    name: Text = "default"
    api_base: Text = "http://127.0.0.1:8000/v1"
    software: Literal["llamacpp", "llama-cpp-python", "transformers", "vllm", "sglang", "ollama"] | None = None
    api_key_env: str | None = None
    model_type: Literal["chat", "text", "responses"] = "chat"
    headers: dict[str, str] = {}
    transport: Literal["auto", "direct", "litellm"] = "auto"
    price: Price = Price()
    thinking: Thinking = "split"
    unsupported: Unsupported = "warn"
    params: dict[str, Any] = {}


FakeFailure: TypeAlias = Literal[
    "rate_limit", "timeout", "server", "transport", "malformed", "authentication", "quota", "bad_request", "context_window",
    "content_filter", "not_found", "permission_denied",
]  # fmt: skip


class FakeModel(Kind, frozen=True, kw_only=True, tag="fake"):
    """Use a deterministic stand-in for a model, for tests and trial runs."""

    name: Text = "fake"
    model_type: Literal["chat", "text"] = "chat"
    reply: str | None = None
    choices: list[str] = []
    latency_s: Annotated[float, Meta(ge=0)] = 0.0
    fail_rate: Fraction = 0.0
    fail_with: FakeFailure = "server"
    fail_attempts: Positive | None = None
    thinking: Thinking = "split"
    params: dict[str, Any] = {}


Model: TypeAlias = LocalModel | LiteLLMModel | ServerModel | FakeModel


# --- request -----------------------------------------------------------------------------------------------------------


class Sampling(Config, frozen=True, kw_only=True):
    """Hold sampling parameters. None: the parameter is not sent, so the provider's default applies."""

    temperature: Annotated[float, Meta(ge=0, le=5)] | None = 0.0
    max_tokens: Positive | None = 1000
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    seed: int | None = None
    stop: list[str] | None = None
    presence_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    repeats: Positive = 1


class Example(Config, frozen=True, kw_only=True):
    """Show the model one example (shot) before the question. Its text is literal."""

    user: str
    assistant: str


class Prompt(Config, frozen=True, kw_only=True):
    """Say what the model is asked. `system` and `user` are templates: ``{{ column }}``."""

    system: str | None = None
    user: str | None = "{{ question }}"
    system_file: str | None = None
    user_file: str | None = None
    examples: list[Example] = []

    def __post_init__(self) -> None:
        if self.user_file is None and not self.user:
            raise ValueError("user is empty; say what to ask, for example prompt.user='{{ question }}'")
        if self.system is not None and self.system_file is not None:
            raise ValueError("system and system_file are both given; keep one")


class ChatAdapter(Kind, frozen=True, kw_only=True, tag="chat"):
    """Send the prompt as chat messages."""

    literal_tokens: bool | None = None


class TextAdapter(Kind, frozen=True, kw_only=True, tag="text"):
    """Send the prompt as one text to continue. The model needs ``model_type: text``."""


class JsonAdapter(Kind, frozen=True, kw_only=True, tag="json"):
    """Expect JSON that matches a schema. If an answer does not, the model is asked again, up to `retries` times."""

    schema: dict[str, Any] = {}
    retries: Count = 1
    send_schema: Literal["json_schema", "json_object", "none"] = "json_schema"
    repair: bool = False


Adapter: TypeAlias = ChatAdapter | TextAdapter | JsonAdapter


# --- data --------------------------------------------------------------------------------------------------------------


class Data(Kind, frozen=True, kw_only=True):
    """Hold the fields that every kind of data has."""

    name: Text | None = None
    id: str | None = None
    target: str | None = None
    cluster: Text | None = None
    columns: dict[str, str] = {}
    where: Text | None = None
    ids: Annotated[list[str | int], Meta(min_length=1)] | None = None
    range: Annotated[list[Count], Meta(min_length=2, max_length=2)] | None = None
    shard: Annotated[str, Meta(pattern=r"^[0-9]+/[0-9]+$")] | None = None
    sample: Positive | None = None
    stratify: Text | None = None
    shuffle: bool = False
    limit: Positive | None = None
    seed: int = 0


class InlineData(Data, frozen=True, kw_only=True, tag="inline"):
    """Take rows from the YAML itself."""

    rows: list[dict[str, Any]] = []


Paths: TypeAlias = Text | Annotated[list[Text], Meta(min_length=1)]


class FileSource(Data, frozen=True, kw_only=True):
    """Name a file; ``*``, ``?`` and ``[...]`` stand for all files that match, and a list names several."""

    path: Paths


class FileData(FileSource, frozen=True, kw_only=True, tag="file"):
    """Read files, each of the kind that its name says."""


class JsonlData(FileSource, frozen=True, kw_only=True, tag="jsonl"):
    """Read a file with one JSON object per line."""


class JsonData(FileSource, frozen=True, kw_only=True, tag="json"):
    """Read a file that holds one JSON list of objects."""


class CsvData(FileSource, frozen=True, kw_only=True, tag="csv"):
    """Read comma-separated values with a header line."""


class TsvData(FileSource, frozen=True, kw_only=True, tag="tsv"):
    """Read tab-separated values with a header line."""


class ParquetData(FileSource, frozen=True, kw_only=True, tag="parquet"):
    """Read a Parquet file."""


class ArrowData(FileSource, frozen=True, kw_only=True, tag="arrow"):
    """Read an Arrow file, or a folder that `datasets` has saved."""


class XlsxData(FileSource, frozen=True, kw_only=True, tag="xlsx"):
    """Read one sheet of a workbook, whose first row names the columns."""

    sheet: Text | None = None


DataSource: TypeAlias = InlineData | FileData | JsonlData | JsonData | CsvData | TsvData | ParquetData | ArrowData | XlsxData


# --- scoring -----------------------------------------------------------------------------------------------------------


class NoScoring(Kind, frozen=True, kw_only=True, tag="none"):
    """Record answers without scoring them."""


Rule: TypeAlias = Literal["score", "leave_out", "zero"]


class Scored(Kind, frozen=True, kw_only=True):
    """Say how samples without a whole answer count, and several answers. Each kind has these fields; they apply to all scores."""

    refused: Literal["leave_out", "zero"] = "leave_out"
    errors: Literal["leave_out", "zero"] = "leave_out"
    truncated: Literal["score", "leave_out", "zero"] = "score"
    answers: Literal["first", "mean", "best", "worst"] = "first"
    pass_at: list[Positive] = []

    @property
    def counting(self) -> tuple[Rule, Rule, Rule]:
        """Return the first three fields."""
        return self.refused, self.errors, self.truncated

    def refuse_inside(self, where: str) -> None:
        """Raise ValueError if a scorer that is part of another one sets a field of this class."""
        if any(getattr(self, name) != getattr(Scored(), name) for name in Scored.__struct_fields__):
            names = ", ".join(Scored.__struct_fields__)
            raise ValueError(f"{where}: {names} apply to all scores: scoring.refused=...")


class ExactScoring(Scored, frozen=True, kw_only=True, tag="exact"):
    """Score 1 if the answer is the target."""

    ignore_case: bool = False
    strip: bool = True
    straight_quotes: bool = False


class ContainsScoring(Scored, frozen=True, kw_only=True, tag="contains"):
    """Score 1 if the answer contains the target."""

    ignore_case: bool = True
    whole_word: bool = False
    straight_quotes: bool = False


class RegexScoring(Scored, frozen=True, kw_only=True, tag="regex"):
    """Score 1 if the pattern is found in the answer."""

    pattern: str | None = None
    ignore_case: bool = False


class ChoiceScoring(Scored, frozen=True, kw_only=True, tag="choice"):
    """Score 1 if the label that the answer names is the target."""

    labels: list[str] = []
    pick: Literal["first", "last", "only"] = "first"
    ignore_case: bool = True


class NumericScoring(Scored, frozen=True, kw_only=True, tag="numeric"):
    """Score 1 if the number in the answer is the target's, within a tolerance."""

    tolerance: Annotated[float, Meta(ge=0)] = 1e-6
    relative: Annotated[float, Meta(ge=0)] = 0.0
    extract: Literal["last", "first"] = "last"
    decimal: Literal["point", "comma"] = "point"
    target_pattern: str | None = None


class MathScoring(Scored, frozen=True, kw_only=True, tag="math"):
    """Score 1 if the answer equals the target as mathematics."""

    limit_s: Seconds = 10.0


class JsonMatchScoring(Scored, frozen=True, kw_only=True, tag="json_match"):
    """Score 1 if the JSON in the answer equals the target's, on the keys in `keys`."""

    keys: list[str] | None = None


class F1Scoring(Scored, frozen=True, kw_only=True, tag="f1"):
    """Score the overlap of words with the target, as in SQuAD: 0 to 1."""


class EditScoring(Scored, frozen=True, kw_only=True, tag="edit"):
    """Score the likeness to the target: 1 minus the edit distance over the length."""

    ignore_case: bool = False


class ChrfScoring(Scored, frozen=True, kw_only=True, tag="chrf"):
    """Score the overlap of character n-grams with the target: 0 to 1."""

    word_order: Annotated[int, Meta(ge=0, le=4)] = 0


class BleuScoring(Scored, frozen=True, kw_only=True, tag="bleu"):
    """Score BLEU of each answer: 0 to 1."""

    tokenize: Literal["13a", "intl", "char", "zh", "none"] = "13a"


class RougeScoring(Scored, frozen=True, kw_only=True, tag="rouge"):
    """Score ROUGE of each answer: 0 to 1."""

    variant: Literal["rouge1", "rouge2", "rougeL"] = "rougeL"
    measure: Literal["f1", "precision", "recall"] = "f1"


class JsonSchemaScoring(Scored, frozen=True, kw_only=True, tag="json_schema"):
    """Score 1 if the answer holds JSON that follows the schema."""

    schema: dict[str, Any] = {}


class MeasureScoring(Scored, frozen=True, kw_only=True, tag="measure"):
    """Use a quantity of the sample as its score, or whether it keeps a bound."""

    what: Literal["latency_s", "first_token_s", "cost_usd", "prompt_tokens", "completion_tokens", "characters", "words"] = (
        "latency_s"
    )
    at_most: Annotated[float, Meta(ge=0)] | None = None


class PythonScoring(Scored, frozen=True, kw_only=True, tag="python"):
    """Score with a function of your own: ``file.py:function``, called with (output, target, row)."""

    function: Text


Comparing: TypeAlias = (
    ExactScoring | ContainsScoring | RegexScoring | ChoiceScoring | NumericScoring | MathScoring | JsonMatchScoring | F1Scoring
    | EditScoring | ChrfScoring | BleuScoring | RougeScoring | JsonSchemaScoring
)  # fmt: skip
"""Scorers that may be parts of others."""


class NotScoring(Scored, frozen=True, kw_only=True, tag="not"):
    """Score 1 minus another score."""

    scorer: Comparing = ExactScoring()

    def __post_init__(self) -> None:
        self.scorer.refuse_inside("scorer")


class AllScoring(Scored, frozen=True, kw_only=True, tag="all"):
    """Score the lowest of several scores: 1 if all are 1."""

    scorers: dict[str, Comparing | NotScoring] = {}

    def __post_init__(self) -> None:
        for name, scorer in self.scorers.items():
            scorer.refuse_inside(f"scorers.{name}")


class AnyScoring(Scored, frozen=True, kw_only=True, tag="any"):
    """Score the highest of several scores: 1 if any is 1."""

    scorers: dict[str, Comparing | NotScoring] = {}

    def __post_init__(self) -> None:
        for name, scorer in self.scorers.items():
            scorer.refuse_inside(f"scorers.{name}")


Scorer: TypeAlias = Comparing | NotScoring | AllScoring | AnyScoring | MeasureScoring | PythonScoring


class SeveralScoring(Scored, frozen=True, kw_only=True, tag="several"):
    """Use several scorers, by name. The first is the primary one."""

    scorers: dict[str, Scorer] = {}

    def __post_init__(self) -> None:
        for name, scorer in self.scorers.items():
            scorer.refuse_inside(f"scorers.{name}")


Scoring: TypeAlias = NoScoring | Scorer | SeveralScoring


# --- run ---------------------------------------------------------------------------------------------------------------


class Cache(Config, frozen=True, kw_only=True):
    """Configure the response cache."""

    mode: Literal["off", "read", "write", "rw", "refresh", "replay"] = "rw"
    dir: str | None = None
    ttl: Seconds | None = None
    size_limit_gb: Annotated[float, Meta(gt=0, le=1e6)] = 10.0
    served: Literal["warn", "refuse", "refresh"] = "warn"


class Limits(Config, frozen=True, kw_only=True):
    """Limit the rate of requests to the endpoint, and how long an answer is waited for and a request is tried."""

    max_concurrency: Positive = 16
    rpm: Positive | None = None
    tpm: Positive | None = None
    timeout_s: Seconds = 120.0
    stream: Literal["auto", "always", "never"] = "auto"
    silence_s: Seconds = 300.0
    max_attempts: Positive = 8
    deadline_s: Seconds | None = None
    retry_empty: Count = 0


class Budget(Config, frozen=True, kw_only=True):
    """Bound what a run may use; None: no bound."""

    usd: Dollars | None = None
    tokens: Count | None = None
    requests: Count | None = None
    unknown_price: Literal["refuse", "allow"] = "refuse"


class Launch(Config, frozen=True, kw_only=True):
    """Configure the server of a local model."""

    context: Positive = 2048
    parallel: Positive = 4
    threads: Positive | None = None
    port: Annotated[int, Meta(ge=0, le=65535)] = 0
    timeout_s: Seconds = 120.0
    args: list[str] = []


# --- fine-tuning -------------------------------------------------------------------------------------------------------


class TrainingData(Config, frozen=True, kw_only=True):
    """Choose the training data: the rows of a file, or samples of a run."""

    path: Text | None = None
    format: Literal["chat", "completion", "preference"] = "chat"
    from_run: Text | None = None
    where: Text | None = None
    valid_fraction: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    split_seed: int = 0
    allow_overlap: bool = False

    def __post_init__(self) -> None:
        if self.path is not None and self.from_run is not None:
            raise ValueError("path and from_run are both given; keep one")
        if self.where is not None and self.from_run is None:
            raise ValueError("where selects samples of a run; give from_run, too")


class Finetune(Kind, frozen=True, kw_only=True):
    """Hold the fields that every kind of fine-tuning has."""

    base: Text | None = None
    data: TrainingData = TrainingData()


_PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


class LocalFinetune(Finetune, frozen=True, kw_only=True, tag="local"):
    """Train a LoRA adapter on this machine, with Ostinato's own trainer or with TRL."""

    backend: Literal["own", "trl"] = "own"
    epochs: Positive = 1
    max_steps: Positive | None = None
    lr: Annotated[float, Meta(gt=0)] = 3e-3
    batch_size: Positive = 4
    gradient_accumulation: Positive = 1
    warmup_ratio: Fraction = 0.1
    lr_min_ratio: Fraction = 0.05
    weight_decay: Annotated[float, Meta(ge=0)] = 0.0
    max_grad_norm: Annotated[float, Meta(ge=0)] = 1.0
    lora_r: Positive = 8
    lora_alpha: Annotated[float, Meta(gt=0)] = 16.0
    lora_dropout: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    lora_targets: list[str] = msgspec.field(default_factory=_PROJECTIONS.copy)
    layers: Text | None = None
    merge: bool = False
    max_length: Positive = 2048
    seed: Count = 0
    threads: Positive | None = None
    dtype: Literal["auto", "bf16", "fp32"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    checkpoint_every: Positive = 25
    eval_every: Positive | None = None
    early_stopping_patience: Positive | None = None
    bucket: bool = True
    beta: Annotated[float, Meta(gt=0)] | None = None


class OpenAIFinetune(Finetune, frozen=True, kw_only=True, tag="openai"):
    """Train with a job at OpenAI, or at a server with its fine-tuning API."""

    api_base: Text | None = None
    api_key_env: Text | None = None
    n_epochs: Positive | None = None
    batch_size: Positive | None = None
    learning_rate_multiplier: Annotated[float, Meta(gt=0)] | None = None
    beta: Annotated[float, Meta(gt=0)] | None = None
    seed: int | None = 0
    window: Positive | None = None
    usd_per_mtokens: Dollars | None = None
    poll_s: Seconds = 10.0


class DatabricksFinetune(Finetune, frozen=True, kw_only=True, tag="databricks"):
    """Train with a job of Databricks' foundation-model training, and serve the model from an endpoint there."""

    host: Text | None = None
    token_env: Text = "DATABRICKS_TOKEN"  # noqa: S105 - the variable's name
    train_data_path: Text | None = None
    register_to: Text | None = None
    training_duration: Text | None = None
    learning_rate: Annotated[float, Meta(gt=0)] | None = None
    context_length: Positive | None = None
    experiment_path: Text | None = None
    skip_deploy: bool = False
    poll_s: Seconds = 30.0


class CommandFinetune(Finetune, frozen=True, kw_only=True, tag="command"):
    """Train with a program of your own on this machine: axolotl, LLaMA-Factory, a script."""

    command: Text | None = None
    config: Text | None = None


FinetuneKind: TypeAlias = LocalFinetune | OpenAIFinetune | DatabricksFinetune | CommandFinetune


# --- the whole ---------------------------------------------------------------------------------------------------------


class Gate(Config, frozen=True, kw_only=True):
    """Decide when a pipeline registers the model that it trained."""

    metric: Text | None = None
    min_gain: float = 0.0
    cluster: Text | None = None
    level: Annotated[float, Meta(gt=0, lt=1)] = 0.95


class Expect(Config, frozen=True, kw_only=True):
    """Say what a run has to reach; its exit code tells whether it does."""

    that: list[Text] = []
    rows: Text | None = None
    stop_early: bool = False


class Execution(Config, frozen=True, kw_only=True):
    """Choose what orchestrates the run."""

    orchestrator: Literal["prefect", "none"] = "prefect"


# --- sweep -------------------------------------------------------------------------------------------------------------


class Range(Config, frozen=True, kw_only=True):
    """Vary over numbers from start up to, but without, stop: ``range: [start, stop]`` or ``[start, stop, step]``, as in Hydra."""

    range: Annotated[list[int | float], Meta(min_length=2, max_length=3)]

    def __post_init__(self) -> None:
        if len(self.range) > 2 and not self.range[2]:  # noqa: PLR2004
            raise ValueError("the step of a range cannot be 0")


class Interval(Config, frozen=True, kw_only=True):
    """Vary over any number from low to high, for sweepers that search (optuna): ``interval: [low, high]``."""

    interval: Annotated[list[int | float], Meta(min_length=2, max_length=2)]


Varied: TypeAlias = list[Any] | dict[str, list[int | float]]
"""The values of a key in a sweep: a list, ``{range: [...]}`` (see `Range`) or ``{interval: [...]}`` (see `Interval`)."""


class Sweep(Config, frozen=True, kw_only=True):
    """List the cells of a sweep: every combination of `grid` and `zip`, plus `cells`, without those that `exclude` matches."""

    grid: dict[str, Varied] = {}
    zip: dict[str, Varied] = {}
    cells: list[dict[str, Any]] = []
    exclude: list[dict[str, Any]] = []
    concurrency: Positive = 4
    fail_fast: bool = False
    primary: Text | None = None
    direction: Literal["maximize", "minimize"] = "maximize"

    @property
    def varies(self) -> bool:
        """Return whether there is anything to sweep over."""
        return bool(self.grid or self.zip or self.cells)

    def __post_init__(self) -> None:
        for part in ("grid", "zip"):
            for key, given in getattr(self, part).items():
                _check_varied(f"{part}.{key}", given)
        lengths = {key: len(given) for key, given in self.zip.items() if isinstance(given, list)}
        if len(set(lengths.values())) > 1:
            told = ", ".join(f"{key} {count}" for key, count in lengths.items())
            raise ValueError(f"zip: its keys change together, so each needs the same number of values: {told}")
        if any("interval" in given for given in self.zip.values() if isinstance(given, dict)):
            raise ValueError("zip: an interval has no list of values; put it into grid")


def _check_varied(where: str, given: Varied) -> None:
    """Refuse anything but a list of values, a range or an interval, with a ValueError."""
    if isinstance(given, list):
        if not given:
            raise ValueError(f"{where}: has no values")
        return
    kinds: dict[str, type[Config]] = {"range": Range, "interval": Interval}
    kind = kinds.get(next(iter(given), ""))
    if kind is None or len(given) > 1:
        raise ValueError(f"{where}: takes a list of values, {{range: [start, stop, step]}} or {{interval: [low, high]}}")
    try:
        msgspec.convert(given, kind)
    except msgspec.ValidationError as error:
        raise ValueError(f"{where}: {error}") from None


# --- schedule ----------------------------------------------------------------------------------------------------------


class Notify(Config, frozen=True, kw_only=True):
    """Name whom to notify when a scheduled run has failed."""

    command: list[Text] = []
    webhook_env: str | None = None

    def __post_init__(self) -> None:
        if self.webhook_env is not None and not self.webhook_env.isidentifier():
            raise ValueError("webhook_env is the name of an environment variable that holds the URL, not the URL itself")


class Canary(Config, frozen=True, kw_only=True):
    """Say what a canary is compared with."""

    reference: Text | None = None
    level: Annotated[float, Meta(gt=0.5, lt=1)] = 0.95


class Schedule(Config, frozen=True, kw_only=True):
    """Say when an experiment runs again. It is not part of a run's identity."""

    name: Name | None = None
    what: Text = "run"
    cron: Text | None = None
    interval_s: UpToAYear | None = None
    rrule: Text | None = None
    timezone: Text = "UTC"
    overlap: Literal["skip", "queue"] = "skip"
    catch_up: Literal["none", "one", "all"] = "one"
    late_s: UpToAYear = 60.0
    retries: Count = 0
    retry_delay_s: Annotated[float, Meta(ge=0, le=_YEAR_S)] = 60.0
    notify: Notify = Notify()
    canary: Canary = Canary()

    def __post_init__(self) -> None:
        given = [name for name in ("cron", "interval_s", "rrule") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} are given together; a schedule takes one of cron, interval_s and rrule")
        if self.catch_up == "all" and self.overlap == "skip":
            raise ValueError("catch_up=all runs missed runs one after the other, but overlap=skip skips them; give overlap=queue")


class Role(enum.Enum):
    """Say how a group of the config affects an experiment's identity."""

    identity = "changes answers, so another value is another experiment"
    adjustable = "may change when a run resumes: how fast, how much, served and orchestrated how"
    aside = "is not used by a single run: where it is recorded, what varies, when it runs, what follows from its scores"


T = TypeVar("T")
Identity: TypeAlias = Annotated[T, Role.identity]
Adjustable: TypeAlias = Annotated[T, Role.adjustable]
Aside: TypeAlias = Annotated[T, Role.aside]


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
