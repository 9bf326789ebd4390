"""A conversation about prices: an image, a tool in a Python file, and calls of it."""

import base64
import json

PNG = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==")
TEXT = base64.b64encode(PNG).decode()
REFERENCE = "sha256:6b7fa434f92a8b80aab02d9bf1a12e49ffcae424e4013a1c4f68b67e3d2bbcd0.png"

PYTHON = '''
from __future__ import annotations
from typing import Literal
import time

def price(item: str, currency: Literal["usd", "eur"] = "usd", tags: list[str] = []) -> float:
    """Return the price of an item.

    Args:
        item: its name.
        currency: what it is paid in.
    """
    if item == "nothing":
        raise LookupError("no such item")
    if item == "slow":
        time.sleep(60)
    with open("calls.txt", "a") as file:
        file.write(item + "\\n")
    return 1.5

def _hidden(): ...
'''


def a_call(item, name="price", number=1):
    """A call of the tool, as a model asks for it."""
    return {"id": f"c{number}", "type": "function", "function": {"name": name, "arguments": json.dumps({"item": item})}}
