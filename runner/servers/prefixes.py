"""Share the beginnings of prompts in front of llama.cpp, so that an answer never depends on what was asked before it.

llama.cpp can reuse what a slot holds of an earlier prompt, but then as much as happens to agree, and the last bits of the logits
depend on where the new part begins. So that is off. A run names its prefix instead (`PATH`): the tokens that the prompts of its
rows have in common. It is evaluated once and saved, and restored in the slot of each request that names it (`FIELD`), so every
request is evaluated from the same token on. The turns of a conversation continue from the prompt of the turn before, which is
saved as well. All else is passed on to llama.cpp as it is.

It runs in llama.cpp's process (see `llamacpp`) and imports nothing of Ostinato. States are kept in memory files, which end with
the process: llama.cpp opens them as ``/proc/self/fd/N``. So this needs Linux.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections import OrderedDict
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

PATH = "/ostinato/prefix"
"""``POST {"requests": [bodies of some requests of a run]}`` returns ``{"id", "tokens"}``: what `FIELD` names, and its length."""

FIELD = "ostinato_prefix"
"""The field of a request's body that names its prefix. llama.cpp does not see it."""

FOLDER = "/proc/self/fd/"
"""The folder of saved slots, as llama.cpp is told."""

FORM = ("tools", "tool_choice", "chat_template_kwargs")
"""Fields of a request that the model's template may put into the prompt, besides the messages."""

_LEAST_TOKENS = 8  # a shorter prefix costs more to restore than to evaluate
_MOST_BYTES = 512 << 20
_MOST_TURNS = 4096
_MOST_HEAD = 64 << 10
_COMPLETIONS = {"/v1/chat/completions", "/chat/completions", "/v1/completions", "/completions", "/completion"}
_HOP = {b"connection", b"content-length", b"expect", b"keep-alive"}

Body = dict[str, Any]


@dataclass(eq=False)
class State:
    """The state that llama.cpp holds after it has evaluated some tokens.

    Attributes:
        name: what tells it from all others.
        tokens: all of them.
        settings: fields of each request that evaluates them (the adapter).
        after: the state that is restored first; None: evaluated from the first token on.
        file: the memory file that holds it; None: not evaluated yet, or dropped.
        size: its bytes.
        users: requests that are about to restore it.
    """

    name: str
    tokens: list[int]
    settings: Body
    after: State | None = None
    file: int | None = None
    size: int = 0
    users: int = 0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass(frozen=True)
class Prefix:
    """The beginning that the prompts of a run have in common: the state (None: too little), and how many whole messages."""

    state: State | None
    messages: int
    settings: Body


class RefusedError(Exception):
    """llama.cpp did not do what it was asked."""


