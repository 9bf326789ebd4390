"""The scripted server, fresh for each test."""

from __future__ import annotations

import pytest

from tests.support.server import Server


@pytest.fixture
def server():
    """A server that answers "ok" until it is scripted."""
    with Server() as running:
        yield running
