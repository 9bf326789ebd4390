"""The response cache: keys (what makes two requests the same) and the store (memory over disk)."""

from runner.cache.key import KEY_VERSION, encoded_params, request_key
from runner.cache.store import Cache, Entry, Mode, worth_keeping

__all__ = ["KEY_VERSION", "Cache", "Entry", "Mode", "encoded_params", "request_key", "worth_keeping"]
