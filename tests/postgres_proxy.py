"""A proxy in front of PostgreSQL that counts messages, and cuts the connection at one of them."""

import socket
import ssl
import struct
from contextlib import suppress
from threading import Lock, Thread

WANTS_TLS = struct.pack("!ii", 8, 80877103)  # a client's first message, if it wants it
HEADER = 5  # bytes: the kind of a message, and its length without that byte


class Proxy:
    """Forwards message by message; close it, or use it in a `with` block.

    Attributes:
        port: on 127.0.0.1, where it listens.
        messages: the kinds of those forwarded so far: upper case from us, lower case from the
            server, as it is told apart here.
    """

    lingers = False  # whether the server is not told that the connection was cut

    def __init__(self, server_port):
        self._server_port = server_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.messages = []
        self._cut_at = None
        self._lock = Lock()
        self._pairs = []
        Thread(target=self._accept, daemon=True).start()

    def cut_after(self, count):
        """Cut the connection when so many more messages are through; count them from now."""
        with self._lock:
            self.messages = []
            self._cut_at = count

    def url(self, url):
        """Return the URL of the server as one of this proxy."""
        options = "sslmode=disable&gssencmode=disable"
        through = url.replace(f":{self._server_port}/", f":{self.port}/")
        return f"{through}{'&' if '?' in through else '?'}{options}"

    @property
    def was_cut(self):
        return self._cut_at is None

    def listen_no_more(self):
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # which wakes whoever accepts
        self._listener.close()

    def close(self):
        self.listen_no_more()
        for pair in self._pairs:
            _cut(*pair)

    def _accept(self):
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                with suppress(OSError, EOFError):  # of this client
                    self._join(self._welcome(client))

    def _join(self, client):
        server = socket.create_connection(("127.0.0.1", self._server_port))
        self._pairs.append((client, server))
        for one in (client, server):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        (size,) = struct.unpack("!i", _read(client, 4))
        server.sendall(struct.pack("!i", size) + _read(client, size - 4))
        for pair in ((client, server, str.upper), (server, client, str.lower)):
            Thread(target=self._pump, args=(*pair, client), daemon=True).start()

    def _welcome(self, client):
        """Return what to talk to a client by."""
        return client

    def _pump(self, source, target, shown, client):
        with suppress(OSError, EOFError):
            while True:
                header = _read(source, HEADER)
                (size,) = struct.unpack("!i", header[1:])
                body = _read(source, size - 4)
                with self._lock:
                    if self._cut_at is not None and len(self.messages) >= self._cut_at:
                        self._cut_at = None
                        break
                    self.messages.append(shown(chr(header[0])))
                    target.sendall(header + body)
        _cut(*([client] if self.lingers else [source, target]))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class TlsProxy(Proxy):
    """A proxy that talks TLS to clients that want it, as the wheel's server cannot.

    Args:
        server_port: of the server, on 127.0.0.1.
        certificate: the file that has it, and its key.
    """

    def __init__(self, server_port, certificate):
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate)
        super().__init__(server_port)

    def _welcome(self, client):
        if client.recv(len(WANTS_TLS), socket.MSG_PEEK) != WANTS_TLS:
            return client
        _read(client, len(WANTS_TLS))
        client.sendall(b"S")
        encrypted = self._context.wrap_socket(client, server_side=True)
        encrypted.settimeout(60)  # seconds; without, no thread may write while another one reads
        return encrypted


def _read(source, size):
    data = b""
    while len(data) < size:
        if not (more := source.recv(size - len(data))):
            raise EOFError
        data += more
    return data


def _cut(*sockets):
    for one in sockets:
        with suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
        one.close()
