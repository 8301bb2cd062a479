"""Texts that go over the wire, and what they may be."""

import re

MAX_TEXT = 256  # characters
TEXT_PATTERN = r"^[^\x00-\x1f\x7f-\x9f]*$"  # no control characters


def text_fault(text: str) -> str | None:
    """What is wrong with a text, after its name; None where it may go over the wire."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return "is not UTF-8"
    if len(text) > MAX_TEXT or not re.fullmatch(TEXT_PATTERN, text):
        return f"must be at most {MAX_TEXT} characters, none of them control"
    return None