class Front:
    """Answers on a port of its own and passes requests on to llama.cpp.

    Args:
        port: the port on 127.0.0.1 that llama.cpp listens on.
        key: the API key that both require.
        slots: how many requests llama.cpp answers at the same time.
    """

    def __init__(self, port: int, key: str, slots: int) -> None:
        self._port = port
        self._authorization = f"Bearer {key}".encode()
        self._slots: asyncio.Queue[int] = asyncio.Queue()
        for slot in range(slots):
            self._slots.put_nowait(slot)
        self._prefixes: dict[str, Prefix] = {}
        self._turns: OrderedDict[str, State] = OrderedDict()
        self._held: OrderedDict[State, None] = OrderedDict()

    async def start(self, port: int) -> asyncio.Server:
        """Listen on this port of 127.0.0.1 (0: any free one)."""
        return await asyncio.start_server(self._serve, "127.0.0.1", port, limit=_MOST_HEAD, backlog=1024)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the one request of a connection; give it up when the client has gone."""
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            body = await reader.readexactly(_length(head, writer))
            answer = asyncio.ensure_future(self._answer(head, body, writer))
            gone = asyncio.ensure_future(reader.read(1))
            try:
                await asyncio.wait((answer, gone), return_when=asyncio.FIRST_COMPLETED)
                if not answer.done() and gone.result():  # the client is there, and sends more
                    await answer
            finally:
                answer.cancel()
                gone.cancel()
                await asyncio.gather(answer, gone, return_exceptions=True)
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError):
            pass  # not HTTP, or the connection is gone
        finally:
            writer.close()

    async def _answer(self, head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        method, path = head.split(b" ", 2)[:2]
        target = path.partition(b"?")[0].decode("latin-1")
        ours = method == b"POST" and (b"authorization: " + self._authorization).lower() in head.lower()
        if ours and target == PATH:
            _reply(writer, await self._declared(json.loads(body)["requests"]))
        elif ours and target in _COMPLETIONS and (asked := _plain(body)) is not None:
            slot = await self._slots.get()
            try:
                prefix = self._prefixes.get(asked.pop(FIELD, ""))
                shared = prefix is not None and await self._restored(asked, prefix, slot)
                sent = {**asked, "id_slot": slot, **({"cache_prompt": True} if shared else {})}
                await self._pass(head, json.dumps(sent).encode(), writer)
            finally:
                self._slots.put_nowait(slot)
        else:
            await self._pass(head, body, writer)

    async def _pass(self, head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        """Send a request to llama.cpp, and its reply to the client as it comes."""
        line, *lines = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
        kept = [one for one in lines if one.partition(b":")[0].strip().lower() not in _HOP]
        parts = [line, *kept, b"Connection: close", b"Content-Length: %d" % len(body), b"", body]
        reader, upstream = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            upstream.write(b"\r\n".join(parts))
            while chunk := await reader.read(_MOST_HEAD):
                writer.write(chunk)
                await writer.drain()
        finally:
            upstream.close()  # llama.cpp stops when its client has gone

    async def _post(self, path: str, body: Body) -> Body:
        """Ask llama.cpp for something of ours. Raises RefusedError."""
        sent = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: {len(sent)}\r\nAuthorization: "
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            writer.write(head.encode() + self._authorization + b"\r\nConnection: close\r\n\r\n" + sent)
            top, _, data = (await reader.read(-1)).partition(b"\r\n\r\n")
        finally:
            writer.close()
        if top.split(b" ", 2)[1:2] != [b"200"]:
            raise RefusedError(data.decode(errors="replace"))
        found: Body = json.loads(data)
        return found

    async def _tokens(self, asked: Body) -> list[int]:
        """Return the tokens of a request's prompt, as llama.cpp fills it in."""
        prompt = asked.get("prompt")
        if prompt is None:
            form = {name: asked[name] for name in ("messages", *FORM) if name in asked}
            prompt = (await self._post("/apply-template", form))["prompt"]
        found: list[int] = (await self._post("/tokenize", {"content": prompt, "add_special": True, "parse_special": True}))[
            "tokens"
        ]
        return found

    async def _declared(self, requests: list[Body]) -> Body:
        """Find what the prompts of these requests have in common, and evaluate it."""
        tokens = await self._common(requests)
        settings = {"lora": requests[0]["lora"]} if "lora" in requests[0] else {}
        messages = len(_common([[json.dumps(one) for one in asked.get("messages") or []] for asked in requests]))
        name = _name(tokens, settings, messages)
        if name not in self._prefixes:
            state = State(name, tokens, settings) if len(tokens) >= _LEAST_TOKENS else None
            if state is not None:
                slot = await self._slots.get()
                try:
                    await self._restore(state, slot)
                finally:
                    self._slots.put_nowait(slot)
            self._prefixes[name] = Prefix(state, messages, settings)
        return {"id": name, "tokens": len(tokens)}

    async def _common(self, requests: list[Body]) -> list[int]:
        try:
            prompts = [await self._tokens(one) for one in requests]
        except RefusedError:
            return []
        return _common(prompts)[: min(map(len, prompts)) - 1]  # at least one token of a prompt is evaluated

    async def _restored(self, asked: Body, prefix: Prefix, slot: int) -> bool:
        """Restore in a slot what a request begins with. Return False if that is nothing."""
        try:
            state = await self._begun(asked, prefix)
            if state is not None:
                await self._restore(state, slot)
        except RefusedError:
            return False
        return state is not None

    async def _begun(self, asked: Body, prefix: Prefix) -> State | None:
        """Return the state that a request continues from: of the turn before, else of the run's prefix."""
        state, messages = prefix.state, asked.get("messages") or []
        for count in range(prefix.messages, len(messages)):
            if messages[count].get("role") != "assistant":
                continue
            form = {**asked, "messages": messages[:count]}
            name = _name(state.name if state else "", prefix.settings, form["messages"], [form.get(field) for field in FORM])
            known = self._turns.get(name)
            if known is None:  # unless another request has made it meanwhile
                known = self._turns.setdefault(name, State(name, await self._tokens(form), prefix.settings, state))
            self._turns.move_to_end(name)
            state = known
        for old in list(islice(self._turns.values(), max(0, len(self._turns) - _MOST_TURNS))):
            if old is not state:
                self._drop(old)
        return state

    async def _restore(self, state: State, slot: int) -> None:
        state.users += 1
        try:
            async with state.lock:
                if state.file is None:
                    await self._evaluate(state, slot)
            self._held.move_to_end(state)
            await self._post(f"/slots/{slot}?action=restore", {"filename": str(state.file)})
        finally:
            state.users -= 1

    async def _evaluate(self, state: State, slot: int) -> None:
        """Evaluate a state's tokens in a slot and save them. Drop the states that were used longest ago if they are too many."""
        if state.after is not None:
            await self._restore(state.after, slot)
        asked = {"prompt": state.tokens, "n_predict": 0, "id_slot": slot, "cache_prompt": state.after is not None}
        await self._post("/completion", {**asked, **state.settings})
        file = os.memfd_create("prefix")
        try:
            saved = await self._post(f"/slots/{slot}?action=save", {"filename": str(file)})
        except BaseException:
            os.close(file)
            raise
        state.file, state.size = file, saved["n_written"]
        self._held[state] = None
        for old in [one for one in self._held if not one.users]:
            if sum(one.size for one in self._held) <= _MOST_BYTES:
                break
            self._drop(old)

    def _drop(self, state: State) -> None:
        """Forget a turn, and what llama.cpp held after it unless a request is about to restore that."""
        self._turns.pop(state.name, None)
        if state.file is not None and not state.users:
            os.close(state.file)
            state.file = None
            del self._held[state]


