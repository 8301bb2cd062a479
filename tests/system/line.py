"""A production line: a server process, its requests and its answers."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.support.server import Server


@dataclass
class Line:
    """A server with the model "tiny", its stations, and the answers to each in order."""

    server: Server
    images: Sequence[bytes]
    answers: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def inspect(self, station: str, count: int) -> None:
        """Send the images of a station in order; end early if the server ends."""
        answers = self.answers.setdefault(station, [])
        with httpx.Client(base_url=self.server.url, timeout=60, trust_env=False) as client:
            for number in range(count):
                image = self.images[number % len(self.images)]
                try:
                    answer = client.post(
                        "/v1/models/tiny/predict", params={"station": station}, content=image
                    )
                except httpx.TransportError:
                    return
                assert answer.status_code == 200, answer.text
                answers.append(answer.json())

    @contextmanager
    def inspecting(self, stations: Sequence[str], count: int) -> Iterator[None]:
        """Send from all stations in parallel during the block, then wait for them."""
        with ThreadPoolExecutor(len(stations)) as pool:
            work = [pool.submit(self.inspect, station, count) for station in stations]
            yield
            for one in work:
                one.result()

    @property
    def ids(self) -> dict[str, list[str]]:
        return {
            station: [answer["inspection_id"] for answer in answers]
            for station, answers in self.answers.items()
        }

    @property
    def all_ids(self) -> set[str]:
        return {identifier for ids in self.ids.values() for identifier in ids}

    def expect_in_order(self, heard: Sequence[Mapping[str, Any]]) -> None:
        """Check that events are in order by station and that repeats are marked."""
        seen: set[str] = set()
        for one in heard:
            assert one["redelivered"] or one["inspection_id"] not in seen
            seen.add(one["inspection_id"])
        for station, ids in self.ids.items():
            came = dict.fromkeys(one["inspection_id"] for one in heard if one["station"] == station)
            # What the server kept and could not answer any more comes as well.
            assert [identifier for identifier in came if identifier in set(ids)] == ids

    @property
    def count(self) -> int:
        return sum(map(len, self.answers.values()))


def make_line(models: Path, images: Mapping[str, Sequence[bytes]], work: Path, **settings: str | int) -> Line:
    return Line(Server(models, work, **settings), [*images["good"][:3], images["defect"][0]])
