"""Retries: which errors are retried, how often, and after how long."""

import pytest

from runner import errors
from runner.errors import ContextWindowError, LMError, MalformedError, RateLimitError, ServerError
from runner.network.retry import MALFORMED_ATTEMPTS, RetryPolicy, without_sleeping

RETRIED = {"rate_limit", "timeout", "server", "transport", "connection_lost", "malformed"}


def concrete():
    return [cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, LMError) and cls is not LMError]


@pytest.mark.parametrize("cls", concrete())
def test_each_class_is_retried_or_final(cls):
    wait = RetryPolicy().wait(cls("x"), 1, 0.0)
    assert (wait is not None) == (cls.code in RETRIED)


def test_waits_grow_from_the_base_to_the_cap(monkeypatch):
    monkeypatch.setattr("random.uniform", lambda low, high: high)
    policy = RetryPolicy(max_attempts=20, base_s=0.5, cap_s=4)
    assert [policy.wait(ServerError("x"), attempt, 0) for attempt in (1, 2, 3, 4, 5, 19)] == [0.5, 1, 2, 4, 4, 4]


def test_jitter_is_full():
    policy = RetryPolicy(base_s=1, cap_s=8)
    waits = [policy.wait(ServerError("x"), 4, 0) for _ in range(300)]
    assert 0 <= min(waits) < 2
    assert 6 < max(waits) <= 8


@pytest.mark.parametrize(("attempt", "final"), [(1, False), (2, False), (3, True), (4, True)])
def test_max_attempts_includes_the_first(attempt, final):
    assert (RetryPolicy(max_attempts=3).wait(ServerError("x"), attempt, 0) is None) == final


def test_malformed_answers_are_retried_less_often():
    policy = RetryPolicy(max_attempts=8)
    made = [policy.wait(MalformedError("x"), attempt, 0) is not None for attempt in range(1, 8)]
    assert made == [True] * (MALFORMED_ATTEMPTS - 1) + [False] * (8 - MALFORMED_ATTEMPTS)


def test_retry_after_is_never_undercut():
    policy = RetryPolicy(base_s=1, cap_s=1)
    assert all(20 <= policy.wait(RateLimitError("x", retry_after=20), 1, 0) <= 21 for _ in range(50))


def test_a_retry_after_beyond_patience_is_final():
    policy = RetryPolicy(patience_s=60)
    assert policy.wait(RateLimitError("x", retry_after=60), 1, 0) is not None
    assert policy.wait(RateLimitError("x", retry_after=60.1), 1, 0) is None
    assert policy.wait(RateLimitError("x", retry_after=float("inf")), 1, 0) is None


def test_a_wait_beyond_the_deadline_is_final(monkeypatch):
    monkeypatch.setattr("random.uniform", lambda low, high: high)
    policy = RetryPolicy(base_s=2, cap_s=2, deadline_s=10)
    assert policy.wait(ServerError("x"), 1, 7.9) == 2
    assert policy.wait(ServerError("x"), 1, 8.0) is None
    assert policy.wait(RateLimitError("x", retry_after=9), 1, 0) is None


def test_without_sleeping_decides_the_same_and_waits_zero_seconds():
    policy = RetryPolicy(max_attempts=3, patience_s=60)
    with without_sleeping():
        assert policy.wait(ServerError("x"), 1, 0) == 0.0
        assert policy.wait(RateLimitError("x", retry_after=59), 2, 0) == 0.0
        assert policy.wait(RateLimitError("x", retry_after=61), 2, 0) is None
        assert policy.wait(ServerError("x"), 3, 0) is None
        assert policy.wait(ContextWindowError("x"), 1, 0) is None
    assert policy.wait(RateLimitError("x", retry_after=5), 1, 0) >= 5
