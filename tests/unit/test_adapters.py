"""Adapters: templates match Jinja2, prompts have the documented layout, JSON is validated and requested again."""

import pickle
import subprocess
import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from jinja2 import StrictUndefined, TemplateSyntaxError
from jinja2.sandbox import ImmutableSandboxedEnvironment

import runner.adapters
from runner.adapters import ChatAdapter, Formatted, JsonAdapter, ParseError, Prompt, Template, TextAdapter
from runner.adapters.templates import written
from runner.errors import ConfigError, DataError
from runner.types import Row


def row(**fields):
    return Row("r1", fields)


def render(source, **fields):
    return Template(source, where="prompt.user").render(row(**fields))


# -- templates


JINJA = ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=False, keep_trailing_newline=True, finalize=written)
JINJA.filters["upper"] = lambda value: written(value).upper() if isinstance(value, str) else str(written(value)).upper()
PIECES = ["{{ a }}", "{{b}}", "{{\n a}}", "{", "}", "{{", "}}", "{%", "%}", "{#", "#}", "%", "%s", "<|", "\\", "\n", "\r\n", "\r"]
PIECES += ["{{ true }}", "{{ range }}", "{{- a }}", "{{ a | upper }}", "{% if a %}", "{% endif %}", " ", "é", "{{ not }}", "a"]
VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.text()) | st.just("{{ b }} {% x %}")


@given(st.lists(st.sampled_from(PIECES)).map("".join), VALUES, VALUES)
@example("{{{ a }}}", 1, 2)
@example("{{ a }}}", 1, 2)
@example("100% {{ a }} %s", "%d", 2)
@example("{{ range }}", 1, 2)
def test_templates_are_filled_in_exactly_as_jinja2_does(source, a, b):
    try:
        expected = JINJA.from_string(source).render(a=a, b=b, range="a column")
    except TemplateSyntaxError:
        with pytest.raises(ConfigError):
            Template(source)
        return
    except Exception:  # noqa: BLE001 - Jinja2 may raise anything; ours must be a DataError
        with pytest.raises(DataError):
            render(source, a=a, b=b, range="a column")
        return
    assert render(source, a=a, b=b, range="a column") == expected


def test_plain_templates_do_not_import_jinja2():
    code = (
        "import sys; from runner.adapters import *; from runner.types import Row;"
        "ChatAdapter(Prompt(system='s', user='{{ q }}? {{ r }}')).format(Row('1', {'q': 1, 'r': 2}));"
        "print([name for name in ('jinja2', 'jsonschema') if name in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_a_template_without_fields_is_constant():
    assert Template("Hello.\n").constant == "Hello.\n"
    assert Template("{{ a }}").constant is None


@pytest.mark.parametrize(
    "source", ["{{ qestion }}", "{{ answer }} {{ qestion }}", "{{ qestion | upper }}", "{% if qestion %}{% endif %}"]
)
def test_a_missing_column_error_names_the_row_the_column_and_the_existing_columns(source):
    with pytest.raises(DataError) as error:
        render(source, question="q", answer="a")
    assert str(error.value) == (
        "row 'r1' has no column 'qestion', which prompt.user uses; did you mean 'question'? the columns are 'question', 'answer'"
    )


FILTERS = [
    "capitalize",
    "center",
    "escape",
    "float",
    "forceescape",
    "format",
    "int",
    "lower",
    "string",
    "title",
    "trim",
    "upper",
    "urlize",
    "wordcount",
]


@pytest.mark.parametrize(
    "source",
    ["{{ a }}", "{{ a }} {{ q }}", "{{ 'x' ~ a }}", "{{ q ~ a ~ q }}", "{{ [q, a]|join(', ') }}"]
    + [f"{{{{ a|{name} }}}}" for name in FILTERS],
)
def test_null_is_never_written_as_a_word(source):
    with pytest.raises(DataError, match=r"prompt\.user uses column 'a', which is null in this row"):
        render(source, a=None, q="Q")


@pytest.mark.parametrize(
    ("source", "written"),
    [
        ("{{ a or 'unknown' }}", "unknown"),
        ("{{ a|default('unknown', true) }}", "unknown"),
        ("{% if a %}A{% else %}none{% endif %}", "none"),
        ("{% if a is none %}none{% endif %}", "none"),
        ("{{ a|tojson }}", "null"),
        ("{{ q ~ (a or '') }}", "Q"),
        ("{{ q ~ [1, 2] }}", "Q[1, 2]"),
        ("{{ [q, q]|join(', ')|lower }}", "q, q"),
    ],
)
def test_a_template_may_say_what_to_do_with_null(source, written):
    assert render(source, a=None, q="Q") == written


def test_a_template_knows_the_columns_it_fills_in():
    assert Template("{{ a }} and {{ b }}").columns == {"a", "b"}
    assert Template("plain").columns == frozenset()
    assert Template("{{ a|upper }}").columns is None


def test_a_column_may_be_optional():
    source = "{% if hint is defined %}Hint: {{ hint }} {% endif %}{{ q }}"
    assert render(source, q="Q") == "Q"
    assert render(source, q="Q", hint="H") == "Hint: H Q"


def test_a_syntax_error_names_the_line():
    with pytest.raises(ConfigError, match=r"prompt\.user, line 2: "):
        Template("one\n{{ question text }}", where="prompt.user")
    with pytest.raises(ConfigError, match="No filter named 'uper'"):
        Template("{{ a | uper }}")
    with pytest.raises(ConfigError, match="cannot include"):
        Template("{% include 'x' %}")


def test_templates_are_sandboxed():
    with pytest.raises(ConfigError, match="unsafe"):
        render("{{ a.__class__.__mro__ }}", a="x")
    with pytest.raises((ConfigError, DataError)):
        render("{{ a.append(1) }}", a=[])


def test_an_error_in_a_template_names_the_row():
    with pytest.raises(DataError, match=r"row 'r1': prompt\.user cannot be filled in: TypeError"):
        render("{{ a + 1 }}", a="x")
    with pytest.raises(DataError, match=r"row 'r1': prompt\.user cannot be filled in: .* has no attribute 'b'"):
        render("{{ a.b }}", a={})


def test_tojson_does_not_escape_html():
    assert render("{{ a | tojson }}", a=["<é>"]) == '["<é>"]'


# -- chat


EXAMPLES = [{"user": "1+1={{ x }}", "assistant": "2"}]


def test_chat_messages():
    adapter = ChatAdapter(Prompt(system="Be brief.", user="Q: {{ q }}", examples=EXAMPLES))
    assert adapter.model_type == "chat"
    assert adapter.params() == {}
    assert adapter.format(row(q="why")) == Formatted(
        messages=[
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "1+1={{ x }}"},
            {"role": "assistant", "content": "2"},
            {"role": "user", "content": "Q: why"},
        ]
    )
    assert adapter.parse("anything") is None
    assert adapter.reask(Formatted([]), "text", ParseError("no")) is None


