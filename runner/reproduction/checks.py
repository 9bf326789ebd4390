"""Compare the inputs of a run with the present ones: config, data, files, model, code, packages, machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import msgspec

from runner import build
from runner.cache import KEY_VERSION
from runner.config.roles import config_hash
from runner.errors import ConfigError, OstinatoError
from runner.experiment.drift import changes_of, data_differences, file_differences
from runner.experiment.files import rooted
from runner.experiment.served import address_of, names_weights
from runner.records.environment import environment
from runner.wording.differences import differences

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from runner.config.schema import RunConfig
    from runner.records import RunFolder

State = Literal["same", "changed", "missing", "unknown"]
_MACHINE = ("os", "machine", "cpu", "cpus", "gpus", "memory_gb")


class Check(msgspec.Struct, frozen=True):
    """One thing that a run was made from.

    Attributes:
        what: its name.
        state: ``same``, ``changed``, ``missing`` (it cannot be used), or ``unknown`` (the record does not say).
        told: the differences or other facts, one per line.
    """

    what: str
    state: State
    told: list[str] = []

    @property
    def drifted(self) -> bool:
        """Return whether this has changed or is missing."""
        return self.state in ("changed", "missing")

    def lines(self) -> list[str]:
        """Return the check as lines for people."""
        flat = [line for text in self.told for line in text.splitlines()]
        return [f"{self.what}: {self.state}", *(f"  {line}" for line in flat)]


def checks(record: RunFolder, config: RunConfig, again: RunConfig, cwd: Path) -> list[Check]:
    """Compare the record of a run with this machine, now. Starts and sends nothing.

    Args:
        record: the run.
        config: the config in its ``config.yaml``.
        again: the config of the new run.
        cwd: where its files are looked for.

    Raises:
        ConfigError: ``config.yaml`` was edited since the run began.
        RecordError: the record cannot be read.
    """
    manifest = record.manifest()
    in_place = rooted(again, {"cwd": str(cwd)})
    return [
        _config(record, manifest, config),
        _files(manifest, in_place),
        _data(record, manifest, in_place),
        _model(manifest, in_place),
        *of_environment(manifest, cwd),
    ]


def of_environment(manifest: dict[str, Any], folder: Path | None = None) -> Iterator[Check]:
    """Compare the code, the packages and the machine of a manifest with those of this process.

    Args:
        manifest: the record's manifest.
        folder: a folder in the git repository to compare; None: the working directory.
    """
    was = manifest.get("environment")
    if not was:
        for what in ("code", "packages", "python", "machine"):
            yield Check(what, "unknown", ["the run was killed before this was recorded"])
        return
    now = environment(folder, also=was.get("packages", ()))
    yield _code(was.get("git"), now["git"])
    yield _compared("packages", was.get("packages", {}), now["packages"])
    yield _compared("python", was.get("python"), now["python"])
    known = [name for name in _MACHINE if name in was]  # records of earlier versions have fewer fields
    yield _compared("machine", {name: was[name] for name in known}, {name: now[name] for name in known})


def of_served(before: dict[str, Any], after: dict[str, Any]) -> Check:
    """Compare which model answered, according to the manifests of two runs."""
    was, now = map(_served, (before, after))
    if not (was["endpoint"] and now["endpoint"]):  # a server that does not name its weights, or was not asked
        was["endpoint"] = now["endpoint"] = None
    if not was["served"] and was["endpoint"] is None:
        return Check("served model", "unknown", ["no recorded answer names its model"])
    named = [", ".join([*was["served"], *was["fingerprints"]])]
    return _compared("served model", was, now, named)


def _served(manifest: dict[str, Any]) -> dict[str, Any]:
    model = manifest.get("model", {})
    endpoint = model.get("endpoint")
    found = {name: model.get(name) or [] for name in ("served", "fingerprints")}
    return {**found, "endpoint": endpoint if names_weights(endpoint) else None}


def _compared(what: str, was: Any, now: Any, told: list[str] | None = None) -> Check:
    changed = list(differences(was, now, what if not isinstance(was, dict) else ""))
    return Check(what, "changed", changed) if changed else Check(what, "same", told or [])


def _config(record: RunFolder, manifest: dict[str, Any], config: RunConfig) -> Check:
    adjusted = changes_of(record, config)
    was, now = manifest.get("config_hash"), config_hash(config)
    if was == now:
        return Check("config", "same", [f"SHA-256 {now[:12]}"])
    told = f"SHA-256 {str(was)[:12]} -> {now[:12]}: "
    if adjusted:
        return Check("config", "same", [f"{told}only what does not change the answers:", *adjusted])
    return Check("config", "same", [f"{told}by a later sitting (resume, score), or by another version's defaults"])


def _files(manifest: dict[str, Any], config: RunConfig) -> Check:
    try:
        changed = list(file_differences(manifest, config))
    except ConfigError as error:
        return Check("files", "missing", [str(error)])
    if changed:
        return Check(
            "files", "changed", [line for what, told in changed for line in (f"{what}:", *(f"  {text}" for text in told))]
        )
    named = manifest.get("files", {})
    return Check("files", "same", [", ".join(named)] if named else ["none are named"])


def _data(record: RunFolder, manifest: dict[str, Any], config: RunConfig) -> Check:
    facts = manifest.get("data", {})
    try:
        data, adapter = build.dataset(config), build.adapter(config)
    except OstinatoError as error:
        return Check("data", "missing", [str(error)])
    if facts.get("fingerprint") == data.fingerprint:
        return Check("data", "same", [f"{len(data):,} rows, fingerprint {data.fingerprint[:12]}"])
    return Check("data", "changed", list(data_differences(facts, record, data, adapter)))


def _model(manifest: dict[str, Any], config: RunConfig) -> Check:
    was = manifest.get("model", {})
    try:
        lm = build.lm(config)
        endpoint = lm.request(prompt="").endpoint
    except OstinatoError as error:
        return Check("model", "missing", [str(error)])
    before = {"requested": was.get("requested"), "endpoint": address_of(was.get("endpoint"))}  # nothing is asked of a server here
    before["key_version"] = manifest.get("cache", {}).get("key_version", KEY_VERSION)
    now = {"requested": lm.model, "endpoint": endpoint, "key_version": KEY_VERSION}
    return _compared("model", before, now, [f"{lm.model} at {endpoint}" if endpoint else lm.model])


def _code(was: dict[str, Any] | None, now: dict[str, Any] | None) -> Check:
    """Compare the user's repository. If the tree has uncommitted changes, their digest says whether they are the same."""
    if was is None:
        return Check("code", "unknown", ["the run was not started in a git repository"])
    if now is None:
        return Check("code", "changed", [f"git.commit: {was['commit'][:12]} -> no git repository here"])
    changed = list(differences(was, now, "git"))
    if not changed and was.get("dirty") and "diff_sha256" not in was:
        return Check("code", "same", [f"commit {was['commit'][:12]}, with untracked files, then and now"])
    return Check("code", "changed", changed) if changed else Check("code", "same", [f"commit {was['commit'][:12]}"])
