"""A service whose store does not answer: it inspects, and refuses what it cannot read."""

from pathlib import Path

from starlette.testclient import TestClient

from app.history.history import History
from tests.app.support.services import create_service, predict
from tests.support.postgres import Postgres
from tests.support.s3 import S3Server
from tests.support.waiting import eventually


def test_service_inspects_while_the_store_is_away(
    store: Path, postgres: Postgres, s3_url: str, s3_server: S3Server, tiny_images: dict[str, list[bytes]]
) -> None:
    with (
        postgres.database() as url,
        create_service(store, database=url, store=s3_url) as client,
    ):
        history: History = client.app.state.history  # type: ignore[attr-defined]
        assert client.post("/v1/products", json={"name": "tiny"}).status_code == 201
        added = client.post("/v1/products/tiny/images", files={"file": tiny_images["good"][1]}).json()
        image = added["items"][0]["image"]
        filed = predict(client, tiny_images["defect"][0], store="true")
        s3_server.kill()
        try:
            waiting = predict(client, tiny_images["good"][0], store="true")
            eventually(lambda: history.failure is not None)
            assert "flowgauge_history_failing 1.0" in client.get("/metrics").text
            assert client.get("/health/ready").status_code == 200
            for link in (filed["links"]["overlay"], filed["links"]["map"], image["links"]["image"]):
                refused(client, link)
            refused(client, waiting["links"]["inspection"])
            uploaded = client.post("/v1/products/tiny/images", files={"file": tiny_images["good"][2]})
            assert uploaded.json()["items"][0]["problem"]["type"] == "history-unavailable"
        finally:
            s3_server.start()
        s3_server.make_bucket(s3_url.split("/")[2])
        eventually(lambda: history.failure is None)
        assert client.get(waiting["links"]["overlay"]).status_code == 200


def refused(client: TestClient, link: str) -> None:
    response = client.get(link)
    assert (response.status_code, response.json()["type"]) == (503, "history-unavailable"), link
    assert int(response.headers["Retry-After"]) > 0
