"""Work that must run once, while the server that runs it is killed."""

import time
from collections import Counter
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.conftest import picture, png
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


@pytest.mark.slow
def test_other_server_takes_over_a_training(postgres: Postgres, tmp_path: Path) -> None:
    with ExitStack() as stack:
        url = stack.enter_context(postgres.database())
        servers = []
        (tmp_path / "shared").mkdir()
        for name in "ab":
            (tmp_path / name / "models").mkdir(parents=True)
            shared = {"database": url, "store": f"file://{tmp_path}/shared"}
            servers.append(stack.enter_context(Server(tmp_path / name / "models", tmp_path / name, **shared)))
        leader, other = servers

        def send(method: str, path: str, **arguments: Any) -> Any:
            answer = httpx.request(method, other.url + path, timeout=60, trust_env=False, **arguments)
            return answer.raise_for_status().json()

        def job() -> dict[str, Any]:
            time.sleep(0.2)  # to ask takes time from the job
            shown: dict[str, Any] = send("GET", f"/v1/jobs/{identifier}")
            return shown

        send("POST", "/v1/products", json={"name": "part", "takeover": "manual"})
        images = [picture(seed) for seed in range(12)]
        files = [("file", (f"{i}.png", png(image))) for i, image in enumerate(images)]
        send("POST", "/v1/products/part/images", params={"label": "good"}, files=files)
        new = {"kind": "train", "product": "part", "settings": {"epochs": 20}}
        identifier = send("POST", "/v1/jobs", json=new)["id"]
        eventually(lambda: job()["stage"] == "fit")
        assert job()["lines"] != []
        leader.kill()
        eventually(lambda: job()["resumed"] == 1)
        eventually(lambda: job()["ended"] is not None)
        done = job()
        assert (done["state"], done["error"]) == ("succeeded", None)
        assert any("begins again" in line for line in done["lines"])
        assert [one["version"] for one in send("GET", "/v1/models/part")["versions"]] == [
            done["result"]["version"]
        ]
        leader.start()
