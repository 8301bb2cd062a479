"""Texts that go over the wire, and what they may be."""

MAX_TEXT = 256  # characters
TEXT_PATTERN = r"^[^\x00-\x1f\x7f-\x9f]*$"  # no control characters
