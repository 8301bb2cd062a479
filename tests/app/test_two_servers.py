"""The pairs of servers that `pytest --two-servers` puts in the place of one."""

from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from app.registry.loaded_models import LoadedModels
from tests.app.support import services
from tests.app.support.bundles import upload_copy
from tests.support import two_servers
from tests.support.postgres import Postgres
from tests.support.s3 import S3Server


@pytest.mark.one_server("makes its pair itself")
def test_both_servers_of_a_pair_answer(
    store: Path, postgres: Postgres, s3_server: S3Server, tiny_images: dict[str, list[bytes]]
) -> None:
    with two_servers.installed(postgres, s3_server), services.create_service(store) as client:
        first, second = servers(client)
        a, b = first.state.settings, second.state.settings
        assert a.history != b.history
        assert a.models != b.models
        assert (a.database, a.store) == (b.database, b.store)
        answers = [services.predict(client, image, store="true") for image in tiny_images["good"][:4]]
        assert [two_servers.answered(server) for server in (first, second)] == [2, 2]
        assert len({answer["links"]["map"] for answer in answers}) == 4
        for answer in answers * 2:
            assert client.get(answer["links"]["map"]).status_code == 200
        upload_copy(client, store, "v2")
        assert client.post("/v1/models/tiny/versions/v2:activate").status_code == 200
        models: list[LoadedModels] = [server.state.loaded_models for server in (first, second)]
        assert [one.serving_version("tiny") for one in models] == ["v2", "v2"]


def servers(client: TestClient) -> tuple[FastAPI, FastAPI]:
    app: Any = client.app
    return app, app.state.beside
