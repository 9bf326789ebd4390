"""Prices: from litellm's map as data, and None where nobody knows."""

import subprocess
import sys

import pytest

from runner.pricing import Price, price_of
from runner.types import Usage


def test_a_known_model_costs_what_is_published():
    price = price_of("openai/gpt-4o-mini")
    assert price == Price(0.15e-6, 0.60e-6, 0.075e-6)
    assert price.cost(Usage(1_000_000, 1_000_000)) == pytest.approx(0.75)
    assert price == price_of("gpt-4o-mini")


def test_cached_tokens_have_their_own_price():
    price = Price(2.0, 10.0, 0.5)
    assert price.cost(Usage(100, 10, 110, cached_tokens=60)) == pytest.approx(40 * 2 + 60 * 0.5 + 100)
    assert Price(2.0, 10.0).cost(Usage(100, 10, 110, cached_tokens=60)) == pytest.approx(200 + 100)


def test_reasoning_tokens_are_paid_once():
    assert Price(1.0, 1.0).cost(Usage(0, 50, 50, reasoning_tokens=40)) == 50


@pytest.mark.parametrize(
    "model",
    ["openai/no-such-model", "no-such-model", "local/smollm2", "fake/x", "somebody/gpt-4o-mini", "ollama/llama3", "", "/"],
)
def test_an_unknown_price_is_none(model):
    assert price_of(model) is None


def test_looking_a_price_up_does_not_import_litellm():
    code = "import sys; from runner.pricing import price_of; assert price_of('gpt-4o-mini'); assert 'litellm' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
