"""A real MQTT broker for tests, Debian's mosquitto, which can be stopped, killed and started again."""

import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Self

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from tests.support.certificates import Certificate
from tests.support.ports import reserved_port
from tests.support.waiting import standing_still

_START_SECONDS = 30.0


def program() -> str | None:
    """Find the broker's program, also in /usr/sbin; None if it is not installed."""
    return shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


class Mosquitto:
    """A broker on a port of its own. Started as root it becomes the user mosquitto, who owns its files."""

    def __init__(self) -> None:
        # Not pytest's folder: the broker's user may not enter it.
        self._root = Path(tempfile.mkdtemp(prefix="fg-mosquitto-", dir="/tmp"))
        holder, self.port = reserved_port()
        weakref.finalize(self, holder.close)
        self._process: subprocess.Popen[bytes] | None = None
        self.configure("allow_anonymous true")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        shutil.rmtree(self._root, ignore_errors=True)

    def configure(self, *lines: str) -> None:
        """Set the listener's options for the next start."""
        # Sessions of its clients survive its own end, every message of them.
        settings = (
            f"listener {self.port} 127.0.0.1",
            "persistence true",
            f"persistence_location {self._root}/",
        )
        every = ("autosave_interval 1", "autosave_on_changes true", "max_queued_messages 0")
        (self._root / "conf").write_text("\n".join([*settings, *every, *lines, ""]))
        self._give_files()

    def protect(self, user: str, password: str) -> None:
        file = self._root / "passwords"
        file.touch()
        file.chmod(0o600)
        subprocess.run(["mosquitto_passwd", "-b", str(file), user, password], check=True, capture_output=True)
        self.configure("allow_anonymous false", f"password_file {file}")

    def encrypt(self, certificate: Certificate) -> None:
        for source, name in ((certificate.certificate, "server.pem"), (certificate.key, "server.key")):
            shutil.copyfile(source, self._root / name)
        self.configure(
            "allow_anonymous true", f"certfile {self._root}/server.pem", f"keyfile {self._root}/server.key"
        )

    def start(self) -> None:
        """Start the broker and wait until it listens."""
        path = program()
        assert path is not None
        with (self._root / "log").open("ab") as log:
            self._process = subprocess.Popen([path, "-c", str(self._root / "conf")], stdout=log, stderr=log)
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                log_end = (self._root / "log").read_text()[-2000:]
                assert self._process.poll() is None, log_end
                assert time.monotonic() < deadline, log_end
                time.sleep(0.02)
            else:
                return

    def stop(self) -> None:
        """Stop it as a service manager does; repeat the signal if it came too early."""
        deadline = time.monotonic() + _START_SECONDS
        while self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(2)
                self._process = None
            except subprocess.TimeoutExpired:
                assert time.monotonic() < deadline, "the broker does not end"

    def standing_still(self) -> AbstractContextManager[None]:
        """Suspend the broker within the block."""
        assert self._process is not None
        return standing_still(self._process.pid)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(20)
            self._process = None

    def _give_files(self) -> None:
        if os.geteuid() == 0:
            for path in (self._root, *self._root.iterdir()):
                shutil.chown(path, "mosquitto", "mosquitto")


class Subscriber:
    """Subscriber that survives restarts: records topic, payload and the retained flag."""

    def __init__(self, broker: Mosquitto, topics: str = "#", **tls: Any) -> None:
        self.messages: list[tuple[str, bytes, bool]] = []
        self._subscribed = threading.Event()
        self._client = paho.Client(CallbackAPIVersion.VERSION2, "subscriber", clean_session=False)
        self._client.reconnect_delay_set(1, 1)
        self._client.on_connect = lambda client, *_: client.subscribe(topics, qos=1)
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = self._take
        if tls:
            self._client.tls_set(**tls)
        self._client.connect("127.0.0.1", broker.port)
        self._client.loop_start()
        assert self._subscribed.wait(20)

    def _take(self, _: paho.Client, __: object, message: paho.MQTTMessage) -> None:
        came = message.topic, bytes(message.payload), message.retain
        # A repeat of the broker's own, which may not have seen that the first one arrived.
        if not (message.dup and came in self.messages):
            self.messages.append(came)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@contextmanager
def subscribed(broker: Mosquitto, topics: str = "#", **tls: Any) -> Iterator[Subscriber]:
    subscriber = Subscriber(broker, topics, **tls)
    try:
        yield subscriber
    finally:
        subscriber.close()
