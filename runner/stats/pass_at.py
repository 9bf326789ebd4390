"""pass@k: the chance that one of k answers is right."""

from __future__ import annotations

from math import comb


def pass_at_k(n: int, right: int, k: int) -> float:
    """Estimate the chance that at least one of `k` answers is right, without bias, from `n` answers of which `right` are.

    1 - C(n - right, k) / C(n, k): Chen et al. 2021, "Evaluating Large Language Models Trained on Code" (arXiv 2107.03374), eq. 1.

    Args:
        n: answers, at least `k`.
        right: how many of them are right.
        k: how many are drawn.
    """
    return 1.0 - comb(n - right, k) / comb(n, k)
