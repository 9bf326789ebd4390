"""A run against a server of which three requests in ten fail, in every way there is: every row ends ok, and pays once."""

import pytest

from tests.harness.chaos import BROKEN, MALFORMED, SLOW, ChaosServer, Dice, check, play


def test_the_dice_can_be_thrown_again_and_keeps_its_rate():
    dice, questions = Dice(1, 0.3), [f"question {number}" for number in range(2000)]
    thrown = [dice.throw(question, 1) for question in questions]
    assert (
        thrown
        == [dice.throw(question, 1) for question in questions]
        != [Dice(2, 0.3).throw(question, 1) for question in questions]
    )
    faults = [kind for kind in thrown if kind and kind not in SLOW]
    assert len(faults) / len(questions) == pytest.approx(0.3, abs=0.03)
    assert set(thrown) == {None, *BROKEN, *MALFORMED, *SLOW}


@pytest.mark.parametrize(("transport", "rows", "concurrency", "timeout_s"), [("direct", 240, 64, 2.0), ("litellm", 40, 40, 4.0)])
def test_every_row_ends_ok(tmp_path, transport, rows, concurrency, timeout_s):
    options = {"rows": rows, "transport": transport, "concurrency": concurrency, "timeout_s": timeout_s}
    with ChaosServer(Dice(1, 0.3)) as server:
        check(server, play(server, tmp_path, **options), rows)
        assert set(server.met) > (set(BROKEN) | set(MALFORMED) if rows > 200 else {"500", "hang", "reset"})
        asked = sum(server.requests.values())
        again = play(server, tmp_path, **options)
        assert (again.result.summary.ok, again.result.summary.cache_hits, sum(server.requests.values())) == (rows, rows, asked)
