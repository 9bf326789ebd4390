"""Images, sounds and files of prompts: known by the hash of their bytes, kept once, and encoded only when they are sent."""

from runner.attachments.media import Kind
from runner.attachments.parts import kind_of_part, names_in, reference
from runner.attachments.store import Attachments
from runner.attachments.told import said

__all__ = ["Attachments", "Kind", "kind_of_part", "names_in", "reference", "said"]
