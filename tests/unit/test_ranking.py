"""The ranks of a sweep's cells: common rows, partial cells, twins."""

import pytest

from runner.analysis.ranking import Entrant, rank
from runner.analysis.same import Asked
from runner.records.folder import Mark


def entrant(name, signs, *, start=0, data="d", key=None):
    """A cell from a text: 1 right, 0 wrong, x without a score."""
    marks = [
        Mark(id=f"r{n}", scores={} if sign == "x" else {"hit": float(sign)}, request_key=f"{key or name} {n}")
        for n, sign in enumerate(signs, start)
    ]
    values = [mark.scores["hit"] for mark in marks if mark.scores]
    mean = sum(values) / len(values) if values else None
    return Entrant(name, mean, len(signs), len(values), len(values) >= 0.9 * len(signs), data, Asked(), lambda: marks)


A, B, EASY = "1" * 12 + "0" * 8, "1" * 8 + "0" * 12, "1" * 11 + "0" * 7 + "xx"


@pytest.mark.parametrize(
    ("cells", "lower", "order", "words", "rows"),
    [
        ({"a": B, "b": A}, False, "ba", ["best", "tied"], None),
        ({"a": A, "b": B}, True, "ba", ["best", "tied"], None),
        ({"a": "1" * 20, "b": "0" * 20}, False, "ab", ["best", None], None),
        ({"a": A, "b": A}, False, "ab", ["best", "tied"], None),  # equal cells keep their order
        ({"a": EASY, "b": A}, False, "ba", ["best", "tied"], 18),  # 11 of 18 is more than 12 of 20, and less than 12 of 18
        ({"a": "1" + "x" * 19, "b": B}, False, "ba", ["best", "partial"], None),
        ({"a": "1" + "x" * 19, "b": "x" * 20, "c": "0" * 9 + "x" * 11}, False, "acb", ["partial", "partial", None], None),
        ({"a": "x" * 20}, False, "a", [None], None),
        ({}, False, "", [], None),
    ],
)
def test_cells_are_ranked_on_common_rows(cells, lower, order, words, rows):
    found = rank([entrant(name, signs) for name, signs in cells.items()], "hit", lower_is_better=lower)
    assert ("".join(found), [standing.word for standing in found.values()]) == (order, words)
    assert {standing.rows for standing in found.values() if standing.rank} <= {rows}
    places = [standing.rank for standing in found.values() if standing.rank]
    assert places == list(range(1, len(places) + 1))


def test_cells_with_other_data_are_ranked_on_their_own_rows():
    found = rank([entrant("a", B, data="one"), entrant("b", A, start=100, data="two")], "hit", lower_is_better=False)
    assert [(standing.rank, standing.rows, standing.tied) for standing in found.values()] == [(1, None, None), (2, None, None)]
    fewer = rank([entrant("a", B, data="one"), entrant("b", A[:15], data="two")], "hit", lower_is_better=False)
    assert {standing.rows for standing in fewer.values()} == {15}


def test_twins_are_found_with_what_they_share():
    found = rank(
        [entrant("a", A), entrant("b", A, key="a"), entrant("c", B[:5], key="a"), entrant("d", B)], "hit", lower_is_better=False
    )
    assert {name: (standing.same_as, standing.same) for name, standing in found.items()} == {
        "a": (None, 0), "b": ("a", 20), "c": ("a", 5), "d": (None, 0),
    }  # fmt: skip


def test_cells_of_different_judges_are_ranked_apart_and_none_is_the_best_of_all():
    cells = {
        "a": (B, "strict"),
        "b": ("1" * 20, "mild"),
        "c": (A, "strict"),
        "d": ("0" * 20, "mild"),
        "e": ("1" + "x" * 19, "mild"),
    }
    found = rank(
        [entrant(name, signs)._replace(judge=judge) for name, (signs, judge) in cells.items()], "hit", lower_is_better=False
    )
    assert [(name, one.judge, one.rank, one.word, one.is_best) for name, one in found.items()] == [
        ("c", 1, 1, "best", False), ("a", 1, 2, "tied", False), ("b", 2, 1, "best", False), ("d", 2, 2, None, False),
        ("e", None, None, "partial", False),
    ]  # fmt: skip
