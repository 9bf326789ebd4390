"""Rows are conversations: lists of messages, whole conversations of a column, and images, sounds and files by column."""

import base64
import json
from pathlib import Path

import pytest

import runner
from runner.attachments import store
from runner.config.load import load
from runner.config.schema.finetuning import TrainingData
from runner.errors import ConfigError, DataError
from runner.experiment.prepared import prepare
from runner.experiment.prompts import refuse_by_server
from runner.experiment.training import read_rows
from runner.lm.takes import untaken
from tests.support.command import ostinato
from tests.support.loopback import Loopback, Script, response
from tests.support.server import Reply, Server
from tests.support.shop import PNG, REFERENCE, TEXT

pytestmark = pytest.mark.usefixtures("in_tmp")

PDF, WAV = b"%PDF-1.7\n%%EOF\n", b"RIFF\x24\0\0\0WAVEfmt "
URL = f"data:image/png;base64,{TEXT}"
ASKED = {"role": "user", "content": "hi"}
SHOWN = {"messages": [{"role": "user", "content": [{"text": "{{ question }}"}, {"image": "{{ picture }}"}]}]}


def prepared(prompt, *rows, model=None):
    """The experiment of a prompt on rows of a file."""
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {"kind": "jsonl", "path": "rows.jsonl"}
    return prepare(load({"model": model or {"kind": "fake"}, "scoring": {"kind": "none"}, "data": data, "prompt": prompt}))


def messages_of(prompt, *rows):
    parts = prepared(prompt, *rows).parts()
    return [parts.adapter.format(row).messages for row in parts.dataset]


def test_messages_are_templates():
    prompt = {
        "messages": [{"role": "system", "content": "Be brief."}, ASKED, {"role": "assistant", "content": "{{ a }}?"}, ASKED]
    }
    (made,) = messages_of(prompt, {"a": 1})
    assert [message["content"] for message in made] == ["Be brief.", "hi", "1?", "hi"]


CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
CONVERSATION = [
    ASKED,
    {"role": "assistant", "content": None, "tool_calls": [CALL], "name": None},
    {"role": "tool", "tool_call_id": "c1", "content": "3"},
]


@pytest.mark.parametrize("text", [False, True])
def test_a_column_holds_the_conversation(text):
    (made,) = messages_of({"messages": "{{ m }}"}, {"m": json.dumps(CONVERSATION) if text else CONVERSATION})
    assert made == [ASKED, {"role": "assistant", "content": None, "tool_calls": [CALL]}, CONVERSATION[2]]


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ([], "it is [], and not a list of messages"),
        ("hello", "it is text, and not the JSON of a list"),
        ([{"from": "human", "value": "x"}], "message 1: it has from and value (ShareGPT)"),
        ([{"role": "bot", "content": "x"}], "message 1: unknown role 'bot'"),
        ([ASKED, {"role": "assistant", "content": "x"}], "the last message has the role assistant"),
        ([{"role": "user", "content": None}], "message 1: its content is null"),
        ([{"role": "user", "contents": "x"}], "message 1: unknown key 'contents'; did you mean 'content'?"),
        (
            [{"role": "user", "content": [{"type": "image"}]}],
            "message 1: part 1: unknown type 'image'; did you mean 'image_url'?",
        ),
        ([{"role": "tool", "tool_call_id": "c9", "content": "x"}], "message 1: it answers the tool call 'c9'"),
        (
            [ASKED, {"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": {}}}]}, ASKED],
            "are not text",
        ),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "no.png"}}]}], "no.png: No such file"),
    ],
)
def test_a_malformed_conversation_is_refused_where_it_stands(value, told):
    with pytest.raises(DataError) as refused:
        prepared({"messages": "{{ m }}"}, {"m": [ASKED]}, {"m": value}).parts()
    assert str(refused.value).startswith("rows.jsonl, line 2: row ")
    assert told in str(refused.value)


@pytest.mark.parametrize(
    ("prompt", "told"),
    [
        ({**SHOWN, "user": "x"}, "messages and user are both given"),
        ({**SHOWN, "system": "x"}, "messages and system are both given"),
        ({"messages": []}, "messages is empty"),
        ({"messages": "hello"}, "name the column"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "the last message is the user's"),
        (
            {"messages": [{"role": "user", "content": [{"text": "x", "image": "y"}]}]},
            "a part is one of text, image, audio and file",
        ),
        ({"messages": [{"role": "user", "content": [{"picture": "y"}]}]}, "unknown key"),
    ],
)
def test_a_prompt_that_says_two_things_is_refused(prompt, told):
    with pytest.raises(ConfigError, match="prompt") as refused:
        load({"prompt": prompt})
    assert told in str(refused.value)


