"""A network between hospitals and their server that a test can cut, as a failing line does: nobody is told."""

import socket
import threading
from contextlib import suppress

SIZE = 1 << 16


class Proxy:
    """Forwards TCP connections on loopback, except while it is cut.

    While it is cut nothing passes and nothing is closed. What was connected before is closed when it is mended, as a
    router does that has forgotten it.

    Args:
        port: where the server listens.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._open = threading.Event()
        self._open.set()
        self._connections: list[socket.socket] = []
        self._listener = socket.create_server(("localhost", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Let nothing pass."""
        self._open.clear()

    def mend(self) -> None:
        """Let new connections pass."""
        old, self._connections = self._connections, []
        for connection in old:
            _end(connection)
        self._open.set()

    def close(self) -> None:
        """End everything."""
        _end(self._listener)
        self.mend()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(("localhost", self._target))
                self._connections += [near, far]
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=self._forward, args=pair, daemon=True).start()

    def _forward(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(SIZE):
                self._open.wait()
                target.sendall(data)
        _end(source)
        _end(target)


def _end(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
