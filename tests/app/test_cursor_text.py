import base64
import zlib

import pytest

from app.cursor_text import seal, unseal


@pytest.mark.parametrize("content", [b"", b"\0", bytes(12), b"\xff" * 16, bytes(range(250))])
def test_what_was_sealed_is_read(content: bytes) -> None:
    text, checksum = seal(content), zlib.crc32(content).to_bytes(4, "big")
    assert unseal(text) == content
    assert base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)) == content + checksum
    assert "=" not in text


@pytest.mark.parametrize("text", ["", "x", "AAA", "\n", "é", "+" * 22, "A" * 201, seal(b"7" * 12)[:-1]])
def test_anything_else_is_nothing(text: str) -> None:
    assert unseal(text) is None


def test_a_change_anywhere_is_seen() -> None:
    text = seal(bytes(range(11)))  # with its checksum 15 bytes: every bit of the text is of them
    for place, was in enumerate(text):
        changed = text[:place] + ("A" if was != "A" else "B") + text[place + 1 :]
        assert unseal(changed) is None


def test_the_text_stays_as_it_is() -> None:
    """Clients keep cursors over an update of the server."""
    assert seal(bytes(range(12))) == "AAECAwQFBgcICQoLknDJZQ"
