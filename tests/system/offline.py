"""Runs inside a network namespace of its own, which test_offline makes: loopback, and nothing else.

Trains, serves and inspects there, and prints what came out as JSON.
"""

import errno
import fcntl
import json
import os
import socket
import struct
import sys
from pathlib import Path

from tests.support.server import Server
from tests.system.processes import FlowGauge

SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1  # <linux/sockios.h>, <net/if.h>


def loopback_up() -> None:
    """Bring up the loopback interface without the program `ip`."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sh14x", b"lo", 0)
        name, flags = struct.unpack("16sh14x", fcntl.ioctl(control, SIOCGIFFLAGS, request))
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sh14x", name, flags | IFF_UP))


def expect_no_network() -> None:
    """Fail if anything beyond this machine can be reached: the test would prove nothing."""
    with socket.socket() as probe:
        code = probe.connect_ex(("192.0.2.1", 80))
    if code != errno.ENETUNREACH:
        raise SystemExit(f"expected an unreachable network; got {errno.errorcode.get(code, code)}")


def main(work: Path, data: Path, config: Path) -> None:
    """Train, serve, inspect; then ask for a backbone whose weights are nowhere on this machine."""
    loopback_up()
    expect_no_network()
    # A cache of the user's may hold weights.
    os.environ["HOME"] = str(work)
    flowgauge = FlowGauge(work)
    picture = data / "tiny/test/scratch/000.png"
    trained = flowgauge.run("train", "--data", data, "--category", "tiny", "--config", config)
    local = flowgauge.run("predict", picture, "--category", "tiny", "--json")
    with Server(work / "models", work) as server:
        served = flowgauge.run("predict", picture, "--category", "tiny", "--json", "--url", server.url)
    (work / "other.yaml").write_text("preset: resnet18")
    refused = flowgauge.run(
        *("train", "--data", data, "--category", "tiny", "--config", "other.yaml"), code=1
    )
    print(  # noqa: T201 it is the answer to the test
        json.dumps({"trained": trained, "local": local, "served": served, "refused": refused})
    )


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
