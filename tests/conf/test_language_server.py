"""In an editor, yaml-language-server (npm) completes keys, explains them and underlines mistakes, by the modelines of conf.

Without the server on PATH these tests are skipped, unless ``OSTINATO_TEST_LANGUAGE_SERVER=required``.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from typing import TYPE_CHECKING, Any, Self

import pytest

from runner.system.paths import shipped_conf

if TYPE_CHECKING:
    from pathlib import Path

COMMAND = shutil.which("yaml-language-server")
REQUIRED = os.environ.get("OSTINATO_TEST_LANGUAGE_SERVER") == "required"
SETTINGS = {"schemaStore": {"enable": False}, "validate": True, "hover": True, "completion": True}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(COMMAND is None and not REQUIRED, reason="there is no yaml-language-server on PATH (npm)"),
]


class Editor:
    """A client of the Language Server Protocol over stdio, as a context manager."""

    def __init__(self, folder: Path) -> None:
        assert COMMAND
        self._server = subprocess.Popen([COMMAND, "--stdio"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._requests = 0
        self._found: dict[str, list[dict[str, Any]]] = {}
        able = {"workspace": {"configuration": True}, "textDocument": {"hover": {"contentFormat": ["plaintext", "markdown"]}}}
        self._ask("initialize", {"processId": None, "rootUri": folder.as_uri(), "capabilities": able})
        self._send({"method": "initialized", "params": {}})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.kill()
        self._server.communicate()

    def mistakes(self, file: Path) -> list[tuple[str, str]]:
        """Open a file, and return what is underlined in it, with its message."""
        text = file.read_text("utf-8")
        opened = {"uri": file.as_uri(), "languageId": "yaml", "version": 1, "text": text}
        self._send({"method": "textDocument/didOpen", "params": {"textDocument": opened}})
        while file.as_uri() not in self._found:
            self._receive()
        lines = text.splitlines()
        found = [(one["range"]["start"], one["range"]["end"], one["message"]) for one in self._found[file.as_uri()]]
        return [(lines[start["line"]][start["character"] : end["character"]], said) for start, end, said in found]

    def completions(self, file: Path, after: str) -> list[str]:
        """Return the labels that are offered right behind a text."""
        return [item["label"] for item in self._at("completion", file, after)["items"]]

    def explanation(self, file: Path, after: str) -> str:
        """Return what is shown over the last character of a text."""
        return self._at("hover", file, after, back=1)["contents"]["value"]

    def _at(self, what: str, file: Path, after: str, back: int = 0) -> Any:
        text = file.read_text("utf-8")
        before = text[: text.index(after) + len(after) - back]
        position = {"line": before.count("\n"), "character": len(before) - before.rfind("\n") - 1}
        return self._ask(f"textDocument/{what}", {"textDocument": {"uri": file.as_uri()}, "position": position})

    def _ask(self, method: str, params: dict[str, Any]) -> Any:
        self._requests += 1
        self._send({"id": self._requests, "method": method, "params": params})
        while (message := self._receive()).get("id") != self._requests or "method" in message:
            pass
        assert "error" not in message, message
        return message["result"]

    def _send(self, message: dict[str, Any]) -> None:
        content = json.dumps({"jsonrpc": "2.0", **message}).encode()
        self._server.stdin.write(b"Content-Length: %d\r\n\r\n%b" % (len(content), content))
        self._server.stdin.flush()

    def _receive(self) -> dict[str, Any]:
        length = 0
        while header := self._server.stdout.readline().strip():
            name, _, value = header.partition(b":")
            length = int(value) if name.lower() == b"content-length" else length
        assert length, "the language server has ended"
        message = json.loads(self._server.stdout.read(length))
        params = message.get("params")
        if message.get("method") == "textDocument/publishDiagnostics":
            self._found[params["uri"]] = params["diagnostics"]
        elif "method" in message and "id" in message:
            asked = params["items"] if message["method"] == "workspace/configuration" else []
            answer = [SETTINGS if item.get("section") == "yaml" else {} for item in asked]
            self._send({"id": message["id"], "result": answer or None})
        return message


@pytest.fixture(scope="module")
def conf(tmp_path_factory):
    """A copy of conf, in which files may be added."""
    return shutil.copytree(shipped_conf(), tmp_path_factory.mktemp("project") / "conf")


@pytest.fixture(scope="module")
def editor(conf):
    with Editor(conf.parent) as editor:
        yield editor


def written(file, text):
    file.write_text(text, "utf-8")
    return file


def test_in_an_option_file(editor, conf):
    text = "# yaml-language-server: $schema=schema.json\ndefaults:\n  - openai\nname: x\nsoftware: vllm\nprice: {prompt: dear}\n"
    file = written(conf / "model" / "mine.yaml", text + "transport: \nhea\n")
    underlined = dict(editor.mistakes(file))
    assert underlined["software"] == "Property software is not allowed."
    assert underlined["dear"] == "expected number or null"
    offered = editor.completions(file, "hea")
    assert {"headers", "api_base"} <= set(offered)
    assert not {"software", "backend", "sampling"} & set(offered)
    assert {"auto", "direct", "litellm"} <= set(editor.completions(file, "transport: "))
    assert "what sends the requests" in editor.explanation(file, "transport")


def test_in_an_experiment(editor, conf):
    text = "# @package _global_\n# yaml-language-server: $schema=../schema.json\ndefaults:\n  - override /model: litellm\n"
    text += "name: mine\nmodel:\n  backend: vllm\nsampling:\n  temprature: 0\n  max_tokens: many\ncache: {ttl: 30d}\n"
    file = written(conf / "experiment" / "mine.yaml", text)
    assert dict(editor.mistakes(file)) == {
        "backend": "Property backend is not allowed.",
        "temprature": "Property temprature is not allowed.",
        "many": "expected integer or null",
    }
    assert {"smollm2", "openai", "server"} <= set(editor.completions(file, "override /model: "))
    assert {"seed", "top_p"} <= set(editor.completions(file, "sampling:\n  "))
    assert "seconds until an answer expires" in editor.explanation(file, "ttl")


@pytest.mark.parametrize("name", ["config", "model/litellm", "scoring/all", "finetune/default", "experiment/tickets_finetune"])
def test_nothing_is_underlined_in_a_shipped_file(editor, conf, name):
    assert editor.mistakes(conf / f"{name}.yaml") == []
