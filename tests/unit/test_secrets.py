"""Secrets are recognised by their looks, and remembered ones are never shown."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner import secrets
from runner.errors import ConfigError
from runner.secrets import from_env, is_secret, names_a_secret, redact, remember

KNOWN = [
    "sk-abcdefghijklmnopqrstuvwx",
    "sk-proj-AbCd_1234-efghijklmnop",
    "sk-ant-api03-AbCdEfGhIjKlMnOpQrSt",
    "sk-or-v1-0123456789abcdef0123456789abcdef",
    "AIzaSyA1234567890abcdefghijklmnopqrstuv",
    "hf_AbCdEfGhIjKlMnOpQrStUvWxYz",
    "gsk_AbCdEfGhIjKlMnOpQrStUvWxYz",
    "xai-AbCdEfGhIjKlMnOpQrStUvWxYz",
    "AKIAIOSFODNN7EXAMPLE",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dBjftJeZ4CVP",
]


@pytest.fixture(autouse=True)
def forget(monkeypatch):
    monkeypatch.setattr(secrets, "_seen", set())


@pytest.mark.parametrize("value", KNOWN)
def test_a_value_with_a_known_prefix_is_a_secret_under_any_name(value):
    assert is_secret("model.name", value)
    assert value not in redact(f"Incorrect key: {value}.")


@pytest.mark.parametrize("name", ["api_key", "model.api_key", "x-auth-token", "client_secret", "db_password", "Authorization"])
def test_a_random_value_under_a_sensitive_name_is_a_secret(name):
    assert names_a_secret(name)
    assert is_secret(name, "q8Zx1Lm0Vb7RtYw3")
    assert not is_secret(name, "none")
    assert not is_secret(name, "aaaaaaaaaaaaaaaaaaaa")
    assert not is_secret(name, "a sentence about what it is for")


@pytest.mark.parametrize(
    "name", ["max_tokens", "sampling.max_tokens", "max_completion_tokens", "api_key_env", "limits.tpm", "user"]
)
def test_values_under_other_names_are_not_secrets(name):
    assert not names_a_secret(name)
    assert not is_secret(name, "q8Zx1Lm0Vb7RtYw3")


def test_from_env_reads_and_remembers(monkeypatch):
    monkeypatch.setenv("THEIR_KEY", " correct-horse ")
    assert from_env("THEIR_KEY", where="model.api_key_env") == "correct-horse"
    assert redact("refused: correct-horse") == "refused: ***"


@pytest.mark.parametrize("value", [None, "", "  "])
def test_an_unset_variable_is_named_in_the_error(monkeypatch, value):
    if value is not None:
        monkeypatch.setenv("THEIR_KEY", value)
    with pytest.raises(ConfigError, match=r"model\.api_key_env: .* THEIR_KEY is not set; export THEIR_KEY="):
        from_env("THEIR_KEY", where="model.api_key_env")


def test_of_nested_secrets_the_longest_is_redacted():
    for value in ("password", "password-and-more", "password-and"):
        remember(value)
    assert redact("<password-and-more> <password>") == "<***> <***>"


def test_short_values_are_not_remembered():
    remember("none")
    assert redact("none of it") == "none of it"


def test_authorization_headers_and_user_names_in_urls_are_redacted():
    assert redact("Authorization: Bearer abcdefgh12345") == "Authorization: Bearer ***"
    assert redact("http://me:hunter2@host:80/v1 and https://host/@x") == "http://***@host:80/v1 and https://host/@x"
    assert (
        redact("basıc abcdefgh12345 BASİC abcdefgh12345") == "basıc *** BASİC ***"
    )  # a pattern that looks past case takes both for an i
    assert redact("a task-force of 20 asked politely") == "a task-force of 20 asked politely"


@pytest.mark.parametrize("text", ["Basic dXNlcjox", "a://b@", *KNOWN])
def test_secrets_in_very_short_texts_are_redacted(text):
    assert "***" in redact(text)


@settings(max_examples=300)
@given(
    before=st.text(max_size=20), held=st.from_regex(secrets._KNOWN) | st.from_regex(secrets._BEARER), after=st.text(max_size=20)
)
def test_secrets_are_redacted_whatever_surrounds_them(before, held, after):
    text = f"{before} {held} {after}"
    assert "***" in redact(text)
