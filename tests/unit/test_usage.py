"""Usage and cost as providers write them, row by row of the tables, and through both transports."""

import itertools

import pytest

from runner.cost.pricing import Price
from runner.transport import usage
from runner.types import Usage

FORMS = {
    "openai": ({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}, Usage(10, 5, 15)),
    "openai reasoning": (
        {
            "prompt_tokens": 10,
            "completion_tokens": 25,
            "total_tokens": 35,
            "completion_tokens_details": {"reasoning_tokens": 20},
        },
        Usage(10, 25, 35, 0, 20),
    ),
    "xai": (
        {
            "prompt_tokens": 10,
            "completion_tokens": 5,
            "total_tokens": 35,
            "completion_tokens_details": {"reasoning_tokens": 20},
        },
        Usage(10, 25, 35, 0, 20),
    ),
    "xai without a total": (
        {"prompt_tokens": 10, "completion_tokens": 5, "completion_tokens_details": {"reasoning_tokens": 20}},
        Usage(10, 25, 35, 0, 20),
    ),
    "gemini": ({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 35}, Usage(10, 25, 35, 0, 20)),
    "openai cached": (
        {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15, "prompt_tokens_details": {"cached_tokens": 8}},
        Usage(10, 5, 15, 8),
    ),
    "responses": (
        {
            "input_tokens": 10,
            "output_tokens": 5,
            "total_tokens": 15,
            "input_tokens_details": {"cached_tokens": 8},
            "output_tokens_details": {"reasoning_tokens": 2},
        },
        Usage(10, 5, 15, 8, 2),
    ),
    "deepseek": (
        {
            "prompt_tokens": 10,
            "completion_tokens": 5,
            "total_tokens": 15,
            "prompt_cache_hit_tokens": 6,
            "prompt_cache_miss_tokens": 4,
        },
        Usage(10, 5, 15, 6),
    ),
    "anthropic": (
        {"input_tokens": 10, "output_tokens": 5, "cache_read_input_tokens": 100, "cache_creation_input_tokens": 20},
        Usage(130, 5, 135, 100, 0, 20),
    ),
    "anthropic, small read": (
        {"input_tokens": 100, "output_tokens": 5, "cache_read_input_tokens": 10},
        Usage(110, 5, 115, 10),
    ),
    "anthropic's words, a total beside": (
        {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 115, "cache_read_input_tokens": 100},
        Usage(110, 5, 115, 100),
    ),
    "anthropic's words, a total of all": (
        {"prompt_tokens": 110, "completion_tokens": 5, "total_tokens": 115, "cache_read_input_tokens": 100},
        Usage(110, 5, 115, 100),
    ),
    "anthropic's words, a total that forgets them": (
        {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15, "cache_read_input_tokens": 100},
        Usage(110, 5, 115, 100),
    ),
    "litellm of anthropic": (
        {
            "prompt_tokens": 110,
            "completion_tokens": 5,
            "total_tokens": 115,
            "cache_read_input_tokens": 100,
            "prompt_tokens_details": {"cached_tokens": 100},
        },
        Usage(110, 5, 115, 100),
    ),
    "moonshot": ({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15, "cached_tokens": 4}, Usage(10, 5, 15, 4)),
    "sglang": ({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15, "reasoning_tokens": 4}, Usage(10, 5, 15, 0, 4)),
    "fractions": ({"prompt_tokens": 9.2, "completion_tokens": 4.5, "total_tokens": 13.7}, Usage(10, 5, 15)),
    "whole floats": ({"prompt_tokens": 10.0, "completion_tokens": 5.0, "total_tokens": 15.0}, Usage(10, 5, 15)),
    "text": ({"prompt_tokens": "10", "completion_tokens": "5", "total_tokens": "15"}, Usage(10, 5, 15)),
    "nulls": (
        {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": None, "prompt_tokens_details": None},
        Usage(10, 5, 15),
    ),
    "no completion": ({"prompt_tokens": 10, "total_tokens": 15}, Usage(10, 5, 15, 0, 5)),
    "total too small": ({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 3}, Usage(10, 5, 15)),
    "negative parts": (
        {
            "prompt_tokens": 10,
            "completion_tokens": -5,
            "total_tokens": 10,
            "prompt_tokens_details": {"cached_tokens": -3},
            "completion_tokens_details": {"reasoning_tokens": -9},
        },
        Usage(10, 0, 10),
    ),
    "more cached than asked": (
        {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15, "prompt_tokens_details": {"cached_tokens": 90}},
        Usage(100, 5, 105, 90),
    ),
    "zeros": ({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}, None),
    "no prompt": ({"prompt_tokens": 0, "completion_tokens": 9, "total_tokens": 9}, None),
    "negative prompt": ({"prompt_tokens": -7, "completion_tokens": 9, "total_tokens": 2}, None),
    "absurd": ({"prompt_tokens": 2**64, "completion_tokens": 9, "total_tokens": 9}, None),
    "words": ({"prompt_tokens": "many", "completion_tokens": True, "total_tokens": []}, None),
    "nothing": ({}, None),
}
PRICES = (Price(1.0, 2.0), Price(1.0, 2.0, 0.1, 1.25, 3.0), Price(1.0, 2.0, 0.1, 1.25, 0.5))


@pytest.mark.parametrize("form", FORMS)
def test_usage_is_read_as_its_provider_means_it(form):
    given, meant = FORMS[form]
    assert usage.read(given) == meant


@pytest.mark.parametrize("row", usage.COUNTS, ids=lambda row: row.path)
def test_each_row_of_the_table_is_read(row):
    given = {"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150}
    place = given
    *folders, name = row.path.split(".")
    for folder in folders:
        place = place.setdefault(folder, {})
    if row.counts in ("prompt", "completion"):
        del given[f"{row.counts}_tokens"], given["total_tokens"]
        place[name] = 30
    else:
        place[name] = 150 if row.counts == "total" else 30
    found = usage.read(given)
    field = {"cached": "cached_tokens", "writes": "cache_write_tokens"}.get(row.counts, f"{row.counts}_tokens")
    assert getattr(found, field) == place[name]


def test_no_part_is_ever_negative_or_larger_than_its_whole():
    numbers = (-3, 0, 2, 10, 40)
    for prompt, completion, total, cached, writes, reasoning in itertools.product(numbers, repeat=6):
        found = usage.counted(prompt, completion, total, cached=cached, writes=writes, reasoning=reasoning)
        if found is None:
            assert prompt <= 0
            continue
        assert found.prompt_tokens >= found.cached_tokens + found.cache_write_tokens
        assert found.completion_tokens >= found.reasoning_tokens >= 0
        assert min(found.cached_tokens, found.cache_write_tokens) >= 0
        assert found.total_tokens == found.prompt_tokens + found.completion_tokens
        assert all(price.cost(found) > 0 for price in PRICES)


NAMED = {
    "openrouter": ({"cost": 0.25}, {}, (0.25, "openrouter")),
    "openrouter free": ({"cost": 0}, {}, (0.0, "openrouter")),
    "openrouter, own key": (
        {"cost": 0.01, "is_byok": True, "cost_details": {"upstream_inference_cost": 0.2}},
        {},
        (pytest.approx(0.21), "openrouter"),
    ),
    "openrouter, its key": (
        {"cost": 0.21, "is_byok": False, "cost_details": {"upstream_inference_cost": 0.2}},
        {},
        (0.21, "openrouter"),
    ),
    "perplexity": ({"cost": {"input_tokens_cost": 0.1, "total_cost": 0.6}}, {}, (0.6, "perplexity")),
    "xai": ({"cost_in_usd_ticks": 37756000}, {}, (pytest.approx(0.0037756), "xai")),
    "deepinfra": ({"estimated_cost": 1.5e-6}, {}, (1.5e-6, "deepinfra")),
    "litellm's proxy": ({}, {"x-litellm-response-cost": "0.0125"}, (0.0125, "litellm-proxy")),
    "litellm's proxy, no price": ({}, {"x-litellm-response-cost": "0.0"}, None),
    "both": ({"cost": 0.25}, {"x-litellm-response-cost": "0.0125"}, (0.25, "openrouter")),
    "negative": ({"cost": -1}, {}, None),
    "no number": ({"cost": "free", "estimated_cost": None, "cost_in_usd_ticks": True}, {"x-litellm-response-cost": "?"}, None),
    "not finite": ({"cost": float("inf")}, {"x-litellm-response-cost": "nan"}, None),
    "none": ({}, {}, None),
}


@pytest.mark.parametrize("form", NAMED)
def test_a_cost_that_the_answer_names_is_read(form):
    fields, headers, meant = NAMED[form]
    assert usage.named_cost(fields, headers) == meant


def test_every_row_of_the_costs_is_tested():
    vendors = {meant[1] for _, _, meant in NAMED.values() if meant}
    assert vendors == {row.vendor for row in (*usage.COSTS, *usage.COST_HEADERS)}
