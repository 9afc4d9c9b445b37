"""Three nodes of dqlite on the loopback interface, in temporary folders."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from dqliteclient.cluster import ClusterClient
from dqliteclient.exceptions import ClusterError
from dqlitewire import NodeRole

if TYPE_CHECKING:
    from typing import Self

NODE = Path(__file__).with_name("node.py")
OPTIONS = "timeout=2&dial_timeout=1&attempt_timeout=1&busy_timeout=60"
"""A leader that hangs is soon left; a transaction waits up to 60 seconds for another one."""


class Cluster:
    """Three nodes, each a process."""

    def __init__(self) -> None:
        self.addresses = [f"127.0.0.1:{_free_port()}" for _ in range(3)]
        self._processes: dict[int, subprocess.Popen[str]] = {}
        self._folders = tempfile.TemporaryDirectory()

    def __enter__(self) -> Self:
        try:
            for node in range(3):
                self.start(node)
            asyncio.run(self._join())
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for node in [*self._processes]:
            self.kill(node)
        self._folders.cleanup()

    def url(self, node: int = 0, drivername: str = "dqlite") -> str:
        """Return the URL of a node, which names the leader."""
        # A pool gives its connections to any thread; the async driver doesn't know this option.
        threads = "" if drivername == "dqlite+aio" else "&check_same_thread=false"
        return f"{drivername}://{self.addresses[node]}/app?{OPTIONS}{threads}"

    def start(self, node: int) -> None:
        """Start a node, or start it again on its folder."""
        folder = Path(self._folders.name, str(node))
        folder.mkdir(exist_ok=True)
        command = [sys.executable, str(NODE), str(node + 1), self.addresses[node], str(folder)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self._processes[node] = process
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"

    def kill(self, node: int) -> None:
        """End a node's process as a crash does; its folder stays."""
        process = self._processes.pop(node)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert process.stdout is not None
        process.stdout.close()

    def freeze(self, node: int) -> None:
        """Stop a node's process without ending it."""
        os.kill(self._processes[node].pid, signal.SIGSTOP)

    def thaw(self, node: int) -> None:
        """Let a node's process go on."""
        os.kill(self._processes[node].pid, signal.SIGCONT)

    def leader(self) -> int:
        """Return the node that is the leader."""
        client = ClusterClient.from_addresses(self.addresses)
        return self.addresses.index(asyncio.run(client.find_leader()))

    def wait(self, seconds: float = 30.0) -> None:
        """Wait until the nodes have a leader."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                self.leader()
            except ClusterError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
            else:
                return

    async def _join(self) -> None:
        client = ClusterClient.from_addresses(self.addresses[:1])
        for node in (1, 2):
            await client.add_node(node + 1, self.addresses[node], role=NodeRole.VOTER)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port
