"""Write the files of a new experiment, from the templates beside this module."""

from __future__ import annotations

import shutil
import string
from pathlib import Path

import msgspec

from runner.cli.init.columns import Guess
from runner.errors import ConfigError
from runner.wording.suggest import did_you_mean

TEMPLATES = Path(__file__).parent / "template"
LOCAL_TOKENS = 60
"""Longest answer of the embedded model: it writes 25 tokens per second on two slow cores, and never stops early."""


class Choice(msgspec.Struct, frozen=True):
    """Hold what a new experiment is made of.

    Attributes:
        name: of the experiment.
        data: the user's file.
        rows: their number.
        guess: what the columns are for.
        model: an option; model_name: the name of a model that the option takes, or None.
    """

    name: str
    data: Path
    rows: int
    guess: Guess
    model: str
    model_name: str | None


class _Template(string.Template):
    delimiter = "%"


def model_of(text: str) -> tuple[str, str | None]:
    """Return the option that `text` stands for, and the model's name if that is no option itself. Raise ConfigError."""
    from runner.config.folders import folders, options

    known = options("model", folders())
    if text in known:
        return text, None
    if "/" not in text:
        raise ConfigError(
            f"--model {text}: there is no such option, and a provider's model is provider/name{did_you_mean(text, known)}"
        )
    return "litellm", text


def scoring_of(text: str) -> str:
    """Return `text`. Raise ConfigError if it is not an option of `scoring`."""
    from runner.config.folders import folders, options

    known = options("scoring", folders())
    if text not in known:
        raise ConfigError(f"--scoring {text}: there is no such option{did_you_mean(text, known)}")
    return text


def make(folder: Path, choice: Choice) -> tuple[list[Path], list[Path]]:
    """Write the files into `folder`. Return those that were written, and those that were there and stay as they are.

    Raises:
        ConfigError: the experiment, its prompt or its data is there already; nothing has been written.
    """
    from runner.system.files import replacing, write

    data = _path_of_data(folder, choice.data)
    prompt, experiment = Path(f"prompts/{choice.name}.txt"), Path(f"conf/experiment/{choice.name}.yaml")
    own = [prompt, experiment, *([] if (folder / data).resolve() == choice.data.resolve() else [data])]
    for file in own:
        if (folder / file).exists():
            raise ConfigError(f"{folder / file} is there already, and is not overwritten; choose another name: --name NAME")
    texts = {experiment: "experiment.yaml", Path("README.md"): "README.md", Path(".gitignore"): "gitignore"}
    texts[Path(".github/workflows/evaluate.yml")] = "evaluate.yml"
    words = {
        "name": choice.name,
        "rows": f"{choice.rows:,}",
        "model": choice.model,
        "scoring": choice.guess.scoring,
        "score": choice.guess.scoring,
        "prompt": str(prompt),
        "data": str(data),
        "package": "ostinato[local]" if choice.model == "smollm2" else "ostinato",
        "settings": _settings(choice, data, prompt),
    }
    contents = {prompt: _prompt(choice.guess)}
    contents |= {file: _Template((TEMPLATES / name).read_text("utf-8")).safe_substitute(words) for file, name in texts.items()}
    made, kept = [], []
    for file, text in contents.items():
        if (folder / file).exists():
            kept.append(file)
            continue
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        write(folder / file, text)
        made.append(file)
    if data in own:
        (folder / data).parent.mkdir(parents=True, exist_ok=True)
        with choice.data.open("rb") as source, replacing(folder / data) as copy:
            shutil.copyfileobj(source, copy)
        made.append(data)
    return sorted([*made, *_schemas(folder, kept)]), kept


def _path_of_data(folder: Path, file: Path) -> Path:
    """Return where the data are, seen from the folder: where they lie, if that is inside, else in ``data/``."""
    inside = file.resolve().is_relative_to(folder.resolve())
    return file.resolve().relative_to(folder.resolve()) if inside else Path("data") / file.name


def _schemas(folder: Path, kept: list[Path]) -> list[Path]:
    from runner.config.json_schema import json_schema, written
    from runner.system.files import write
    from runner.system.paths import shipped_conf

    file = Path("conf/schema.json")
    if (folder / file).exists():
        kept.append(file)
        return []
    write(folder / file, written(json_schema([folder / "conf", shipped_conf()])))
    return [file]


def _settings(choice: Choice, data: Path, prompt: Path) -> str:
    """Return the groups that the experiment sets, as YAML."""
    from runner.config import yaml

    found = choice.guess
    columns = {_word(name): name for name in (*found.context, found.question) if _word(name) != name}
    rows = {"path": str(data), "id": found.id, "target": found.target, "columns": columns}
    settings = {
        "data": {key: value for key, value in rows.items() if value},
        "prompt": {"user_file": str(prompt)},
        "scoring": {"labels": found.labels} if found.scoring == "choice" else None,
        "model": {"name": choice.model_name} if choice.model_name else None,
        "sampling": {"max_tokens": LOCAL_TOKENS} if choice.model == "smollm2" else None,
    }
    return yaml.write({key: value for key, value in settings.items() if value}).rstrip("\n")


def _prompt(found: Guess) -> str:
    """Return the prompt: the columns, and in which form to answer."""
    form = {
        "numeric": "Answer with a number.",
        "contains": "Answer in a few words.",
        "exact": "Answer with nothing but the answer.",
        "choice": f"Answer with one of these: {', '.join(found.labels)}.",
        "json_match": "Answer with JSON.",
    }.get(found.scoring)
    columns = [f"{{{{ {_word(name)} }}}}" for name in (*found.context, found.question)]
    return "\n\n".join([*columns, *([form] if form else [])]) + "\n"


def _word(name: str) -> str:
    """Return a name that a template can use: the column's own, or one made from it."""
    if name.isidentifier():
        return name
    made = "".join(letter if letter.isalnum() else "_" for letter in name).strip("_").lower()
    return made if made.isidentifier() else f"column_{made}"
