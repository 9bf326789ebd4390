"""Whatever bytes a capsule has: it plays, or is refused with a reason. Nothing else ever comes out."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.errors import RecordError
from runner.reproduction.replay import replay
from tests.fuzz.depth import examples
from tests.fuzz.values import json_values
from tests.support.capsules import contents, made, packed, sealed, unsealed

_made: list[bytes] = []


@pytest.fixture
def good(tmp_path, in_tmp):
    if not _made:
        _made.append(packed(tmp_path).read_bytes())
    file = tmp_path / "good.ostinato"
    file.write_bytes(_made[0])
    return file


def outcome(file, raw):
    """What comes of these bytes: None for a capsule that is refused, else how its replay went."""
    bad = file.with_name("bad.ostinato")
    bad.write_bytes(raw)
    try:
        return replay(bad, trust_code=False)
    except RecordError as error:
        refused = str(error)
    assert refused.startswith(f"{bad} is refused: ")
    assert refused.isprintable()
    return None


@examples(60)
@given(at=st.integers(0), flip=st.integers(1, 255))
def test_any_changed_byte_is_refused(good, at, flip):
    raw = bytearray(good.read_bytes())
    raw[at % len(raw)] ^= flip
    assert outcome(good, bytes(raw)) is None


@examples(60)
@given(at=st.integers(0), flip=st.integers(1, 255), cut=st.integers(0, 3))
def test_changed_bytes_with_a_right_digest_are_refused_or_harmless(good, at, flip, cut):
    """Refused, or harmless: a byte of the zip that says nothing about what is in it."""
    raw = bytearray(unsealed(good.read_bytes())[:-2])
    at %= len(raw)
    raw[at] ^= flip
    del raw[at + 1 : at + 1 + cut]
    found = outcome(good, sealed(bytes(raw) + b"\0\0"))
    if found is not None:
        assert found.identical
        assert (found.outputs, found.scores) == (4, 4)


@examples(120)
@given(data=st.data())
def test_any_contents_with_right_digests_are_refused_or_replayed(good, data):
    members = contents(good)
    name = data.draw(st.sampled_from(sorted(members)))
    content = bytearray(members[name])
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(content)))
        match data.draw(st.sampled_from(["flip", "cut", "add", "repeat"])):
            case "flip" if at < len(content):
                content[at] ^= data.draw(st.integers(1, 255))
            case "cut":
                del content[at : at + data.draw(st.integers(1, 200))]
            case "add":
                content[at:at] = data.draw(st.binary(max_size=20))
            case _:
                content[at:at] = content[at : at + 300]
    try:
        raw = made({**members, name: bytes(content)})
    except (ValueError, KeyError, TypeError, AttributeError):  # capsule.json itself, of which `made` keeps a part
        return
    outcome(good, raw)


@examples(120)
@given(data=st.data())
def test_any_json_values_are_refused_or_replayed(good, data):
    """A value somewhere is replaced by another one."""
    members = contents(good)
    name = data.draw(st.sampled_from(["manifest.json", "samples.jsonl", "cache.jsonl", "data.jsonl", "capsule.json"]))
    lines = [json.loads(line) for line in (members[name].splitlines() if name.endswith("l") else [members[name]])]
    place = data.draw(st.sampled_from(lines))
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = data.draw(st.sampled_from(keys))
        inner = place[key]
        if not (isinstance(inner, dict | list) and inner) or data.draw(st.booleans()):
            break
        place = inner
    if isinstance(place, dict) and data.draw(st.booleans()):
        del place[key]
    else:
        place[key] = data.draw(json_values() | st.sampled_from(["/etc/passwd", "../x", -1, 1e400, 2**70, "\x1b[2J"]))
    content = "".join(json.dumps(line) + "\n" for line in lines).encode()
    if name == "capsule.json" and not isinstance(lines[0], dict):
        return
    outcome(good, made({**members, name: content}))
