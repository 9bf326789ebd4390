"""Cache responses: keys (which requests are the same) and the store (memory over disk)."""

from runner.cache.key import KEY_VERSION, encoded_params, request_key
from runner.cache.store import ENTRY_VERSION, Cache, Entry, Mode, Stored, worth_keeping

__all__ = [
    "ENTRY_VERSION",
    "KEY_VERSION",
    "Cache",
    "Entry",
    "Mode",
    "Stored",
    "encoded_params",
    "request_key",
    "worth_keeping",
]
