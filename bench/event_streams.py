"""python -m bench.event_streams [--minutes 10] [--readers 50]

A server under load, and many who listen to its events: some always, some who come back every few seconds
with the last id, some who ask for all that is kept and then take nothing. Says how late events come, what the
server grows by, whether everybody heard the same, whole and in order, and whether those who take nothing were
sent away.
"""

import argparse
import asyncio
import json
import random
import socket
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final

import httpx

from app.database.engine import Database
from app.feed import log
from app.feed.log import Happening
from bench.service import fleet
from bench.service.figures import Figures, milliseconds, report, slope_per_minute
from bench.service.listening import EventReader
from bench.service.server import Server

_EARLIER: Final = (
    30_000  # events that are there already: whoever asks for all of them and takes none gets stuck
)
_SLOW: Final = 5
_COMING_BACK: Final = 5  # of ten
_STALLED_SECONDS: Final = 30
_REST_SECONDS: Final = 0.1  # of a sender between two pictures
_MOST_GROWTH: Final = 48 * 2**20  # bytes, from the first third to the end


@dataclass
class Reader:
    """Somebody who listens.

    Attributes:
        stays: seconds after which it leaves and comes back, about; None to stay.
        heard: ids of inspections.
        late: seconds from an inspection's time to when it was heard.
        last: the id that came last.
    """

    url: str
    stays: float | None
    heard: list[str] = field(default_factory=list)
    late: list[float] = field(default_factory=list)
    last: str = ""
    gaps: int = 0
    connections: int = 0

    async def run(self) -> None:
        """Listen until cancelled."""
        async with httpx.AsyncClient(base_url=self.url, timeout=60, trust_env=False) as client:
            while True:
                seconds = None if self.stays is None else self.stays * random.uniform(0.5, 1.5)  # noqa: S311
                with suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        await self._listen(client)

    async def _listen(self, client: httpx.AsyncClient) -> None:
        headers = {"Last-Event-ID": self.last} if self.last else {}
        async with client.stream("GET", "/v1/events", headers=headers) as answer:
            answer.raise_for_status()
            self.connections += 1
            reader = EventReader()
            async for line in answer.aiter_lines():
                event = reader.take(line)
                if event is None or not event.id:
                    continue
                if event.kind == "inspection":
                    self.heard.append(event.data["inspection_id"])
                    made = datetime.fromisoformat(event.data["created_at"]).timestamp()
                    self.late.append(time.time() - made)
                self.gaps += event.kind == "gap"
                self.last = event.id


def _stuck(port: int) -> socket.socket:
    """Ask for everything, and take nothing of it."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", port))
    connection.sendall(b"GET /v1/events?after=beginning HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    return connection


def _fill(server: Server) -> None:
    """Put events into the history before the server starts."""
    database = Database(f"sqlite:///{server.history / 'history.sqlite'}")
    database.upgrade()
    padding = "x" * 400
    for begin in range(0, _EARLIER, 5000):
        happenings = [
            Happening("model", "earlier", None, None, json.dumps({"number": begin + i, "padding": padding}))
            for i in range(5000)
        ]
        with database.write() as connection:
            log.append(connection, happenings)
    database.close()


async def _send(server: Server, pictures: Sequence[bytes], station: int, until: float) -> list[str]:
    """Inspect pictures one after the other; ids of what was answered."""
    ids: list[str] = []
    async with httpx.AsyncClient(base_url=server.url, timeout=60, trust_env=False) as client:
        while time.monotonic() < until:
            answer = await client.post(
                "/v1/models/part0/predict",
                params={"station": f"s{station}"},
                content=pictures[len(ids) % len(pictures)],
            )
            answer.raise_for_status()
            ids.append(answer.json()["inspection_id"])
            await asyncio.sleep(_REST_SECONDS)
    return ids


async def _run(
    server: Server, pictures: Sequence[bytes], readers: int, seconds: float
) -> tuple[Figures, list[str]]:
    listeners = [Reader(server.url, 6.0 if i % 10 < _COMING_BACK else None) for i in range(readers)]
    listening = [asyncio.create_task(listener.run()) for listener in listeners]
    while not all(listener.connections for listener in listeners):
        await asyncio.sleep(0.1)
    stuck = [_stuck(server.port) for _ in range(_SLOW)]
    begun = time.monotonic()
    sending = [asyncio.create_task(_send(server, pictures, station, begun + seconds)) for station in range(3)]
    times, sizes = [], []
    while time.monotonic() < begun + seconds:
        await asyncio.sleep(min(5.0, seconds / 20))
        times.append(time.monotonic() - begun)
        sizes.append(float(server.resident_bytes()))
    sent = [identifier for ids in await asyncio.gather(*sending) for identifier in ids]
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not all(len(one.heard) >= len(sent) for one in listeners):
        await asyncio.sleep(0.2)
    metrics = await asyncio.to_thread(server.metrics)
    for task in listening:
        task.cancel()
    done = await asyncio.gather(*listening, return_exceptions=True)
    for connection in stuck:
        connection.close()

    failures = [f"a reader failed: {error!r}" for error in done if isinstance(error, httpx.HTTPError)]
    order = listeners[0].heard
    for listener in listeners:
        if set(listener.heard) != set(sent) or len(listener.heard) != len(sent):
            failures.append(f"a reader heard {len(listener.heard)} of {len(sent)} inspections")
        elif listener.heard != order:
            failures.append("a reader heard the same in another order")
        if listener.gaps:
            failures.append("a reader was told of a gap")
    dropped = metrics['flowgauge_event_readers_dropped_total{reason="slow"}']
    if seconds > 2 * _STALLED_SECONDS and dropped != _SLOW:
        failures.append(f"{dropped:.0f} readers were sent away as too slow; {_SLOW} took nothing")
    settled = next(i for i, moment in enumerate(times) if moment >= times[-1] / 3)
    growth = sizes[-1] - sizes[settled]
    if growth > _MOST_GROWTH:
        failures.append(f"the server grew by {growth / 2**20:.0f} MiB")
    late = [one for listener in listeners for one in listener.late]
    return {
        "seconds": round(seconds),
        "readers": readers,
        "connections": sum(listener.connections for listener in listeners),
        "inspections": len(sent),
        "inspections_per_second": round(len(sent) / seconds, 1),
        "events_sent": metrics["flowgauge_events_sent_total"],
        "from_answer_to_event_ms": milliseconds(late),
        "sent_away_as_too_slow": dropped,
        "memory_mib": {
            "first": round(sizes[0] / 2**20),
            "after_a_third": round(sizes[settled] / 2**20),
            "last": round(sizes[-1] / 2**20),
            "slope_per_minute": round(slope_per_minute(times[settled:], sizes[settled:]) / 2**20, 2),
        },
    }, failures


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--readers", type=int, default=50)
    parser.add_argument("--folder", type=Path, default=Path("bench-results/fleet-64"), help="of the model")
    parser.add_argument("--out", type=Path, default=Path("bench-results/service"))
    options = parser.parse_args()
    models = fleet.make(options.folder, size=64, categories=1, versions=1)
    with tempfile.TemporaryDirectory(prefix="flowgauge-bench-") as work:
        server = Server(models.models, Path(work))
        _fill(server)
        with server:
            run = _run(server, models.pictures, options.readers, 60 * options.minutes)
            figures, failures = asyncio.run(run)
    return report("event_streams", figures, failures, options.out)


if __name__ == "__main__":
    sys.exit(main())
