"""Tests. A package, so that every test can import the ones' helpers: `from tests.support.server import Server`."""
