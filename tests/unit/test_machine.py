"""Threads, slots and batches of llama.cpp follow the cores, the memory and what is asked for at once."""

from __future__ import annotations

import io
import struct

import pytest

from runner.servers import machine, server
from tests.support.command import ostinato


@pytest.mark.parametrize(
    ("threads", "concurrency", "window", "free", "slots"),
    [
        (2, None, None, None, 4),
        (2, 16, None, None, 4),
        (2, 3, None, None, 3),
        (8, 64, None, None, 16),
        (8, 64, 100, 1000, 5),  # half of what is free
        (8, 64, 100, 50, 1),  # one slot is tried whatever the memory
        (8, 64, 100, None, 16),
    ],
)
def test_slots_follow_cores_memory_and_concurrency(threads, concurrency, window, free, slots):
    assert machine.slots(threads, concurrency=concurrency, window=window, free=free) == slots


def gguf(**fields):
    """A GGUF file of fields that are numbers or texts, and no tensors."""
    made = io.BytesIO()
    made.write(b"GGUF" + struct.pack("<IQQ", 3, 0, len(fields)))

    def text(value):
        made.write(struct.pack("<Q", len(value)) + value.encode())

    for name, value in fields.items():
        text(name.replace("__", "."))
        if isinstance(value, str):
            made.write(struct.pack("<I", 8))
            text(value)
        else:
            made.write(struct.pack("<II", 4, value))
    return made.getvalue()


def test_a_window_takes_what_the_layers_keep_of_each_token(tmp_path):
    """SmolLM2-135M: 30 layers, 3 of 9 heads of 64 numbers keep keys and values: 23,040 bytes per token."""
    file = tmp_path / "model.gguf"
    shape = {"llama__block_count": 30, "llama__embedding_length": 576, "llama__attention__head_count": 9}
    file.write_bytes(gguf(general__architecture="llama", **shape, llama__attention__head_count_kv=3))
    assert machine.window_bytes(file, 2048) == 23_040 * 2048
    file.write_bytes(gguf(general__architecture="llama", **shape))
    assert machine.window_bytes(file, 1) == 3 * 23_040
    file.write_bytes(gguf(general__architecture="mamba"))
    assert machine.window_bytes(file, 1) is None
    file.write_bytes(b"not a model")
    assert machine.window_bytes(file, 1) is None


def test_doctor_says_what_it_chose():
    pytest.importorskip("xllamacpp")
    threads = machine.threads()
    (check,) = [check for check in ostinato("doctor", "--json").json["checks"] if check["name"] == "llama.cpp"]
    assert check["detail"].startswith(f"{threads} thread")
    assert f"up to {machine.slots(threads)} requests at once (launch.parallel), 512 prompt tokens at a time" in check["detail"]
    assert "GB of memory free" in check["detail"]


def test_settings_that_are_given_stay(tmp_path):
    given = server.Settings(parallel=7, threads=3)
    assert server._fitted(given, tmp_path / "none.gguf") == given
    chosen = server._fitted(server.Settings(concurrency=1), tmp_path / "none.gguf")
    assert (chosen.parallel, chosen.threads) == (1, machine.threads())
