"""A proxy in front of a server that cuts each connection after a number of bytes."""

import socket
from contextlib import suppress
from threading import Thread


class Proxy:
    """Forwards bytes; close it, or use it in a `with` block.

    Args:
        server_port: on 127.0.0.1.
        limits: bytes from the client after which each connection is cut, in turn; no more, no cut.

    Attributes:
        port: on 127.0.0.1, where it listens.
        cuts: how many connections were cut.
    """

    def __init__(self, server_port, limits):
        self._server_port = server_port
        self._limits = iter(limits)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.cuts = 0
        Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._server_port))
                limit = next(self._limits, None)
                Thread(target=self._pump, args=(client, server, limit), daemon=True).start()
                Thread(target=self._pump, args=(server, client, None), daemon=True).start()

    def _pump(self, source, target, limit):
        with suppress(OSError):
            while data := source.recv(1 << 16):
                if limit is not None and len(data) >= limit:
                    target.sendall(data[:limit])  # perhaps half of a message
                    self.cuts += 1
                    break
                limit = limit and limit - len(data)
                target.sendall(data)
        for one in (source, target):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
