"""`data.cluster`: rows with the same value there are one unit, wherever an interval or a test is made of a record."""

import json
from pathlib import Path

import pytest

from runner.analysis.cells import ranked
from runner.analysis.compare import compare
from runner.analysis.load import load
from runner.config.roles import config_hash
from runner.config.schema import RunConfig
from runner.config.schema.data import InlineData
from runner.data import Columns, open_dataset
from runner.errors import DataError
from runner.records import SweepFolder
from runner.schedules.canary import is_worse
from runner.scoring import RowMean, summarise
from runner.stats.ties import tied
from tests.support.command import ostinato
from tests.support.records import OFFLINE, play

pytestmark = pytest.mark.usefixtures("in_tmp")

TOPICS = 6


@pytest.fixture
def rows():
    """Forty-two rows of six topics; the model that always says yes is right on four of them."""
    lines = [
        {"id": f"r{number}", "question": "?", "answer": "yes" if number % TOPICS < 4 else "no", "topic": f"t{number % TOPICS}"}
        for number in range(42)
    ]
    Path("rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return ["data=jsonl", "data.path=rows.jsonl", "data.id=id", "data.target=answer", "prompt=default", "scoring=exact"]


def test_a_run_is_summed_up_by_clusters(rows):
    folder = play(*rows, "data.cluster=topic", "model.reply=yes")
    summary = load(folder).summary
    expected = RowMean()
    for number in range(42):
        expected.add(float(number % TOPICS < 4), 1, f"t{number % TOPICS}")
    assert summary.scores["exact"] == expected.score()
    alone = load(play(*rows, "model.reply=yes")).summary.scores["exact"]
    assert alone == summarise([float(number % TOPICS < 4) for number in range(42)])
    width, plain = (score.interval[1] - score.interval[0] for score in (summary.scores["exact"], alone))
    assert width > 2 * plain
    assert {sample.cluster for sample in load(folder).samples()} == {f"t{number}" for number in range(TOPICS)}


def test_comparisons_ties_and_canaries_take_clusters_from_the_record(rows):
    one, other = (play(*rows, "data.cluster=topic", f"model.reply={reply}") for reply in ("yes", "no"))
    found = compare(one, other)
    assert (found.difference.n, found.difference.units, found.difference.test) == (42, TOPICS, "sign-flip")
    assert found.verdict == "tied"  # six topics are too few to tell
    verdict = is_worse(one, other, 0.95)
    assert (verdict.worse, verdict.interval) == (False, found.difference.ci)
    told = ostinato("compare", str(one), str(other)).out
    assert f"(n=42 rows in {TOPICS} clusters by topic;" in told
    unclustered = compare(*(play(*rows, f"model.reply={reply}") for reply in ("yes", "no")))
    assert (unclustered.difference.units, unclustered.verdict) == (42, "worse")


def test_cells_of_a_sweep_are_tied_by_clusters(rows):
    for more, is_tied in (([], False), (["data.cluster=topic"], True)):
        done = ostinato("run", *OFFLINE, *rows, *more, "-m", "model.reply=yes,no", "--json")
        assert done.code == 0
        assert [row["tied"] for row in ranked(SweepFolder.open(Path(done.json["sweep"])))] == [None, is_tied]


def test_ties_of_rows_in_clusters():
    one = {str(row): 1.0 for row in range(30)}
    other = {str(row): 0.0 for row in range(30)}
    assert tied(one, other) is False
    assert tied(one, other, {str(row): str(row % 4) for row in range(30)}) is True
    assert tied(one, other, {"0": "a", "1": "a"}) is False  # rows without a cluster are units by themselves


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["data.cluster=topics"], "has no column 'topics', which data.cluster names; did you mean 'topic'?"),
        (["data.cluster="], "data.cluster"),
    ],
)
def test_a_wrong_column_is_found_before_anything_is_asked(rows, more, told):
    done = ostinato("run", *OFFLINE, *rows, *more)
    assert (done.code in (1, 2), done.err.count("\n")) == (True, 1)
    assert told in done.err
    assert not Path("runs").exists()


def test_clusters_that_are_not_text_are_compared_as_json_and_none_may_be_empty():
    rows = [{"q": "a", "group": 1}, {"q": "b", "group": [1, "x"]}, {"q": "c", "group": "1"}]
    found = open_dataset("inline", rows=rows, columns=Columns(cluster="group"))
    assert [row.cluster for row in found] == ["1", '[1,"x"]', "1"]
    with pytest.raises(DataError, match=r"the cluster \(group\) is empty"):
        open_dataset("inline", rows=[{"q": "a", "group": None}], columns=Columns(cluster="group"))


def test_configs_without_clusters_keep_their_hash():
    assert config_hash(RunConfig()) != config_hash(RunConfig(data=InlineData(cluster="topic")))
