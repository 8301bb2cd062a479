"""The whole OpenAPI document against a real server, with keys of every role.

Schemathesis makes requests that keep the document and requests that break it. Whatever comes, the answer is
one that the document describes and never a 500. tests/app/routes/test_roles.py shows whom each route admits.
"""

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from app.auth.key_store import KeyStore
from app.auth.permissions import COMMAND_LINE
from app.database.engine import Database
from app.errors import problem_responses
from app.main import create_app
from app.registry.packing import pack
from app.schemas.access import Role
from app.settings import Settings
from tests.support.fleet import Fleet
from tests.support.server import Server

CHECKS: Final = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
_ENOUGH_MS: Final = 60_000
DOCUMENT: Final = create_app(Settings()).openapi()
SCHEMA: Final = schemathesis.openapi.from_dict(DOCUMENT)
OPERATIONS: Final = {
    result.ok().label: result.ok() for result in SCHEMA.get_all_operations() if isinstance(result, Ok)
}
# Its answer has no end: tests/app/routes/test_events.py has what is said of it.
ENDLESS: Final = "GET /v1/events"
ROLES: Final = tuple(Role)


@dataclass
class Plant:
    """A server with keys, models and inspections, and their ids."""

    server: Server
    keys: Mapping[str, str]
    real: Mapping[str, Sequence[Any]]
    picture: bytes
    archive: bytes

    def session(self) -> requests.Session:
        session = requests.Session()
        session.trust_env = False
        return session


@pytest.fixture(scope="module")
def plant(small_fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plant]:
    folder = tmp_path_factory.mktemp("plant")
    fleet = small_fleet.copy(folder / "models")
    category = fleet.categories[0]
    versions = fleet.versions[category]
    archive = io.BytesIO()
    pack(fleet.models / category / versions[0], archive)
    server = Server(fleet.models, folder)
    database = Database(f"sqlite:///{server.history / 'history.sqlite'}")
    database.upgrade()
    made = KeyStore(database)
    keys = {role.value: made.create(COMMAND_LINE, role, f"the {role}")[1] for role in ROLES}
    spare, _ = made.create(COMMAND_LINE, Role.LINE, "spare")  # a request may revoke it
    database.close()
    with server, server.client() as client:
        path = f"/v1/models/{category}/predict?part_id=P-1&station=line-3"
        headers = {"X-API-Key": keys["admin"]}
        answers = [client.post(path, content=picture, headers=headers) for picture in fleet.images[:4]]
        assert [answer.status_code for answer in answers] == [200] * 4, answers[0].text
        product = {"name": category, "takeover": "manual"}
        assert client.post("/v1/products", json=product, headers=headers).status_code == 201
        files = {"file": fleet.images[0]}
        added = client.post(f"/v1/products/{category}/images", files=files, headers=headers)
        job = client.post("/v1/jobs", json={"kind": "check", "product": category}, headers=headers)
        real = {
            "category": [category],
            "version": versions,
            "name": ["metrics.jsonl", "config.yaml"],
            "inspection_id": [answer.json()["inspection_id"] for answer in answers],
            "part_id": ["P-1"],
            "kind": ["age"],
            "station": ["line-3"],
            "key_id": [spare.id],
            "image": [added.json()["items"][0]["image"]["sha256"]],
            "job_id": [job.json()["id"]],
        }
        yield Plant(server, keys, real, fleet.images[0], archive.getvalue())


@pytest.mark.parametrize("label", sorted(OPERATIONS.keys() - {ENDLESS}))
def test_answers_are_as_documented(label: str, plant: Plant) -> None:
    attack(label, Role.ADMIN, plant, examples=3, derandomize=True)


@pytest.mark.slow
@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("label", sorted(OPERATIONS.keys() - {ENDLESS}))
def test_answers_are_as_documented_for_many_requests(label: str, role: Role, plant: Plant) -> None:
    attack(label, role, plant, examples=100, derandomize=False)