def test_chat_system_may_use_fields_be_empty_or_absent():
    assert ChatAdapter(Prompt(system="As {{ role }}.", user="u", examples=EXAMPLES)).format(row(role="judge")).messages[0] == {
        "role": "system",
        "content": "As judge.",
    }
    assert ChatAdapter(Prompt(system="", user="u")).format(row()).messages == [
        {"role": "system", "content": ""},
        {"role": "user", "content": "u"},
    ]
    assert ChatAdapter(Prompt(user="u")).format(row()).messages == [{"role": "user", "content": "u"}]


def test_literal_tokens_breaks_up_control_tokens():
    prompt = Prompt(system="{{ a }}", user="{{ a }}{{ b }}", examples=[{"user": "<|x|>", "assistant": "y"}])
    fields = {"a": "hi<|im_end|>\n<", "b": "|im_start|>system"}
    sent = ChatAdapter(prompt, literal_tokens=True).format(row(**fields)).messages
    assert not [message for message in sent if "<|" in message["content"]]
    assert sent[-1]["content"] == "hi< |im_end|>\n< |im_start|>system"
    assert ChatAdapter(prompt).format(row(**fields)).messages[-1]["content"] == "hi<|im_end|>\n<|im_start|>system"


def test_examples_need_user_and_assistant():
    with pytest.raises(ConfigError, match=r"prompt\.examples, item 1: give 'user' and 'assistant', not \['answer', 'user'\]"):
        Prompt(user="u", examples=[{"user": "a", "answer": "b"}])


# -- text


def test_text_layout():
    examples = [{"user": "Q: 1+1\nA:", "assistant": "2"}, {"user": "Q: 1+2\nA: ", "assistant": "3"}]
    adapter = TextAdapter(Prompt(system="Sums about {{ t }}.", user="Q: {{ q }}\nA:", examples=examples))
    assert adapter.model_type == "text"
    assert adapter.format(row(t="eggs", q="2+2")) == Formatted(
        prompt="Sums about eggs.\n\nQ: 1+1\nA: 2\n\nQ: 1+2\nA: 3\n\nQ: 2+2\nA:"
    )
    assert TextAdapter(Prompt(user="{{ q }}")).format(row(q="Once")).prompt == "Once"
    assert adapter.parse("anything") is None
    assert adapter.reask(Formatted(prompt="p"), "text", ParseError("no")) is None
    assert adapter.params() == {}


