"""Compare a run's inputs (config, data, files) with those that it began with, and refuse changed ones with a diff."""

from __future__ import annotations

import contextlib
import shlex
from itertools import islice
from typing import TYPE_CHECKING, Any

import msgspec

from runner.config.older import as_recorded
from runner.config.roles import ADJUSTABLE, adjusted_like, fixed, group_of, is_adjustable
from runner.config.schema import RunConfig
from runner.errors import ConfigError, DataError, RecordError
from runner.experiment.files import SOLVER_FILES, contents_of, digest, kept_text, named_files
from runner.secrets import redact
from runner.wording.differences import differences, indented, unified

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from runner.adapters import Adapter
    from runner.data import Dataset
    from runner.records import RunFolder
    from runner.types import Sample

MAX_IDS = 10_000
"""Rows up to which the manifest lists all ids and each row is compared."""


def manifest_of(config: RunConfig, rooted_config: RunConfig, data: Dataset) -> dict[str, Any]:
    """Return what a resumed run is compared with: the manifest's ``config``, ``data``, ``files`` and ``texts``. No secrets."""
    facts: dict[str, Any] = {"name": data.name, "rows": len(data), "fingerprint": data.fingerprint}
    if len(data) <= MAX_IDS:  # the ids of larger data are only in the samples
        facts["ids"] = list(data.ids())
    if data.fetched:
        facts["fetched"] = plain(data.fetched)
    files = contents_of(rooted_config)
    return {
        "config": plain(config),
        "data": facts,
        "files": {key: digest(content) for key, content in files.items()},
        "texts": {key: text for key, content in files.items() if (text := kept_text(content)) is not None},
    }


def plain(value: Any) -> Any:
    """Return `value` as it is read back from the manifest's JSON."""
    return msgspec.json.decode(msgspec.json.encode(value))


def rescored(manifest: dict[str, Any], config: RunConfig, rooted_config: RunConfig) -> dict[str, Any]:
    """Return `manifest` with the scorers of `config`. Nothing else in it changes."""
    files = {key: content for key, content in contents_of(rooted_config).items() if key.startswith("scoring")}
    kept = {
        name: {key: value for key, value in manifest.get(name, {}).items() if not key.startswith("scoring")}
        for name in ("files", "texts")
    }
    kept["files"] |= {key: digest(content) for key, content in files.items()}
    kept["texts"] |= {key: text for key, content in files.items() if (text := kept_text(content)) is not None}
    before = (
        {"config": manifest["config"] | {"scoring": plain(config.scoring), "expect": plain(config.expect)}}
        if "config" in manifest
        else {}
    )
    return {**manifest, **before, **kept}


def adjusted(record: RunFolder, config: RunConfig, overrides: Sequence[str]) -> RunConfig:
    """Apply the overrides of a resumed run.

    Raises:
        ConfigError: one of them is not in `ADJUSTABLE`; the message says what it would have changed.
    """
    from runner.config.compose import compose

    if other := [override for override in overrides if not is_adjustable(override)]:
        shown = [redact(override) for override in other]
        changes = _would_change(record, config, other)
        told = f"it would have changed\n{indented(changes)}\n" if changes else ""
        raise ConfigError(
            f"'{shown[0]}': a resumed run keeps its config; only {', '.join(ADJUSTABLE)} may change, for example budget.usd=5; "
            f"{told}for anything else, start a new run: {_command(record)} {shlex.join(shown)}"
        )
    if not overrides:
        return config
    composed = compose(list(overrides), config_name=record.config_file.stem, config_dir=str(record.path)).config()
    return adjusted_like(config, composed)


def changes_of(record: RunFolder, config: RunConfig) -> list[str]:
    """Return the changes of the adjustable groups since the last sitting, as ``path: was -> is``.

    Raises:
        ConfigError: something else has changed: ``config.yaml`` was edited.
    """
    from runner.config.compose import read_run

    known = record.manifest().get("config")  # None: recorded by an earlier version
    was, now = plain(read_run(record.config_file)) if known is None else as_recorded(known), plain(config)
    # fields that a newer version has added get their defaults; infinity, which JSON lacks, is null on both sides
    with contextlib.suppress(msgspec.ValidationError):
        was = plain(msgspec.convert(was, RunConfig))
    if changed := list(differences(fixed(was), fixed(now))):
        raise ConfigError(
            f"{record.config_file} has changed since this run began:\n{indented(changed)}\n"
            f"a resumed run keeps its config; only {', '.join(ADJUSTABLE)} may change. Change it back, or play it as a "
            f"new run: {_command(record)}"
        )
    return list(differences(was, now))


