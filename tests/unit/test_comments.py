"""What the YAML files say about their keys is found by the keys' paths."""

from msgspec.structs import fields

from runner.config.comments import comments, meanings
from runner.config.load import _kind_of, _structs
from runner.config.schema import RunConfig

TEXT = """\
# @package _global_
# yaml-language-server: $schema=schema.json
# The heading,
# in two lines.
defaults:
  - /model@judge: smollm2  # who judges
kind: a   # a | b
price:    # dollars
  prompt: null  # per "million" # of tokens
                # and more
  # above it
  cached: '# not one'
list: [1, {x: 2}]  # flow
items:
  - {a: 1}  # of an item
empty:   # nothing

# stands by itself

last: "a # b"
"""


def test_comments_behind_below_and_above_keys():
    assert comments(TEXT) == {
        "": "The heading, in two lines.",
        "defaults./model@judge": "who judges",
        "judge": "who judges",
        "kind": "a | b",
        "price": "dollars",
        "price.prompt": 'per "million" # of tokens and more',
        "price.cached": "above it",
        "list": "flow",
        "empty": "nothing",
    }
    assert comments("") == comments("- 1\n") == {}


def test_each_field_of_each_kind_is_explained_in_conf():
    missing = []
    for field in fields(RunConfig):
        structs = _structs(field.type)
        said = meanings() if not structs else {}
        missing += [field.name] if not structs and field.name not in said else []
        for struct in structs:
            said = meanings(field.name, _kind_of(struct))
            missing += [f"{field.name}={_kind_of(struct)}.{inner.name}" for inner in fields(struct) if not said.get(inner.name)]
    assert missing == []
