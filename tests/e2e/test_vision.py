"""Pictures, seen by a model: llama.cpp's server with a projector; then from the cache, and from a capsule, with no server."""

import json
import shutil
from pathlib import Path

import pytest

from tests.support.capsules import contents
from tests.support.command import ostinato
from tests.support.vision import COLOURS, picture, serving, write_projector

pytestmark = [pytest.mark.usefixtures("in_tmp"), pytest.mark.model]


def test_a_model_sees_pictures_and_its_answers_are_replayed_without_it(with_weights):
    pytest.importorskip("gguf", reason="the projector is written with gguf (extra: finetune)")
    weights = next((with_weights / "models" / "smollm2").glob("*.gguf"))
    write_projector(Path("projector.gguf"), weights)
    Path("pictures").mkdir()
    for colour in COLOURS:
        Path(f"pictures/{colour}.png").write_bytes(picture(colour))
    rows = [{"id": colour, "picture": f"pictures/{colour}.png", "colour": colour, "sound": "a.wav"} for colour in COLOURS]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path("a.wav").write_bytes(b"RIFF$\0\0\0WAVEfmt \x10\0\0\0\1\0\1\0@\x1f\0\0\x80>\0\0\2\0\x10\0data\0\0\0\0")
    data = ["data=jsonl", "data.path=rows.jsonl", "data.id=id", "data.target=colour", "scoring=contains", "prompt=default"]
    say = "{text: 'Repeat this word, and nothing else:'}"

    with serving(weights, Path("projector.gguf"), Path("server.log")) as address:
        model = ["model=server", "model.name=eye", f"model.api_base={address}", "sampling.max_tokens=12"]
        asked = [*model, *data, "execution.orchestrator=none"]
        seen = f"prompt.messages=[{{role: user, content: [{say}, {{image: '{{{{ picture }}}}'}}]}}]"
        heard = f"prompt.messages=[{{role: user, content: [{say}, {{audio: '{{{{ sound }}}}'}}]}}]"
        refused = ostinato("run", *asked, heard)
        assert refused.code != 0
        assert "takes text and image" in refused.err
        first = ostinato("run", *asked, seen, "--json")
        assert (first.code, first.json["ok"], first.json["scores"]["contains"]["mean"]) == (0, 3, 1.0), first.err
    folder = Path(first.json["run"])
    assert len(list((folder / "files").glob("*.png"))) == 3

    again = ostinato("run", *asked, seen, "--json")
    assert (again.code, again.json["cache_hits"], again.json["requests"]) == (0, 3, 0), again.err
    packed = ostinato("pack", str(folder), "-o", "eye.ostinato")
    assert packed.code == 0, packed.err
    assert str(weights.parent).encode() not in b"".join(contents(Path("eye.ostinato")).values())  # the server names its file
    shutil.rmtree("pictures")
    replayed = ostinato("reproduce", "eye.ostinato", "--json")
    assert replayed.code == 0, replayed.err