@pytest.mark.parametrize(
    "picture", ["a.png", URL, TEXT, {"bytes": TEXT, "path": None}, {"bytes": None, "path": "a.png"}, ["a.png"]]
)
def test_an_image_is_known_by_its_bytes(picture):
    Path("a.png").write_bytes(PNG)
    (made,) = messages_of(SHOWN, {"question": "What?", "picture": picture})
    assert made[0]["content"] == [{"type": "text", "text": "What?"}, {"type": "image_url", "image_url": {"url": REFERENCE}}]


def test_an_image_of_a_parquet_file_is_its_bytes():
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    pictures = [PNG, {"bytes": PNG, "path": "a.png"}]
    for picture in pictures:  # a column of bytes, and the struct that Hugging Face's datasets write
        parquet.write_table(pyarrow.table({"question": ["What?"], "picture": [picture]}), "rows.parquet")
        data = {"kind": "parquet", "path": "rows.parquet"}
        config = load({"model": {"kind": "fake"}, "scoring": {"kind": "none"}, "data": data, "prompt": SHOWN})
        parts = prepare(config).parts()
        (made,) = [parts.adapter.format(row).messages for row in parts.dataset]
        assert made[0]["content"][1]["image_url"]["url"] == REFERENCE


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("gone.png", None, "gone.png: No such file or directory"),
        ("a.tif", b"II*\0data", "'a.tif' is TIFF; an image has to be PNG, JPG, GIF, WEBP"),
        ("a.png", b"", "'a.png' is empty"),
        ("a.png", PDF, "'a.png' is PDF; an image has to be PNG"),
        ("data:image/png;base64,%%", None, "is not a data: URL with base64"),
        (7, None, "'7' is not an image: give a path, a URL or bytes"),
    ],
)
def test_what_is_no_image_is_refused_before_anything_is_sent(name, content, told):
    if content is not None:
        Path(name).write_bytes(content)
    with pytest.raises(DataError) as refused:
        prepared(SHOWN, {"question": "?", "picture": URL}, {"question": "?", "picture": name}).parts()
    assert str(refused.value).startswith("rows.jsonl, line 2: row ")
    assert told in str(refused.value)


def test_a_local_file_has_a_largest_size():
    Path("a.png").write_bytes(PNG)
    with Path("a.png").open("r+b") as file:
        file.truncate(store.MAX_BYTES + 1)
    with pytest.raises(DataError, match=r"a\.png has more than 64 MB"):
        prepared(SHOWN, {"question": "?", "picture": "a.png"}).parts()


@pytest.mark.parametrize(
    ("model", "kind", "role", "told"),
    [
        ("openai/gpt-4o", "image", "user", None),
        ("openai/gpt-3.5-turbo", "image", "user", "takes no images (litellm's map of models: no supports_vision)"),
        ("anthropic/claude-sonnet-4-5", "image", "user", None),
        (
            "anthropic/claude-sonnet-4-5",
            "image",
            "system",
            "images in system messages would be dropped in silence (litellm 1.110.2)",
        ),
        ("anthropic/claude-sonnet-4-5", "audio", "user", "sounds would be dropped in silence"),
        ("anthropic/claude-sonnet-4-5", "file", "user", None),
        ("gemini/gemini-2.5-flash", "audio", "user", None),
        ("somebody/new", "audio", "user", "is not in litellm's map of models"),
        ("openai/mine", "audio", "user", None),
    ],
)
def test_a_part_that_a_model_does_not_take_is_refused(model, kind, role, told):
    found = untaken(model, "chat", None, kind, role)
    assert found is None if told is None else told in found


def test_a_model_without_eyes_is_refused_with_the_line():
    with pytest.raises(ConfigError, match=r"rows.jsonl, line 2: openai/gpt-3.5-turbo takes no images"):
        prepared(
            SHOWN,
            {"question": "?", "picture": []},
            {"question": "?", "picture": URL},
            model={"kind": "litellm", "name": "openai/gpt-3.5-turbo"},
        ).parts()


