"""Run `ostinato init`: make a folder with an experiment on the user's own rows that runs at once."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from runner.errors import ConfigError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from runner.cli.init.columns import Guess
    from runner.cli.init.project import Choice
    from runner.data import Dataset

EXAMPLE = Path(__file__).parent / "template" / "questions.csv"
SEEN = 10_000
"""Rows that columns are guessed from."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.description = (
        "Make a folder with an experiment: config, data, prompt, README, .gitignore and a workflow for CI. It runs at once, on a "
        "small model that needs no key. With --from, on the rows of a file of yours; what its columns are for is guessed, and "
        "shown. On a terminal you are asked; a flag answers beforehand. Files that are there already are never changed."
    )
    parser.add_argument("folder", nargs="?", type=Path, default=Path(), metavar="FOLDER", help="default: this folder")
    parser.add_argument("--from", dest="file", metavar="FILE", help="your rows: CSV, TSV, JSON, JSON lines, Parquet, Arrow, xlsx")
    parser.add_argument("--name", metavar="NAME", help="name of the experiment (default: the name of the file)")
    parser.add_argument("--question", metavar="COLUMN", help="the column that the model is asked")
    parser.add_argument("--target", metavar="COLUMN", help="the column with the expected answer, or none")
    parser.add_argument("--id", metavar="COLUMN", help="the column that identifies a row, or none")
    parser.add_argument(
        "--scoring", metavar="OPTION", help="how answers are scored: `ostinato config ls scoring` lists the options"
    )
    parser.add_argument("--model", metavar="MODEL", help="an option such as smollm2 (default) or openai, or provider/name")
    parser.add_argument("-y", "--yes", action="store_true", help="ask nothing, and take what is guessed")


def main(args: argparse.Namespace) -> int:
    """Make the folder. Return 0.

    Raises:
        ConfigError: there is no such column or option, or a file of the experiment is there already.
        DataError: the rows cannot be read.
    """
    from runner.cli.init.columns import guess
    from runner.cli.init.project import Choice, make, model_of, scoring_of

    asks = _on_terminal() and not args.yes
    if asks and args.file is None:
        args.file = _ask("file with your rows (none: twelve questions to begin with)", "none")
    file = EXAMPLE if args.file in (None, "none") else Path(args.file).expanduser()
    data, columns = _opened(file)
    rows = [row for row, _ in zip(data, range(SEEN), strict=False)]
    given = {what: getattr(args, what) for what in ("question", "target", "id", "scoring")}
    found = guess(columns, rows, given)
    if asks:
        for what, value in given.items():
            given[what] = value or _ask(_ASKED[what].format(", ".join(columns)), getattr(found, what) or "none")
            found = guess(columns, rows, given)
        args.model = args.model or _ask("model: smollm2 (small, on this machine, no key), or provider/name", "smollm2")
    model, model_name = model_of(args.model or "smollm2")
    scoring_of(found.scoring)
    _prove(file, found)
    name = args.name or re.sub(r"[^A-Za-z0-9._-]+", "-", file.name.partition(".")[0]).strip("-._") or "experiment"
    choice = Choice(name=name, data=file, rows=len(data), guess=found, model=model, model_name=model_name)
    made, kept = make(args.folder, choice)
    _print(args.folder, choice, columns, made, kept)
    return 0


_ASKED = {
    "question": "column that the model is asked ({})",
    "target": "column with the expected answer, or none",
    "id": "column that identifies a row, or none",
    "scoring": "how answers are scored (`ostinato config ls scoring`)",
}


def _on_terminal() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty()


def _ask(what: str, default: str) -> str:
    return input(f"{what} [{default}]: ").strip() or default


def _opened(file: Path) -> tuple[Dataset, Sequence[str]]:
    from runner.data import open_dataset

    if not file.is_file():
        raise ConfigError(f"--from {file}: there is no such file")
    data = open_dataset("file", path=str(file))
    return data, data.columns


def _prove(file: Path, found: Guess) -> None:
    """Read all rows with their ids and targets. Raise DataError if the columns cannot be used as such."""
    from runner.data import Columns, open_dataset

    open_dataset("file", path=str(file), columns=Columns(found.id, found.target))


def _print(folder: Path, choice: Choice, columns: Sequence[str], made: Sequence[Path], kept: Sequence[Path]) -> None:
    found = choice.guess
    others = [column for column in columns if column not in (found.question, found.target, found.id, *found.context)]
    print(f"{choice.rows:,} rows; columns: {', '.join(columns)}")
    print(f"  question  {', '.join([*found.context, found.question])}")
    print(f"  target    {found.target or 'none'}")
    print(f"  id        {found.id or 'none: a hash of the row'}")
    print(f"  scoring   {found.scoring}{' of ' + ', '.join(found.labels) if found.scoring == 'choice' else ''}")
    print(f"  model     {choice.model_name or choice.model}")
    if others or not found.target:
        print("If that is not right, begin again with --question, --target, --id, --scoring or --model, and with another --name")
    for file in made:
        print(f"made {file}")
    for file in kept:
        print(f"kept {file}: it was there already")
    there = "" if folder.resolve() == Path.cwd() else f"cd {folder} && "
    print(f"\nNext: {there}ostinato run experiment={choice.name}")
    if choice.model == "smollm2" and not _has_llama():
        print("The model smollm2 needs: pip install 'ostinato[local]'")


def _has_llama() -> bool:
    from importlib.util import find_spec

    return find_spec("xllamacpp") is not None