def attack(label: str, role: Role, plant: Plant, *, examples: int, derandomize: bool) -> None:
    """Send valid and invalid requests of an operation and check every answer."""
    operation = OPERATIONS[label]
    headers = {"X-API-Key": plant.keys[role]}

    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=derandomize,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(data=st.data())
    def run(data: st.DataObject) -> None:
        case = data.draw(operation.as_strategy(data.draw(st.sampled_from(list(GenerationMode)))))
        make_real(case, data, plant)
        with plant.session() as session:
            if_match(case, data, session, plant, headers)
            response = case.call_and_validate(
                plant.server.url, session, headers, checks=CHECKS, timeout=60, allow_redirects=False
            )
        expect_documented(case, response)
        expect_no_leak(response, plant)

    run()


def make_real(case: Case[Any], data: st.DataObject, plant: Plant) -> None:
    """Use existing names in most requests, because unknown names all get one answer."""

    def mostly() -> bool:
        return data.draw(st.integers(0, 3)) > 0

    for container in (case.path_parameters, case.query):
        for name in (container or {}).keys() & plant.real.keys():
            if mostly():
                container[name] = data.draw(st.sampled_from(plant.real[name]))
    # Too short a time ends in a 504, as documented, which schemathesis takes for a fault of the server.
    asked = str((case.query or {}).get("timeout_ms", ""))
    if asked.isdigit() and 0 < int(asked) < _ENOUGH_MS:
        case.query["timeout_ms"] = _ENOUGH_MS
    path, media_type = case.operation.path, case.media_type or ""
    if path.endswith("/versions") and mostly():
        case.body = plant.archive
    elif path.endswith(("/predict", "/predict:batch", "/calibrations")) and mostly():
        file: Any = plant.picture if path.endswith("/predict") else [plant.picture] * 2
        case.body = {"file": file} if media_type.startswith("multipart/") else plant.picture
    elif path.endswith("/infer") and media_type == "application/json" and mostly():
        files: list[Any] = [base64.b64encode(plant.picture).decode()]
        case.body = {"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": files}]}
    elif isinstance(case.body, dict) and mostly():
        for name, values in (("key", list(plant.keys.values())), ("expected_revision", [0, 1, 2, 3])):
            if name in case.body:
                case.body[name] = data.draw(st.sampled_from(values))


def if_match(
    case: Case[Any], data: st.DataObject, session: requests.Session, plant: Plant, headers: Mapping[str, str]
) -> None:
    """Send the required If-Match tag in most requests."""
    wanted = any(parameter.name.lower() == "if-match" for parameter in case.operation.headers)
    if wanted and data.draw(st.booleans()):
        station = {name: value for name, value in (case.query or {}).items() if name == "station"}
        seen = session.get(
            plant.server.url + case.formatted_path, params=station, headers=headers, timeout=60
        )
        if "ETag" in seen.headers:
            case.headers["If-Match"] = seen.headers["ETag"]


def expect_documented(case: Case[Any], response: Any) -> None:
    """The document has a `default` for unknown paths and wrong methods; nothing else may hide behind it.

    A name of dots is resolved by the client, who then asks for another path.
    """
    if not urlsplit(response.request.url).path.startswith(case.operation.path.partition("{")[0]):
        return
    responses = case.operation.definition.raw["responses"]
    status = str(response.status_code)
    if response.status_code < 400:
        assert status in responses
        return
    label, path = case.operation.label, case.operation.path
    [content] = responses.get(status, responses["default"])["content"].values()
    body = response.json()
    if problem_responses.is_open_inference(path):
        kind = body["error"].rpartition("(")[2].rstrip(")")
    else:
        kind = body["type"]
    assert kind in content["examples"], f"{label} answers {status} {kind}, which it does not document"


def expect_no_leak(response: Any, plant: Plant) -> None:
    """No path of this machine, no traceback; but for what was sent, which may be any of these words."""
    sent = f"{response.request.url}{response.request.headers}{response.request.body}"
    for secret in (str(plant.server.history.parent), "Traceback", "site-packages", "sqlite"):
        assert secret.encode() not in response.content or secret in sent
