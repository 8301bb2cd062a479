"""Reserved ports of this machine."""

import socket


def reserved_port() -> tuple[socket.socket, int]:
    """A free port of this machine, and what keeps it: while that is open nobody gets the port by chance.

    Servers may listen there all the same: they set SO_REUSEADDR, and this socket does not listen.
    """
    holder = socket.socket()
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind(("127.0.0.1", 0))
    return holder, holder.getsockname()[1]