def refuse_changed_files(record: RunFolder, config: RunConfig) -> None:
    """Raise RecordError if a file that the config names (a prompt, a scorer) has changed since the run began."""
    for what, told in file_differences(record.manifest(), config):
        changes = f":\n{indented(told)}\n" if told else "; "
        raise RecordError(
            f"{record.path}: {what} has changed since this run began{changes}put it back, or start a new run with `ostinato run`"
        )


def file_differences(manifest: dict[str, Any], config: RunConfig) -> Iterator[tuple[str, list[str]]]:
    """Yield each file of the config that differs from the manifest: its name, and a diff if there is one to show.

    Raises:
        ConfigError: a file cannot be read.
    """
    known, texts = manifest.get("files", {}), manifest.get("texts", {})
    named = dict(named_files(config))
    found = contents_of(config)
    for key, content in found.items():
        before = known.get(key, "" if key.startswith(SOLVER_FILES) else digest(content))
        if before == digest(content):
            continue
        text = kept_text(content)
        place = f"{key} ({named[key]})" if key in named else key
        yield place, unified(texts[key], text) if key in texts and text is not None else []
    for key in known:
        if key.startswith(SOLVER_FILES) and key not in found:
            yield key, ["it is missing, or is not imported any more"]


def refuse_changed_data(record: RunFolder, data: Dataset, adapter: Adapter) -> None:
    """Raise RecordError if the data has changed since the run began."""
    facts = record.manifest().get("data", {})
    if facts.get("fingerprint") == data.fingerprint:
        return
    told = indented(list(data_differences(facts, record, data, adapter)))
    raise RecordError(
        f"{record.path}: the data has changed since this run began; start a new one with `ostinato run`, or put it back"
        + (f":\n{told}" if told else "")
    )


def data_differences(facts: dict[str, Any], record: RunFolder, data: Dataset, adapter: Adapter) -> Iterator[str]:
    """Yield the differences between the data and that of a record (`facts`: of its manifest), as far as they are known."""
    if facts.get("rows") != len(data):
        yield f"rows: {facts.get('rows')} -> {len(data)}"
    before = facts.get("ids")
    if before is None:
        if row := _changed_row(record, data, adapter):
            yield row
        return
    now = list(data.ids())
    for what, some, others in (("new", now, set(before)), ("gone", before, set(now))):
        if ids := [row for row in some if row not in others]:
            more = f", and {len(ids) - 10:,} more" if len(ids) > 10 else ""  # noqa: PLR2004
            yield f"{what}: {', '.join(map(repr, ids[:10]))}{more}"
    if set(before) == set(now):
        yield _changed_row(record, data, adapter) or (
            "the same ids with another content" if before == now else "the same rows in another order"
        )


def _changed_row(record: RunFolder, data: Dataset, adapter: Adapter) -> str | None:
    """Describe the first row whose request or target differs from the record; None if there is none."""
    asked: dict[str, Sample] = {sample.id: sample for sample in islice(record.samples(), MAX_IDS)}
    for row in data:
        if (sample := asked.get(row.id)) is None:
            continue
        changes = list(differences(sample.target, plain(row.target), "target"))
        try:
            now = adapter.format(row)
        except DataError as error:
            changes.append(str(error))
        else:
            if sample.prompt is not None or now.prompt is not None:
                changes += differences(sample.prompt, now.prompt, "prompt")
            if now.messages is not None and sample.messages is not None:  # the record also has the turns that were asked again
                changes += differences(sample.messages[: len(now.messages)], now.messages, "messages")
        if changes:
            return f"row {row.id!r}: {'; '.join(changes)}"
    return None


def _would_change(record: RunFolder, config: RunConfig, overrides: Sequence[str]) -> list[str]:
    """Return what overrides would change, as far as they can be parsed."""
    from runner.config.compose import compose

    changes: list[str] = []
    was = plain(config)
    for override in overrides:
        try:
            now = compose([override], config_name=record.config_file.stem, config_dir=str(record.path)).config()
            changes += differences(was, plain(now))
        except ConfigError:  # another option of a group (model=fake), or an error
            try:
                chosen = plain(compose([override]).config())
            except ConfigError:
                continue
            group = group_of(override)
            changes += differences(was.get(group), chosen.get(group), group)
    return changes


def _command(record: RunFolder) -> str:
    """Return the command that plays config.yaml as a new run."""
    return f"ostinato run -cd {shlex.quote(str(record.path))} -cn {record.config_file.stem}"
