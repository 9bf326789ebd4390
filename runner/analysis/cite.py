"""A run as an appendix of a paper, in Markdown: from its manifest and summary alone."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from runner.wording.numbers import mean

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from runner.records.summary import Summary

_UNKNOWN = "not on record"

_RULES = ("refused", "errors", "truncated", "answers", "pass_at")
"""Fields of the scoring that say how samples count, whatever scores them."""


def cite(name: str, manifest: Mapping[str, Any], summary: Summary | None) -> str:
    """Return the run in Markdown: a table of facts, the prompts, how to play it again, and a BibTeX entry.

    Args:
        name: the run, ``<experiment>/<stamp>``.
        manifest: the run's manifest.
        summary: the run's summary; None if it has none yet.
    """
    facts = {**_model(manifest), **_asked(manifest), **_found(summary), **_made(manifest)}
    table = [f"| {what} | {_cell(much)} |" for what, much in facts.items()]
    parts = [
        f"## Run `{name}`",
        "\n".join(["| | |", "|---|---|", *table]),
        *_prompts(manifest),
        _again(name),
        _bibtex(name, manifest),
    ]
    return "\n\n".join(parts) + "\n"


def _model(manifest: Mapping[str, Any]) -> dict[str, str]:
    model, config = manifest.get("model", {}), manifest.get("config") or {}
    local = config.get("model", {}).get("kind") == "local"
    served = {"backend": config["model"].get("backend"), **config.get("launch", {})} if local else {}
    return {
        "Model requested": _code(model.get("requested")),
        "Model served": ", ".join(map(_code, model.get("served") or [])) or _UNKNOWN,
        "System fingerprint": ", ".join(map(_code, model.get("fingerprints") or [])) or "none was given",
        "Endpoint": _code(model["endpoint"]) if model.get("endpoint") else "the provider's own",
        **(
            {"Served with": _settings({name: served.get(name) for name in ("backend", "context", "parallel", "args")})}
            if local
            else {}
        ),
    }


def _asked(manifest: Mapping[str, Any]) -> dict[str, str]:
    config, data = manifest.get("config") or {}, manifest.get("data", {})
    chosen = config.get("data", {})
    order = f"shuffled with seed {chosen.get('seed')}" if chosen.get("shuffle") else "in the order of the source"
    limit = f", the first {chosen['limit']:,}" if chosen.get("limit") else ""
    rows = f"{data['rows']:,} rows" if "rows" in data else _UNKNOWN
    return {
        "Sampling": _settings(config.get("sampling")),
        "Other parameters": _settings(config.get("model", {}).get("params")) if config.get("model", {}).get("params") else "none",
        "Data": f"{_code(data.get('name'))}: {rows}, {order}{limit}",
        "Data fingerprint": f"SHA-256 {_code(data.get('fingerprint'))}",
        "Answers as": _settings(config.get("adapter")),
        "Scoring": _scoring(config.get("scoring") or {}, manifest.get("files", {})),
        "Config": f"SHA-256 {_code(manifest.get('config_hash'))}",
        "Seeds": _settings(manifest.get("seeds")),
    }


def _found(summary: Summary | None) -> dict[str, str]:
    if summary is None:
        return {"Status": "no summary yet"}
    counts = {name: getattr(summary, name) for name in ("ok", "truncated", "empty", "invalid", "refused", "errors", "owed")}
    told = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count or name == "ok")
    facts = {"Status": summary.status, "Samples": f"{summary.rows:,}: {told}"}
    for name, score in summary.scores.items():
        value = mean(score.mean, score.interval, digits=4, unknown="none")
        interval = "" if score.interval is None else " (95 % interval)"
        error = "" if score.stderr is None else f", standard error {score.stderr:.4f}"
        facts[f"Score {_code(name)}"] = f"{value}{interval}{error}, n = {score.n:,} rows"
    if summary.scores:
        facts["Scores stand on"] = summary.stands_on()
    usage = summary.usage
    facts["Tokens"] = f"{usage.prompt_tokens:,} prompt, {usage.completion_tokens:,} completion, in {summary.requests:,} requests"
    facts["Answered from the cache"] = f"{summary.cache_hits:,} samples"
    cost = summary.cost_in_words() + ("" if summary.cost_usd is None else " (US dollars)")
    facts["Cost"] = "none (this machine)" if summary.model.startswith(("local/", "fake/")) else cost
    return facts


def _made(manifest: Mapping[str, Any]) -> dict[str, str]:
    found = manifest.get("environment") or {}
    packages = dict(found.get("packages", {}))
    version = packages.pop("ostinato", None)
    hardware = [found.get("cpu") or found.get("machine"), f"{found['cpus']} CPUs" if found.get("cpus") else None]
    hardware += [f"{found['memory_gb']} GB of memory" if found.get("memory_gb") else None, *(found.get("gpus") or [])]
    cache = manifest.get("cache", {})
    return {
        "Played": f"{manifest.get('started_at', _UNKNOWN)} to {manifest.get('ended_at', _UNKNOWN)}",
        **({"Reproduces": _code(manifest["reproduces"])} if manifest.get("reproduces") else {}),
        "Ostinato": f"{version or _UNKNOWN}, cache keys of version {cache.get('key_version', _UNKNOWN)}",
        "Packages": ", ".join(f"{name} {found}" for name, found in packages.items()) or _UNKNOWN,
        "Python, system": f"{found.get('python', _UNKNOWN)}, {found.get('os', _UNKNOWN)}",
        "Hardware": ", ".join(filter(None, hardware)) or _UNKNOWN,
        "Code": _commit(found.get("git")),
    }


def _prompts(manifest: Mapping[str, Any]) -> Iterator[str]:
    prompt, texts = (manifest.get("config") or {}).get("prompt") or {}, manifest.get("texts", {})
    for name in ("system", "user"):
        named = f"prompt.{name}_file"
        text = texts.get(named) if prompt.get(f"{name}_file") else prompt.get(name)
        if text is not None:
            yield f"Prompt, {name}:\n\n{_fenced(text)}"
        elif prompt.get(f"{name}_file"):
            yield f"Prompt, {name}: a file of SHA-256 {_code(manifest.get('files', {}).get(named))}"
    for number, example in enumerate(prompt.get("examples") or [], 1):
        yield f"Example {number}:\n\n{_fenced(example['user'])}\n\n{_fenced(example['assistant'])}"


def _again(name: str) -> str:
    packed = f"{name.replace('/', '-')}.ostinato"
    commands = {
        f"ostinato reproduce {name}": "asks the model again, and compares",
        f"ostinato pack {name} -o {packed}": "the run in one file",
        f"ostinato reproduce {packed}": "plays it anywhere: no key, no network",
    }
    text = "\n".join(f"{command}  # {why}" for command, why in commands.items())
    return f"To play it again:\n\n{_fenced(text, 'sh')}"


def _bibtex(name: str, manifest: Mapping[str, Any]) -> str:
    version = (manifest.get("environment") or {}).get("packages", {}).get("ostinato", "")
    started = str(manifest.get("started_at", ""))[:10]
    entry = f"""@software{{ostinato,
  title   = {{Ostinato: language-model experiments declared in YAML that can be played again exactly}},
  author  = {{{{The Ostinato developers}}}},
  version = {{{version}}},
  year    = {{{started[:4]}}},
  note    = {{Run {name} of {started}, config {str(manifest.get("config_hash", _UNKNOWN))[:12]}}}
}}"""
    return f"BibTeX:\n\n{_fenced(entry, 'bibtex')}"


def _scoring(config: Mapping[str, Any], files: Mapping[str, str]) -> str:
    rules = {name: config[name] for name in _RULES if name in config}
    scorers = config.get("scorers") if config.get("kind") == "several" else None
    told = "; ".join(f"{_code(name)}: {_scorer(one)}" for name, one in scorers.items()) if scorers else _scorer(config)
    hashed = [f"SHA-256 {_code(digest)}" for key, digest in files.items() if key.startswith("scoring")]
    counted = f"; counted: {_settings(rules)}" if rules else ""
    return ", ".join([told, *hashed]) + counted


def _scorer(config: Mapping[str, Any]) -> str:
    aside = (*_RULES, "budget")  # what asking may cost decides no score
    return _settings({name: value for name, value in config.items() if name not in aside})


def _settings(values: Mapping[str, Any] | None) -> str:
    """Write the values that are set as ``a = 1, b = x``."""
    said = {key: value for key, value in (values or {}).items() if value is not None and value not in ([], {})}
    return ", ".join(f"{key} = {_code(value)}" for key, value in said.items()) or "none"


def _commit(git: Mapping[str, Any] | None) -> str:
    if not git:
        return "not in a git repository"
    if not git.get("dirty"):
        return f"git {_code(git.get('commit'))}"
    changes = f"uncommitted changes of SHA-256 {_code(git['diff_sha256'])}" if "diff_sha256" in git else "untracked files"
    return f"git {_code(git.get('commit'))}, with {changes}"


def _code(value: Any) -> str:
    if value is None:
        return _UNKNOWN
    return f"`{value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}`"


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", "\\|")


def _fenced(text: str, language: str = "text") -> str:
    """Return `text` in a fence that is longer than any in it."""
    longest = max((len(found) for found in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"
