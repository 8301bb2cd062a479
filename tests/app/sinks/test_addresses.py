import asyncio
import ipaddress
import socket
import threading

import httpcore
import pytest

from app.sinks.addresses import Addresses, AddressRefused, is_allowed

NETWORKS = (ipaddress.ip_network("10.20.0.0/16"), ipaddress.ip_network("fd00:20::/32"))


@pytest.mark.parametrize(
    "address", ["93.184.216.34", "2606:2800:220:1::1", "10.20.3.4", "fd00:20::5", "::ffff:10.20.0.1"]
)
def test_public_and_listed_addresses_are_allowed(address: str) -> None:
    assert is_allowed(address, NETWORKS)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.21.0.1",
        "192.168.1.1",
        "172.16.0.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",  # noqa: S104
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1%eth0",
        "fd00:21::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "2001:0:4136:e378:8000:63bf:80ff:fffe",
        "64:ff9b:1::7f00:1",
        "::ffff:0:127.0.0.1",
        "::127.0.0.1",
        "fec0::1",
    ],
)
def test_others_are_not(address: str) -> None:
    assert not is_allowed(address, NETWORKS)


def connect(host: str, port: int, networks: tuple[str, ...] = ()) -> None:
    async def do() -> None:
        backend = Addresses([ipaddress.ip_network(network) for network in networks])
        try:
            stream = await backend.connect_tcp(host, port, timeout=5)
            await stream.aclose()
        finally:
            backend.close()

    asyncio.run(do())


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1"])
def test_nothing_on_this_machine_is_connected_to_however_it_is_called(host: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.1)
        with pytest.raises((AddressRefused, httpcore.ConnectError)):
            connect(host, listener.getsockname()[1])
        with pytest.raises(TimeoutError):
            listener.accept()


def test_a_listed_address_is_connected_to() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        connect("localhost", listener.getsockname()[1], ("127.0.0.0/8", "::1/128"))
        listener.accept()[0].close()


def test_a_resolver_that_hangs_holds_up_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    answered = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answered.wait(30))

    async def do() -> None:
        backend = Addresses([])
        attempts = [backend.connect_tcp("mes.plant", 80, timeout=0.1) for _ in range(64)]
        failures = await asyncio.gather(*attempts, return_exceptions=True)
        assert {type(failure) for failure in failures} == {httpcore.ConnectTimeout}
        async with asyncio.timeout(10):  # asyncio's own threads are free
            await asyncio.to_thread(answered.is_set)
        assert not answered.is_set()
        answered.set()
        backend.close()

    asyncio.run(do())


def test_names_and_ports_without_anybody_are_errors() -> None:
    for host in ("nobody.invalid", "nobody..invalid"):
        with pytest.raises(httpcore.ConnectError, match="not known"):
            connect(host, 80)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(httpcore.ConnectError):
        connect("127.0.0.1", port, ("127.0.0.0/8",))