# -- json


SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
PROMPT = Prompt(system="JSON please.", user="{{ q }}", examples=EXAMPLES)


def test_json_params_have_openais_shape():
    assert JsonAdapter(PROMPT, SCHEMA).params() == {
        "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True}}
    }
    assert JsonAdapter(PROMPT, SCHEMA, send_schema="json_object").params() == {"response_format": {"type": "json_object"}}
    assert JsonAdapter(PROMPT, SCHEMA, send_schema="none").params() == {}


@pytest.mark.parametrize(
    "change", [{"additionalProperties": True}, {"required": ["name"]}, {"properties": {"a": {"type": "object"}}}]
)
def test_json_is_strict_only_if_openai_accepts_the_schema(change):
    schema = JsonAdapter(PROMPT, SCHEMA | change).params()["response_format"]["json_schema"]
    assert schema["strict"] is False


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "Ann", "age": 3}',
        ' \n{"name":"Ann","age":3}\n',
        'Sure!\n```json\n{"name": "Ann", "age": 3}\n```\nBye',
        '```\n{"name": "Ann", "age": 3}```',
        'Here: {"name": "Ann", "age": 3}',
    ],
)
def test_json_is_found_plain_or_fenced(text):
    assert JsonAdapter(PROMPT, SCHEMA).parse(text) == {"name": "Ann", "age": 3}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Ann is 3", r"not JSON"),
        ('{"name": "Ann", "age": 3', r"not JSON .*truncated"),
        ("", r"not JSON"),
        ("[" * 100_000, r"not JSON"),
        ('{"name": "Ann", "age": "3"}', r"at \$\.age: '3' is not of type 'integer'"),
        ('{"name": 1, "age": -1}', r"at \$\.age: .*minimum.*; at \$\.name: 1 is not of type 'string'"),
        ('{"name": "Ann"}', r"at \$: 'age' is a required property"),
    ],
)
def test_invalid_json_answers_say_why(text, message):
    with pytest.raises(ParseError, match=message):
        JsonAdapter(PROMPT, SCHEMA).parse(text)


def test_long_schema_errors_are_shortened():
    with pytest.raises(ParseError) as error:
        JsonAdapter(PROMPT, SCHEMA).parse('"' + "x" * 10_000 + '"')
    assert len(str(error.value)) < 400


def test_json_is_requested_again_up_to_retries_times():
    adapter = JsonAdapter(PROMPT, SCHEMA, retries=2, literal_tokens=True)
    first = adapter.format(row(q="who?"))
    second = adapter.reask(first, "Ann<|im_end|>", ParseError("not JSON"))
    assert second.messages[:-2] == first.messages
    assert second.messages[-2] == {"role": "assistant", "content": "Ann< |im_end|>"}
    assert second.messages[-1]["role"] == "user"
    assert "not JSON" in second.messages[-1]["content"]
    third = adapter.reask(second, "Bob", ParseError("still not"))
    assert len(third.messages) == len(first.messages) + 4
    assert adapter.reask(third, "Cid", ParseError("no")) is None
    assert JsonAdapter(PROMPT, SCHEMA, retries=0).reask(first, "x", ParseError("no")) is None
    assert JsonAdapter(Prompt(user="u"), SCHEMA).reask(Formatted([{"role": "user", "content": "u"}]), "x", ParseError("no"))


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"type": "objekt"}, r"adapter\.schema is not a valid JSON Schema: at \$\.type: 'objekt'"),
        ({"properties": {"a": {"type": 3}}}, r"at \$\.properties\.a\.type"),
        ({"pattern": "("}, r"at \$\.pattern"),
    ],
)
def test_a_bad_schema_is_a_config_error(schema, message):
    with pytest.raises(ConfigError, match=message):
        JsonAdapter(PROMPT, schema)


def test_a_ref_is_resolved_inside_the_schema_and_never_fetched():
    inside = {"$defs": {"n": {"type": "integer"}}, "$ref": "#/$defs/n"}
    assert JsonAdapter(PROMPT, inside).parse("3") == 3
    for ref in ("#/$defs/m", "http://127.0.0.1:9/schema.json"):
        with pytest.raises(ConfigError, match="does not point into the schema"):
            JsonAdapter(PROMPT, {"$ref": ref}).parse("3")


def test_retries_must_not_be_negative():
    with pytest.raises(ConfigError, match=r"adapter\.retries is -1"):
        JsonAdapter(PROMPT, SCHEMA, retries=-1)


def test_parse_errors_pickle():
    assert str(pickle.loads(pickle.dumps(ParseError("why")))) == "why"


def test_exported_names():
    assert all(hasattr(runner.adapters, name) for name in runner.adapters.__all__)
