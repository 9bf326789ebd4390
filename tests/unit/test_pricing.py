"""Prices: read from litellm's map, equal to litellm's own costs, and None if unknown."""

import subprocess
import sys

import msgspec
import pytest

from runner.cost.pricing import Price, longest_answer, price_of
from runner.types import Usage

USAGES = {
    "plain": Usage(1_000, 200, 1_200),
    "cached": Usage(10_000, 200, 10_200, cached_tokens=6_000),
    "thought": Usage(5_000, 3_000, 8_000, cached_tokens=1_000, reasoning_tokens=2_500),
    "written": Usage(30_000, 500, 30_500, cached_tokens=4_000, cache_write_tokens=20_000),
    "at a threshold": Usage(200_000, 10, 200_010),
    "long": Usage(300_000, 2_000, 302_000, cached_tokens=10_000),
}
MODELS = [
    "openai/gpt-4o-mini",  # the plain case, with a price for cached tokens
    "openai/o3",
    "openai/gpt-5-mini",
    "openai/gpt-5.4",  # twice the price above 272k
    "openai/gpt-3.5-turbo",  # no price for cached tokens
    "anthropic/claude-haiku-4-5",  # cache writes cost more than the prompt
    "anthropic/claude-sonnet-4-5",
    "gemini/gemini-2.5-flash",
    "gemini/gemini-2.5-pro",  # a higher price above 200k
    "deepseek/deepseek-chat",
    "mistral/mistral-large-latest",
    "xai/grok-4.3",  # a higher price from 200k, inclusive
    "dashscope/qwen-flash",  # a table of prices by length
    "dashscope/qwen-turbo",  # thinking has its own price
    "groq/openai/gpt-oss-120b",
    "fireworks_ai/accounts/fireworks/models/deepseek-v3",  # cached tokens at half the price, which is not in the map
]


@pytest.fixture(scope="module")
def completion_cost():
    """Return litellm's own cost, offline."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
        import litellm
        from litellm.types import utils

    def cost(model, usage):
        prompt = utils.PromptTokensDetailsWrapper(
            cached_tokens=usage.cached_tokens, cache_creation_tokens=usage.cache_write_tokens or None
        )
        thought = utils.CompletionTokensDetailsWrapper(reasoning_tokens=usage.reasoning_tokens)
        counted = utils.Usage(
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
            total_tokens=usage.total_tokens,
            prompt_tokens_details=prompt,
            completion_tokens_details=thought if usage.reasoning_tokens else None,
        )
        return litellm.completion_cost(completion_response=utils.ModelResponse(usage=counted, model=model), model=model)

    return cost


@pytest.mark.parametrize("model", MODELS)
def test_costs_equal_those_of_litellm(model, completion_cost):
    price = price_of(model)
    for name, usage in USAGES.items():
        assert price.cost(usage) == pytest.approx(completion_cost(model, usage), rel=1e-9), name
        assert price.most(usage.prompt_tokens, usage.completion_tokens) >= price.cost(usage) * (1 - 1e-9), name


def test_a_known_model_has_its_published_price():
    price = price_of("openai/gpt-4o-mini")
    assert price == Price(0.15e-6, 0.60e-6, 0.075e-6)
    assert price.cost(Usage(1_000_000, 1_000_000)) == pytest.approx(0.75)
    assert price == price_of("gpt-4o-mini")


def test_a_fine_tuned_model_has_the_fine_tuned_price_of_its_base():
    tuned = price_of("openai/ft:gpt-4o-mini-2024-07-18:somebody::1a2b3c")
    assert tuned == price_of("openai/ft:gpt-4o-mini-2024-07-18")
    assert tuned.prompt > price_of("openai/gpt-4o-mini").prompt


def test_cached_tokens_have_their_own_price():
    price = Price(2.0, 10.0, 0.5)
    assert price.cost(Usage(100, 10, 110, cached_tokens=60)) == pytest.approx(40 * 2 + 60 * 0.5 + 100)
    assert Price(2.0, 10.0).cost(Usage(100, 10, 110, cached_tokens=60)) == pytest.approx(200 + 100)
    assert Price(2.0, 10.0, 0.0).cost(Usage(100, 10, 110, cached_tokens=60)) == pytest.approx(80 + 100)


def test_tokens_written_to_the_cache_have_their_own_price():
    price = Price(2.0, 10.0, 0.5, cache_write=2.5)
    assert price.cost(Usage(100, 10, 110, cached_tokens=60, cache_write_tokens=30)) == pytest.approx(20 + 30 + 75 + 100)


def test_reasoning_tokens_are_counted_once():
    assert Price(1.0, 1.0).cost(Usage(0, 50, 50, reasoning_tokens=40)) == 50
    assert Price(1.0, 1.0, reasoning=3.0).cost(Usage(0, 50, 50, reasoning_tokens=40)) == 130


def test_a_long_prompt_changes_the_price_of_the_whole_request():
    price = Price(1.0, 2.0, 0.5, longer=((101, Price(10.0, 20.0, 5.0)), (1001, Price(100.0, 200.0))))
    assert price.cost(Usage(100, 1, 101)) == 102
    assert price.cost(Usage(101, 1, 102, cached_tokens=1)) == 1025
    assert price.cost(Usage(1001, 1, 1002)) == 100_300


def test_the_upper_bound_is_the_most_expensive_outcome():
    price = Price(2.0, 10.0, 0.5, cache_write=3.0, reasoning=12.0, longer=((101, Price(1.0, 20.0)),))
    assert price.most(100, 10) == 300 + 120
    assert price.most(200, 10) == 600 + 120
    assert price.most(200, 1000) == 200 + 20_000


def test_a_service_tier_has_its_own_price_or_none():
    standard, flex = price_of("openai/gpt-5"), price_of("openai/gpt-5", "flex")
    assert flex.completion == pytest.approx(standard.completion / 2)
    assert flex.cached_prompt == pytest.approx(standard.cached_prompt / 2)
    assert price_of("openai/gpt-5", "default") == price_of("openai/gpt-5", "auto") == standard
    assert price_of("openai/gpt-5", "no-such-tier") is None


@pytest.mark.parametrize(
    "model",
    ["openai/no-such-model", "no-such-model", "local/smollm2", "fake/x", "somebody/gpt-4o-mini", "ollama/llama3", "", "/"],
)
def test_an_unknown_price_is_none(model):
    assert price_of(model) is None


@pytest.mark.parametrize(
    "model",
    [
        "deepseek/deepseek-v4-flash",  # by the hour of the day
        "perplexity/sonar-pro",  # a fee for each search
        "openai/gpt-4o-search-preview",
        "azure_ai/model-router",  # the answer is billed as that of another model
        "text-embedding-3-small",
    ],
)
def test_models_with_fees_beyond_tokens_have_no_price(model):
    assert price_of(model) is None


def test_a_price_is_plain_data():
    price = price_of("gemini/gemini-2.5-pro")
    assert price.longer[0][0] == 200_001
    assert msgspec.json.decode(msgspec.json.encode(price), type=Price) == price


def test_the_longest_answer_of_a_model_is_known():
    assert longest_answer("openai/gpt-4o-mini") == 16_384
    assert longest_answer("local/smollm2") is None


def test_looking_up_a_price_does_not_import_litellm():
    code = "import sys; from runner.cost.pricing import price_of; assert price_of('gpt-4o-mini'); "
    code += "assert 'litellm' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