def _common(lists: list[list[Any]]) -> list[Any]:
    """Return what all lists begin with."""
    first, last = min(lists), max(lists)  # those between begin with it, too
    return first[: next((at for at, (one, other) in enumerate(zip(first, last, strict=False)) if one != other), len(first))]


def _name(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _length(head: bytes, writer: asyncio.StreamWriter) -> int:
    """Return the bytes of the body that follows a head. Raises ValueError if the head does not say."""
    headers = {
        name.strip().lower(): value.strip() for name, _, value in (line.partition(b":") for line in head.split(b"\r\n")[1:])
    }
    if b"transfer-encoding" in headers:
        writer.write(b"HTTP/1.1 411 Length Required\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        raise ValueError("a body without a length")
    if headers.get(b"expect", b"").lower() == b"100-continue":
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    return int(headers.get(b"content-length", 0))


def _plain(body: bytes) -> Body | None:
    """Return a body of which the slot may be chosen here; None if it is not an object, asks for several answers or chooses."""
    try:
        asked = json.loads(body)
    except ValueError:
        return None
    if not isinstance(asked, dict) or asked.get("n", 1) not in (None, 1) or asked.keys() & {"id_slot", "cache_prompt"}:
        return None
    return asked


def _reply(writer: asyncio.StreamWriter, body: Body) -> None:
    sent = json.dumps(body).encode()
    writer.write(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(sent)
    )
    writer.write(sent)
