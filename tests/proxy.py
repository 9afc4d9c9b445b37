"""A TCP proxy that resets a connection at a chosen message, or is gone for a while."""

from __future__ import annotations

import selectors
import socket
import struct
import threading
from typing import TYPE_CHECKING

from sqlalchemy import make_url

if TYPE_CHECKING:
    from typing_extensions import Self

RESET = struct.pack("ii", 1, 0)  # SO_LINGER of no time: closing sends RST


class Proxy:
    """Stands before one server; a context."""

    def __init__(self, url: str) -> None:
        self._target = make_url(url)
        self._listener = self._listen(0)
        self._port = self._listener.getsockname()[1]
        self.url = self._target.set(host="127.0.0.1", port=self._port).render_as_string(
            hide_password=False
        )
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._waker, self._wake = socket.socketpair()
        self._selector.register(self._waker, selectors.EVENT_READ)
        self._peers: dict[socket.socket, socket.socket] = {}
        self._clients: set[socket.socket] = set()
        self.trips = 0
        """How often a client spoke after the server had spoken."""
        self._spoke = False
        self._left: int | None = None
        self._answered = False
        self._doomed: socket.socket | None = None
        self.has_reset = False
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._wake.close()
        self._thread.join()

    def reset_at(self, message: int, *, answered: bool) -> None:
        """Reset at a client's n-th message from now: before the server has it, or its answer."""
        self._doomed, self.has_reset, self._answered = None, False, answered
        self._left = message

    def lead_to(self, url: str) -> None:
        """Lead new connections to another server; those there are stay where they are."""
        self._target = make_url(url)

    def disarm(self) -> bool:
        """Reset no more; say whether it came to that."""
        self._left = self._doomed = None
        return self.has_reset

    def _listen(self, port: int) -> socket.socket:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(64)
        return listener

    def _serve(self) -> None:
        while True:
            for key, _ in self._selector.select():
                ready = key.fileobj
                assert isinstance(ready, socket.socket)
                if ready is self._waker:
                    for client in list(self._clients):
                        self._reset(client)
                    for end in (self._listener, self._waker, self._selector):
                        end.close()
                    return
                if ready is self._listener:
                    self._accept()
                elif ready in self._peers:  # else it was reset by the event before this one
                    self._pass_on(ready)

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        try:
            server = socket.create_connection((self._target.host, self._target.port))
        except OSError:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            client.close()
            return
        self._clients.add(client)
        for end, other in ((client, server), (server, client)):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._peers[end] = other
            self._selector.register(end, selectors.EVENT_READ)

    def _pass_on(self, end: socket.socket) -> None:
        other = self._peers[end]
        try:
            data = end.recv(2**20)
            is_client = end in self._clients
            self.trips += is_client and self._spoke
            self._spoke = not is_client
            if data and is_client and self._left is not None:
                self._left -= 1
                if self._left < 0:
                    self._left = None
                    self.has_reset = True
                    if not self._answered:
                        data = b""
                    else:
                        self._doomed = end
            if not data or other is self._doomed:
                self._reset(end)
            else:
                other.sendall(data)
        except OSError:
            self._reset(end)

    def _reset(self, end: socket.socket) -> None:
        for one in (end, self._peers[end]):
            self._selector.unregister(one)
            del self._peers[one]
            self._clients.discard(one)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            one.close()
