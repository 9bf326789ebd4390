"""Run `ostinato export`: write a run or a sweep in the formats of other tools."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, get_args

from runner.cli.options import add_run, shorten
from runner.errors import ConfigError, RecordError
from runner.system import files

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from runner.analysis.load import Run, Sweep


_OTHERS = ("preferences", "hub")


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    from runner.analysis.export import Format

    parser.description = (
        "Write a run (a row per sample) or a sweep (a row per cell) for other tools. md has a row per run, junit a test case per "
        "sample."
    )
    add_run(parser)
    parser.add_argument(
        "--to",
        required=True,
        choices=[*get_args(Format), *_OTHERS],
        help="the format; parquet needs polars; hub is a folder with a card; preferences are pairs of answers of two runs",
    )
    parser.add_argument("--against", metavar="RUN", help="preferences: the other run")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="the file to write (default: stdout), or the folder")
    parser.add_argument("--force", action="store_true", help="overwrite FILE without asking")
    parser.add_argument(
        "--exact",
        action="store_true",
        help="csv: leave text as it is; the default puts a ' before text that a spreadsheet takes for a formula (=, +, -, @)",
    )


def main(args: argparse.Namespace) -> int:
    """Export. Return 0.

    Raises:
        RecordError: there is no such record, or FILE cannot be written, or belongs to a record.
        ConfigError: Parquet without a file to put it in, or without polars; FILE is there already.
    """
    from runner.analysis.export import export
    from runner.analysis.load import load

    if args.to == "parquet" and args.output is None and sys.stdout.isatty():
        raise ConfigError("parquet is binary and is not written to a terminal: name a file, -o run.parquet")
    record = load(args.run, runs_dir=args.runs_dir)
    if args.to == "hub":
        return _write_folder(record, args)

    def write(file: BinaryIO) -> None:
        if args.to == "preferences":
            _write_pairs(record, args, file)
        else:
            export(record, args.to, file, exact=args.exact)

    if args.output is None:
        write(sys.stdout.buffer)
        sys.stdout.buffer.flush()
        return 0
    _may_write(args.output, force=args.force)
    with _whole(args.output) as file:
        write(file)
    print(f"written: {shorten(args.output.absolute())}", file=sys.stderr)
    return 0


def _write_pairs(record: Run | Sweep, args: argparse.Namespace, file: BinaryIO) -> None:
    from runner.analysis import interchange
    from runner.analysis.load import Run, load
    from runner.secrets import redacted

    if not args.against:
        raise ConfigError("--to preferences compares the answers of two runs: name the other one, --against RUN")
    other = load(args.against, runs_dir=args.runs_dir)
    if not isinstance(record, Run) or not isinstance(other, Run):
        raise ConfigError("--to preferences takes two runs, and no sweeps")
    pairs = interchange.preferences(record, other)
    file.writelines(line.encode() for line in interchange.lines_of(map(redacted, pairs)))


def _write_folder(record: Run | Sweep, args: argparse.Namespace) -> int:
    """Write a data set for the Hub: ``README.md`` and ``data/samples.jsonl`` in a folder. Return 0."""
    from runner.analysis import interchange
    from runner.analysis.load import Run
    from runner.secrets import redact, redacted

    if not isinstance(record, Run):
        raise ConfigError(f"--to hub writes one run; name one of {record.folder / 'cells'}")
    if args.output is None:
        raise ConfigError("--to hub writes a folder: name it, -o FOLDER")
    rows, readme = args.output / "data" / "samples.jsonl", args.output / "README.md"
    for file in (rows, readme):
        _may_write(file, force=args.force)
    try:
        rows.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RecordError(f"{rows.parent} cannot be made: {error.strerror}") from None
    with _whole(rows) as file:
        file.writelines(line.encode() for line in interchange.lines_of(map(redacted, interchange.hub_rows(record))))
    with _whole(readme) as file:
        file.write(redact(interchange.card(record)).encode())
    print(f"written: {shorten(args.output.absolute())}", file=sys.stderr)
    return 0


def _may_write(path: Path, *, force: bool) -> None:
    """Ask before a file is overwritten. Raise ConfigError if nobody can be asked, or says no; RecordError for a record's file."""
    if not path.is_file():
        return
    if any((folder / "manifest.json").is_file() for folder in path.resolve().parents):
        raise RecordError(f"{path} belongs to a record and is not overwritten; name another file")
    if force:
        return
    if not sys.stdin.isatty():
        raise ConfigError(f"{path} is there already: give another name, or overwrite it with --force")
    print(f"{path} is there already. Overwrite it? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise ConfigError(f"{path} is left as it was")


@contextlib.contextmanager
def _whole(path: Path) -> Iterator[BinaryIO]:
    """Open a file that is replaced whole, or left as it was if something goes wrong."""
    if not path.name or path.is_dir():
        raise RecordError(f"{path} cannot be written: it is a folder; name a file in it")
    try:
        with files.replacing(path) as file:
            yield file
    except OSError as error:
        raise RecordError(f"{path} cannot be written: {error.strerror}") from None
