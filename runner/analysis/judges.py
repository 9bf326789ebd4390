"""Tell whether two runs were judged by the same judge: the same words and form, the same model and parameters, as served."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runner.wording.differences import differences

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_NAMES = ("A", "B")
_SAME = ("requested", "served", "parameters", "endpoint")


def differ(a: Mapping[str, Any] | None, b: Mapping[str, Any] | None, score: str) -> list[str]:
    """Return how the judges of a score differ in two runs, in words; nothing if there are none, or if they are the same.

    Args:
        a: the manifest of a run; None: there is none.
        b: that of the other.
        score: the score.
    """
    if a is None or b is None:
        return []
    one, other = (judge_of(manifest, score) for manifest in (a, b))
    if one == other:
        return []
    told = ["what the judge is asked"] if one.get("judge") != other.get("judge") else []
    return [*told, *differences(one.get("models", {}), other.get("models", {}), "judge", names=_NAMES)]


def again(a: str, b: str, told: list[str]) -> str:
    """Return the commands that judge both runs by the judge of B."""
    if any("served" in line for line in told):  # the cache has what the other model said
        return f"ostinato score {a} --like {b} --refresh && ostinato score {b} --refresh"
    return f"ostinato score {a} --like {b}"


def judge_of(manifest: Mapping[str, Any], score: str) -> dict[str, Any]:
    """Return what decides the verdicts of a score: a digest of what is asked, and the models; nothing for other scores."""
    scorers = manifest.get("scorers") or {}
    name = next((name for name in scorers if score == name or score.startswith(f"{name}.")), None)
    if name is None:
        return {}
    models = dict(_models(manifest.get("models") or {}, name))
    return {"judge": (scorers[name] or {}).get("judge") or scorers[name].get("file_sha256"), "models": models} if models else {}


def _models(models: dict[str, Any], name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for model, facts in models.items():
        if model == name or model.startswith(f"{name}."):
            yield model, {key: facts[key] for key in _SAME if facts.get(key) is not None}
