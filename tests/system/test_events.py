"""Many listeners under load, over a kill and a restart: all events, once, in order."""

import threading
import time
from pathlib import Path

import httpx
import pytest

from tests.support.event_stream import listening
from tests.support.waiting import eventually
from tests.system.line import Line, make_line

Images = dict[str, list[bytes]]
STATIONS = ["s1", "s2", "s3"]
LISTENERS = 50


class Listener(threading.Thread):
    """Listener that reconnects with the last id until it is stopped."""

    def __init__(self, line: Line) -> None:
        super().__init__(daemon=True)
        self._line = line
        self.heard: list[str] = []
        self.kinds: set[str] = set()
        self.connections = 0
        self.ready = threading.Event()
        self.stopping = False

    def run(self) -> None:
        last = None
        while not self.stopping:
            try:
                with (
                    httpx.Client(base_url=self._line.server.url, timeout=60, trust_env=False) as client,
                    listening(client, last) as events,
                ):
                    self.connections += 1
                    for event in events:
                        self.ready.set()
                        last = event.id or last
                        self.kinds.add(event.kind)
                        if event.kind == "inspection":
                            self.heard.append(event.data["inspection_id"])
                        if self.stopping:
                            return
            except httpx.HTTPError:
                time.sleep(0.1)


@pytest.mark.slow
def test_fifty_listeners_get_all_events_once_in_order(
    tiny_bundle_store: Path, tiny_images: Images, tmp_path: Path
) -> None:
    line = make_line(tiny_bundle_store, tiny_images, tmp_path)
    server = line.server
    server.start()
    listeners = [Listener(line) for _ in range(LISTENERS)]
    for listener in listeners:
        listener.start()
    assert all(listener.ready.wait(60) for listener in listeners)
    assert server.metrics()["flowgauge_event_readers"] == LISTENERS

    with line.inspecting(STATIONS, 1000):
        eventually(lambda: line.count > 120)
        server.kill()
    server.start()
    with line.inspecting(STATIONS, 20):
        pass

    answered = line.all_ids
    eventually(lambda: all(answered <= set(listener.heard) for listener in listeners))
    # What was kept and could not be answered any more is heard as well; in the same order by everybody.
    with server.client() as client, listening(client, after="beginning") as events:
        history: list[str] = []
        while not answered <= set(history):
            event = next(events)
            if event.kind == "inspection":
                history.append(event.data["inspection_id"])
    eventually(lambda: all(len(listener.heard) >= len(history) for listener in listeners))
    for listener in listeners:
        assert listener.heard == history
        assert "gap" not in listener.kinds
        assert listener.connections >= 2
    for ids in line.ids.values():
        assert [identifier for identifier in history if identifier in set(ids)] == ids

    # They do not hold up the end, which is clean; exit code 0, or `stop` raises.
    for listener in listeners:
        listener.stopping = True
    server.stop()
    for listener in listeners:
        listener.join(30)
        assert not listener.is_alive()
