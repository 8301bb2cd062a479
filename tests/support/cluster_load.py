"""Load on servers beside each other, and what must hold after it whatever failed meanwhile."""

import hashlib
import itertools
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from math import isclose
from pathlib import Path
from typing import Protocol

import httpx
from sqlalchemy import func, select

from app.client.errors import FlowGaugeError
from app.client.sync import Client
from app.database.engine import Database
from app.database.shared_tables import idempotency_claims
from app.database.tables import events, inspections
from app.errors.problems import TYPES
from app.schemas.events import ReviewEvent
from tests.support.fleet import Fleet, unique
from tests.support.waiting import eventually


class Servers(Protocol):
    """Servers that share one history."""

    @property
    def database(self) -> Database: ...

    def client(self) -> Client:
        """Make the project's client, which sends its requests to any of them."""

    def journals(self) -> list[Path]:
        """Return the folders in which their inspections wait."""


@dataclass
class Load:
    """Clients that send images, each with an idempotency key, and repeat as the project's client does.

    Attributes:
        prefix: of the idempotency keys.
        scores: of each category and version, by image of the fleet; without them scores are not checked.
        answered: idempotency key and image's SHA-256 of each answered inspection.
        served: when each of them was first sent (monotonic), its category and version.
        faults: answers that no client should get.
        refusals: number of refusals by type of problem, or by status if they are nginx's.
        last_refusal: when the last of them came (monotonic).
    """

    cluster: Servers
    fleet: Fleet
    clients: int = 6
    prefix: str = "P"
    scores: Mapping[tuple[str, str], Sequence[float]] = field(default_factory=dict)
    answered: dict[str, tuple[str, str]] = field(default_factory=dict)
    served: list[tuple[float, str, str]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    refusals: Counter[str] = field(default_factory=Counter)
    last_refusal: float = 0
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    _answers: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    _ended: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Send images from several threads within the block."""
        self._ended.clear()
        with ThreadPoolExecutor(self.clients) as pool:
            sending = [pool.submit(self._send) for _ in range(self.clients)]
            try:
                yield
            finally:
                self._ended.set()
        for one in sending:
            one.result()

    def wait_for_answers(self, number: int) -> None:
        """Wait until so many more inspections are answered."""
        for _ in range(number):
            assert self._answers.acquire(timeout=120), self.faults

    def _send(self) -> None:
        categories = self.fleet.categories
        with self.cluster.client() as client:
            client._http.event_hooks["response"].append(self._note_refusal)
            while not self._ended.is_set():
                number = next(self._numbers)
                image = self.fleet.images[number % len(self.fleet.images)]
                if number % 8:  # others share the file of their image
                    image = unique(image, number)
                category = categories[number % len(categories)]
                key, begun = f"{self.prefix}-{number}", time.monotonic()
                try:
                    answer = client.inspect(category, image, idempotency_key=key)
                except FlowGaugeError as error:
                    self.faults.append(f"{key}: {error!r}")
                    continue
                expected = self.scores.get((category, answer.model.version))
                # The engines of the service and of the fleet round differently.
                if expected and not isclose(answer.score, expected[number % len(expected)], rel_tol=1e-3):
                    self.faults.append(f"a wrong score: {answer.score} for {answer.inspection_id}")
                self.answered[answer.inspection_id] = key, hashlib.sha256(image).hexdigest()
                self.served.append((begun, category, answer.model.version))
                self._answers.release()

    def _note_refusal(self, response: httpx.Response) -> None:
        """Note a refusal; it must be a documented problem, or nginx's about a server that is away."""
        if response.is_success:
            return
        response.read()
        self.last_refusal = time.monotonic()
        if response.headers.get("content-type") == "application/problem+json":
            name = response.json()["type"]
            self.refusals[name] += 1
            documented = name in TYPES and TYPES[name].status == response.status_code == 503
        else:
            self.refusals[str(response.status_code)] += 1
            documented = response.status_code in (502, 504) and "nginx" in response.text
        if not documented:
            self.faults.append(f"{response.status_code} {response.text[:300]}")


def require_each_once(servers: Servers, load: Load) -> None:
    """Require each answered inspection in the history once, with its files, key and event.

    No key may have two inspections, and all readers must get the events in one order.
    """
    assert load.faults == []
    eventually(lambda: _nothing_waits(servers))
    with servers.database.read() as connection:
        kept = connection.execute(select(inspections.c.id, inspections.c.idempotency_key)).all()
        told = connection.scalars(select(events.c.data).where(events.c.kind == "inspection")).all()
    assert {key: n for key, n in Counter(row.idempotency_key for row in kept).items() if n > 1} == {}
    keys = {row.id: row.idempotency_key for row in kept}
    assert {one: key for one, (key, _) in load.answered.items() if keys.get(one) != key} == {}
    assert Counter(json.loads(data)["inspection_id"] for data in told) == Counter(list(keys))
    with servers.client() as client:
        for identifier, (_, sha256) in load.answered.items():
            assert hashlib.sha256(client.source(identifier)).hexdigest() == sha256
            assert client.score_map(identifier).startswith(b"\x93NUMPY")


def _nothing_waits(servers: Servers) -> bool:
    """Tell if the inspections of all servers are filed, and their keys free."""
    with servers.database.read() as connection:
        claims = connection.scalar(select(func.count()).select_from(idempotency_claims))
    return not claims and not any(
        path.stat().st_size for folder in servers.journals() for path in folder.iterdir()
    )


class Listener:
    """A thread that reads the ids of all events up to the first review.

    Args:
        client: of the servers; it connects again when its stream ends.
    """

    def __init__(self, client: Client) -> None:
        self.ids: list[str] = []
        self._thread = threading.Thread(target=self._read, args=[client], daemon=True)
        self._thread.start()

    def all_ids(self) -> list[str]:
        """Wait for the review, and return the ids in the order of their arrival."""
        self._thread.join(120)
        assert not self._thread.is_alive(), "the review did not arrive"
        return self.ids

    def _read(self, client: Client) -> None:
        with client, suppress(FlowGaugeError):
            for event in client.events(after="beginning"):
                self.ids.append(event.id)
                if isinstance(event.data, ReviewEvent):
                    return
