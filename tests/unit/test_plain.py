"""Columns of Arrow become the values that JSON has, quickly, and the same as by way of JSON."""

import datetime
import decimal
import json
import math
import random

import pyarrow as pa

from runner.data.plain import plain

FLAT = [
    (pa.string(), ["", "a", "é日"]),
    (pa.large_string(), ["", "x" * 50]),
    (pa.int64(), [0, 2**53 + 1]),
    (pa.uint8(), [7]),
    (pa.bool_(), [True, False]),
    (pa.float64(), [1.5, -0.0, math.nan, math.inf, 0.1]),
    (pa.float32(), [1.5, math.nan, 0.1]),
    (pa.timestamp("us", "UTC"), [datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)]),
    (pa.decimal128(10, 2), [decimal.Decimal("1.50")]),
    (pa.binary(), [b"ab"]),
]


def a_kind(dice, depth=0):
    """A random type, and a function that makes values of it, some of them null."""
    pick = dice.random()
    if depth < 3 and pick < 0.3:
        parts = {f"f{number}": a_kind(dice, depth + 1) for number in range(dice.randrange(1, 4))}
        made = {name: make for name, (_, make) in parts.items()}
        return pa.struct([(name, kind) for name, (kind, _) in parts.items()]), sometimes(
            dice, lambda: {name: make() for name, make in made.items()}
        )
    if depth < 3 and pick < 0.6:
        kind, make = a_kind(dice, depth + 1)
        return dice.choice([pa.list_, pa.large_list])(kind), sometimes(dice, lambda: [make() for _ in range(dice.randrange(4))])
    kind, values = dice.choice(FLAT)
    return kind, sometimes(dice, lambda: dice.choice(values))


def sometimes(dice, make):
    often = dice.choice([0.0, 0.2])
    return lambda: None if dice.random() < often else make()


def test_columns_are_as_by_way_of_json():
    import msgspec

    dice = random.Random(1)
    for _ in range(200):
        kind, make = a_kind(dice)
        whole = pa.array([make() for _ in range(dice.randrange(30))], kind)
        for array in (whole, whole.slice(3), whole.slice(2, 5), whole.slice(0, 0)):
            expected = msgspec.json.decode(msgspec.json.encode(array.to_pylist()))
            assert json.dumps(list(plain(array))) == json.dumps(expected), kind
