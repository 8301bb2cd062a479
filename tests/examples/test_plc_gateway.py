"""What a gateway makes of triggers that name no picture; with a broker and a server: test_clients.py."""

import asyncio
from pathlib import Path

import pytest

from app.client import AsyncClient
from examples.plc_gateway import Line, decide


@pytest.mark.parametrize(
    "payload", [b'{"part_id": "P", "file": "a\\u0000.png"}', b'{"part_id": "P", "file": 7}', 100_000 * b"["]
)
def test_a_trigger_that_names_no_picture_is_unknown_and_not_the_end(tmp_path: Path, payload: bytes) -> None:
    async def ask() -> dict[str, object]:
        async with AsyncClient("http://127.0.0.1:9") as client:
            return await decide(client, Line("line-3", "tiny", tmp_path), payload)

    assert asyncio.run(ask())["decision"] == "UNKNOWN"
