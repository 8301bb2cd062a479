"""A real nginx with a configuration of deploy/, in front of servers of this machine."""

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.support.certificates import Certificate
from tests.support.ports import reserved_port
from tests.support.waiting import eventually

PROGRAM = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
NAME = "/etc/nginx/inspection.plant.example"


@contextmanager
def nginx(
    folder: Path, configuration: Path, upstreams: Mapping[str, int], tls: Certificate
) -> Iterator[tuple[int, int]]:
    """Run nginx with a file of deploy/ on two free ports, with TLS and without, and yield them.

    Args:
        folder: for its files; created.
        configuration: of deploy/.
        upstreams: port on this machine of each server that the configuration names.
        tls: the certificate in place of the configured one.
    """
    (one, port), (other, plain) = reserved_port(), reserved_port()
    ours = configuration.read_text()
    for before, after in {
        **{f"server {name}": f"server 127.0.0.1:{upstream}" for name, upstream in upstreams.items()},
        "listen 80;": f"listen 127.0.0.1:{plain};",
        "listen [::]:80;": "",  # a machine that tests may have none
        "listen 443 ssl;": f"listen 127.0.0.1:{port} ssl;",
        "listen [::]:443 ssl;": "",
        f"{NAME}.pem": str(tls.certificate),
        f"{NAME}.key": str(tls.key),
    }.items():
        assert ours.count(before) == 1
        ours = ours.replace(before, after)
    folder.mkdir()
    # As root its workers would become a user who may not enter the tests' folder.
    user = "user root;" if os.geteuid() == 0 else ""
    temporary = "".join(
        f"{name}_temp_path {folder / name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    complete = folder / "nginx.conf"
    complete.write_text(
        f"{user} daemon off; pid {folder / 'pid'}; error_log stderr;"
        f"events {{}} http {{ access_log off; {temporary}\n{ours} }}\n"
    )
    assert PROGRAM is not None
    with one, other, (folder / "log").open("w") as log:
        process = subprocess.Popen([PROGRAM, "-p", folder, "-c", complete], stderr=log)
        try:
            eventually(lambda: (folder / "pid").exists() or process.poll() is not None)
            yield port, plain
        finally:
            process.terminate()
            assert process.wait(60) == 0, (folder / "log").read_text()
