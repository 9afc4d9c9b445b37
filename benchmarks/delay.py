"""A TCP proxy in a process of its own: it counts round trips and makes them longer."""

from __future__ import annotations

import asyncio
import multiprocessing
import selectors
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


class Proxy:
    """A running proxy; `round_trip` seconds, half each way, may change while it runs."""

    def __init__(self, port: int, trips: Any, delay: Any) -> None:
        self.port = port
        self._trips = trips
        self._delay = delay

    @property
    def trips(self) -> int:
        """How many times a client spoke after the server had spoken."""
        return int(self._trips.value)

    def set_round_trip(self, seconds: float) -> None:
        self._delay.value = seconds / 2


@contextmanager
def proxy(host: str, port: int) -> Iterator[Proxy]:
    """Run a proxy for a server."""
    context = multiprocessing.get_context("spawn")
    trips, delay = context.Value("q", 0, lock=False), context.Value("d", 0.0, lock=False)
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(host, port, trips, delay, there), daemon=True)
    process.start()
    try:
        yield Proxy(here.recv(), trips, delay)
    finally:
        process.terminate()
        process.join()


def _serve(host: str, port: int, trips: Any, delay: Any, pipe: Any) -> None:
    # Epoll waits for whole milliseconds, select for what it is told.
    loop = asyncio.SelectorEventLoop(selectors.SelectSelector())
    asyncio.set_event_loop(loop)

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, server = await asyncio.open_connection(host, port)
        answered = False

        async def carry(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            nonlocal answered
            while data := await source.read(1 << 18):
                if source is answers:
                    answered = True
                elif answered:
                    answered = False
                    trips.value += 1
                if delay.value:
                    loop.call_later(delay.value, target.write, data)
                else:
                    target.write(data)
            loop.call_later(delay.value, target.close)

        await asyncio.gather(carry(reader, server), carry(answers, writer), return_exceptions=True)

    async def main() -> None:
        listening = await asyncio.start_server(client, "127.0.0.1", 0)
        pipe.send(listening.sockets[0].getsockname()[1])
        await listening.serve_forever()

    loop.run_until_complete(main())
