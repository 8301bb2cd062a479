"""Rules for short texts from clients, such as part ids."""

import re

MAX_TEXT = 256  # characters
TEXT_PATTERN = r"^[^\x00-\x1f\x7f-\x9f]*$"  # no control characters


def text_fault(text: str) -> str | None:
    """Describe the fault of a text, to follow its name; None if the text is valid."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return "is not UTF-8"
    if len(text) > MAX_TEXT or not re.fullmatch(TEXT_PATTERN, text):
        return f"must be at most {MAX_TEXT} characters, none of them control"
    return None