@pytest.mark.parametrize(("modalities", "refused"), [({"vision": False}, True), ({"vision": True}, False), (None, False)])
def test_llama_cpp_says_what_it_takes(modalities, refused):
    with Server() as server:
        server.told["/props"] = {"modalities": modalities} if modalities else {}
        parts = prepared(SHOWN, {"question": "?", "picture": URL}, model={"kind": "server", "api_base": server.url}).parts()
        if refused:
            with pytest.raises(ConfigError, match=r"takes text \(its /props\), and the prompt attaches image"):
                refuse_by_server(parts)
        else:
            refuse_by_server(parts)
        assert server.count == 0


class Pictures(Loopback):
    """Serves one picture, and counts."""

    served = 0

    async def route(self, request):
        self.served += 1
        found = request.path == "/a.png"
        return Script((response(PNG if found else b"", 200 if found else 404, Content_Type="image/png"),))


def test_a_url_is_fetched_once_and_sent_as_bytes():
    with Server() as server, Pictures() as pictures:
        rows = [{"id": n, "picture": f"{pictures.address}/{name}.png", "question": n} for n, name in enumerate("aab")]
        Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        run = runner.run(
            overrides=[
                "prompt=default",
                "model=server",
                f"model.api_base={server.url}",
                "data=jsonl",
                "data.path=rows.jsonl",
                "data.id=id",
                "scoring=none",
                "execution.orchestrator=none",
                "prompt.messages=[{role: user, content: [{image: '{{ picture }}'}, {text: '{{ question }}'}]}]",
            ]
        )
        assert (run.summary.ok, run.summary.errors, server.count) == (2, 1, 2)
        assert [call.body["messages"][0]["content"][0]["image_url"]["url"] for call in server.calls] == [URL, URL]
        failed = [sample for sample in runner.load(run.folder).samples() if sample.error]
        assert [(sample.id, sample.error.code) for sample in failed] == [("2", "data")]
        assert "404" in failed[0].error.message
        assert TEXT not in (run.folder / "samples.jsonl").read_text()
        assert pictures.served <= 4
        assert [file.name for file in (run.folder / "files").glob("*.png")] == [REFERENCE.partition(":")[2]]
    for form in ("openai-batch", "openai-finetuning"):
        done = ostinato("export", str(run.folder), "--to", form)
        assert (done.code, "has attachments" in done.err) == (2, True)


@pytest.mark.parametrize(("model_type", "path"), [("chat", "chat/completions"), ("responses", "responses")])
def test_every_part_is_sent_in_the_form_of_its_wire(model_type, path):
    Path("a.pdf").write_bytes(PDF)
    Path("a.wav").write_bytes(WAV)
    kinds = ["image: p.png", "file: a.pdf", "audio: a.wav"]
    Path("p.png").write_bytes(PNG)
    sent = [kind for kind in kinds if model_type == "chat" or "audio" not in kind]
    parts = ", ".join(f"{{{kind}}}" for kind in sent)
    with Server(Reply("seen")) as server:
        done = ostinato(
            *(
                "run",
                "model=server",
                f"model.api_base={server.url}",
                f"model.model_type={model_type}",
                "execution.orchestrator=none",
            ),
            *("prompt=default", "scoring=none", "data=inline", "+data.rows=[{a: 1}]"),
            f"prompt.messages=[{{role: user, content: [{{text: look}}, {parts}]}}]",
        )
        assert (done.code, server.count) == (0, 1), done.err
        body = json.dumps(server.last.body)
    assert server.last.path == f"/v1/{path}"
    assert "sha256:" not in body
    assert URL in body
    assert f"data:application/pdf;base64,{base64.b64encode(PDF).decode()}" in body
    assert '"filename": "a.pdf"' in body
    if model_type == "chat":
        sounds = [part.get("input_audio") for part in server.last.body["messages"][0]["content"]]
        assert {"data": base64.b64encode(WAV).decode(), "format": "wav"} in sounds
    else:
        assert {part["type"] for part in server.last.body["input"][0]["content"]} == {"input_text", "input_image", "input_file"}


def test_a_run_with_images_is_not_learned_from():
    with Server() as server:
        rows = ({"question": "?", "picture": URL},)
        Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        config = {"model": {"kind": "server", "api_base": server.url}, "data": {"kind": "jsonl", "path": "rows.jsonl"}}
        config |= {"prompt": SHOWN, "scoring": {"kind": "none"}, "execution": {"orchestrator": "none"}}
        run = runner.run(load(config))
        assert (run.summary.ok, server.count) == (1, 1)
    told = r"sample '.*': it has images, sounds or files, which are not learned from; leave it out by finetune.data.where"
    with pytest.raises(DataError, match=told):
        read_rows(TrainingData(from_run=str(run.folder)), Path("runs"))
