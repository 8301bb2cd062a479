"""Work that must run once, while the server that runs it is killed."""

from collections import Counter
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import httpx
import pytest
import yaml

from tests.support.postgres import Postgres
from tests.support.receiver import Receiver
from tests.support.server import Server
from tests.support.waiting import eventually

SECRET = "whsec_" + "c2VjcmV0" * 6


@pytest.mark.slow
def test_other_server_delivers_after_a_kill_of_the_leader(
    postgres: Postgres, tiny_bundle_store: Path, tiny_images: dict[str, list[bytes]], tmp_path: Path
) -> None:
    receiver = Receiver()
    file = tmp_path / "webhooks.yaml"
    file.write_text(yaml.safe_dump({"webhooks": [{"name": "mes", "secret": SECRET, "url": receiver.url}]}))

    def inspect(server: Server) -> str:
        url = f"{server.url}/v1/models/tiny/predict"
        answer = httpx.post(url, content=tiny_images["good"][0], timeout=60, trust_env=False)
        identifier: str = answer.raise_for_status().json()["inspection_id"]
        return identifier

    def leads(server: Server) -> bool:
        return server.metrics()["flowgauge_leader"] == 1

    with ExitStack() as stack:
        stack.enter_context(receiver)
        url = stack.enter_context(postgres.database())
        servers = [
            Server(tiny_bundle_store, tmp_path / name, database=url, webhooks=str(file)) for name in "ab"
        ]
        for server in servers:
            stack.enter_context(server)
        inspected: list[str] = []
        for _ in range(4):
            leader, other = sorted(servers, key=leads, reverse=True)
            inspected += [inspect(leader), inspect(other)]
            leader.kill()
            inspected.append(inspect(other))
            eventually(partial(leads, other))
            leader.start()
            assert not leads(leader)
        eventually(lambda: {message.id for message in receiver.accepted} == set(inspected))
    delivered = Counter(message.id for message in receiver.accepted if not message.content["redelivered"])
    assert max(delivered.values()) == 1
