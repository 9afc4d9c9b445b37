"""Load with faults: nothing that was acknowledged is lost.

    python benchmarks/soak.py --seconds 600 postgresql mariadb mysql
    python benchmarks/soak.py --seconds 600 galera

For each server: 64 tasks put and read checkpoints of 1,000 threads, 100 bytes to 5 MB each, through
a proxy that resets connections, while sessions are killed and the server is restarted. At the end
each acknowledged checkpoint is compared, byte for byte, with what was put. Prints the operations,
the faults, the retries, the losses, and the latency over time.

`galera` is a cluster of three nodes behind HAProxy. Instead of restarts, every minute the node in
use is killed, or its process is stopped, for ten seconds. Checkpoints are compared on each node.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import logging
import random
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from clusters import Galera, HAProxy
from langgraph.checkpoint.base import empty_checkpoint
from proxy import Proxy
from servers import KINDS, Server
from sqlalchemy import create_engine
from sqlalchemy.exc import DBAPIError

from checkpoint_sa import AsyncSQLAlchemySaver

if TYPE_CHECKING:
    from collections.abc import Iterator

    from langchain_core.runnables import RunnableConfig
    from sqlalchemy import Connection, Engine

TASKS, THREADS = 64, 1_000
OUTAGE_SECONDS = 10
DRIVERS = {
    "postgresql": "postgresql+asyncpg",
    "mariadb": "mariadb+aiomysql",
    "mysql": "mysql+aiomysql",
    "galera": "mariadb+aiomysql",
}
SYNC = {
    "postgresql": "postgresql+psycopg",
    "mariadb": "mariadb+pymysql",
    "mysql": "mysql+pymysql",
    "galera": "mariadb+pymysql",
}
SERVERS = ("postgresql", "mariadb", "mysql")
BYTES = (100, 100, 100, 1_000, 1_000, 10_000, 100_000)
RARE_BYTES = (1_000_000, 5_000_000)


class Soak:
    """One server under load."""

    options: ClassVar[dict[str, Any]] = {}
    """More options of the engine."""

    def __init__(self, name: str, server: Server, seconds: float) -> None:
        self.name = name
        self.server = server
        self.seconds = seconds
        self.random = random.Random(0)
        self.counts: Counter[str] = Counter()
        self.latencies: list[tuple[float, float]] = []
        self.acknowledged: dict[tuple[str, str], bytes] = {}
        """(thread, checkpoint) -> digest of its value."""

    async def run(self) -> int:
        """Put load on the server, then compare; return the number of losses."""
        admin = create_engine(self.server.url(SYNC[self.name]), isolation_level="AUTOCOMMIT")
        with Proxy(self.server.url(DRIVERS[self.name])) as proxy:
            async with AsyncSQLAlchemySaver.from_conn_string(
                proxy.url,
                retry_seconds=60,
                pool_size=16,
                max_overflow=0,
                pool_timeout=120,
                **self.options,
            ) as saver:
                await saver.setup()
                self.begin = time.monotonic()
                faults = asyncio.create_task(self.inject(proxy, admin))
                try:
                    await asyncio.gather(*(self.work(saver, number) for number in range(TASKS)))
                finally:
                    faults.cancel()
                    with suppress(asyncio.CancelledError):
                        await faults  # raises what ended it too early
                self.counts["retries"] = saver.metrics.retries
                self.counts["failures"] = saver.metrics.failures
            losses = self.counts["stale reads"]
            for url in self.urls(proxy.url):
                async with AsyncSQLAlchemySaver.from_conn_string(url, **self.options) as saver:
                    losses += await self.losses(saver)
        admin.dispose()
        self.report(losses)
        return losses

    def is_over(self) -> bool:
        return time.monotonic() - self.begin > self.seconds

    async def work(self, saver: AsyncSQLAlchemySaver, number: int) -> None:
        """Go on with the threads of one task, which no other task has."""
        own = [f"thread-{i}" for i in range(number, THREADS, TASKS)]
        latest: dict[str, RunnableConfig] = {}
        while not self.is_over():
            thread = self.random.choice(own)
            config = latest.get(thread) or {
                "configurable": {"thread_id": thread, "checkpoint_ns": ""}
            }
            checkpoint = empty_checkpoint()
            is_rare = self.random.random() < 0.005
            value = self.random.randbytes(self.random.choice(RARE_BYTES if is_rare else BYTES))
            checkpoint["channel_values"] = {"x": value}
            checkpoint["channel_versions"] = {"x": saver.get_next_version(None, None)}
            begin = time.monotonic()
            latest[thread] = await saver.aput(
                config, checkpoint, {}, checkpoint["channel_versions"]
            )
            self.latencies.append((begin - self.begin, time.monotonic() - begin))
            self.acknowledged[thread, checkpoint["id"]] = hashlib.sha256(value).digest()
            self.counts["puts"] += 1
            await saver.aput_writes(latest[thread], [("x", checkpoint["id"])], "task")
            found = await saver.aget_tuple({"configurable": {"thread_id": thread}})
            if found is None or found.checkpoint["id"] != checkpoint["id"]:
                self.counts["stale reads"] += 1
            self.counts["reads"] += 1

    async def inject(self, proxy: Proxy, admin: Engine) -> None:
        """Break something about once a second, and the whole server now and then."""
        outages = self.outages()
        while True:
            await asyncio.sleep(self.random.uniform(0.2, 1.0))
            if outages and time.monotonic() - self.begin > outages[0]:
                outages.pop(0)
                begin = time.monotonic()
                await asyncio.to_thread(self.break_server)
                self.counts["seconds of outages"] += round(time.monotonic() - begin)
            elif self.random.random() < 0.3:
                self.counts["sessions killed"] += await asyncio.to_thread(self.kill, admin)
            else:
                proxy.reset_at(self.random.randrange(50), answered=self.random.random() < 0.5)
                self.counts["resets"] += 1

    def urls(self, url: str) -> list[str]:
        """Return where the checkpoints are compared, from the address of the load."""
        return [url]

    def outages(self) -> list[float]:
        """Return the moments of the outages, in seconds from the beginning."""
        return [self.seconds / 3, self.seconds * 2 / 3]

    def break_server(self) -> None:
        """Restart the server."""
        self.server.restart()
        self.counts["restarts"] += 1

    def kill(self, admin: Engine) -> int:
        """End some sessions; return how many."""
        admin.dispose()  # the server may have been restarted
        killed = 0
        with suppress(DBAPIError), admin.connect() as connection:
            for end in list(self.ends(connection))[:3]:
                with suppress(DBAPIError):  # it has ended by itself
                    connection.exec_driver_sql(end)
                    killed += 1
        return killed

    def ends(self, connection: Connection) -> Iterator[str]:
        """Yield the statement that ends each session but this one."""
        if self.name == "postgresql":
            for number in connection.exec_driver_sql(
                "SELECT pid FROM pg_stat_activity"
                " WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
            ).scalars():
                yield f"SELECT pg_terminate_backend({number})"
        else:  # MySQL's processlist table fails where some session's statement is not UTF-8
            own = connection.exec_driver_sql("SELECT connection_id()").scalar()
            for number, user, *_ in connection.exec_driver_sql("SHOW PROCESSLIST"):
                if number != own and user not in {"event_scheduler", "system user"}:
                    yield f"KILL {number}"

    async def losses(self, saver: AsyncSQLAlchemySaver) -> int:
        """Compare what is stored with what was acknowledged."""
        lost = 0
        for (thread, checkpoint_id), digest in self.acknowledged.items():
            names = {"thread_id": thread, "checkpoint_id": checkpoint_id}
            found = await saver.aget_tuple({"configurable": names})
            value = b"" if found is None else found.checkpoint["channel_values"].get("x", b"")
            lost += hashlib.sha256(value).digest() != digest
        return lost

    def report(self, losses: int) -> None:
        """Print what happened, and the latency of puts: median and worst of each tenth."""
        said = ", ".join(f"{count:,} {what}" for what, count in self.counts.items())
        print(f"{self.name}: {self.seconds:g} s, {said}, {losses} losses")
        tenth = self.seconds / 10
        for part in range(10):
            times = sorted(t for at, t in self.latencies if part <= at / tenth < part + 1)
            if times:
                median, worst = times[len(times) // 2] * 1000, times[-1] * 1000
                bar = "#" * min(60, round(median / 5))
                figures = f"median {median:7.1f} ms  worst {worst:8.0f} ms"
                print(f"  {part * tenth:6.0f} s  {figures}  {bar}")


class GaleraSoak(Soak):
    """Galera behind HAProxy, under load."""

    options: ClassVar[dict[str, Any]] = {
        "connect_args": {"init_command": "SET SESSION wsrep_sync_wait = 1"}
    }

    def __init__(self, proxy: HAProxy, cluster: Galera, seconds: float) -> None:
        super().__init__("galera", proxy, seconds)
        self.cluster = cluster

    def outages(self) -> list[float]:
        count = max(2, round(self.seconds / 60) - 1)
        return [self.seconds * (i + 1) / (count + 1) for i in range(count)]

    def break_server(self) -> None:
        """Kill the node in use, or stop its process; it comes back ten seconds later."""
        node = self.cluster.primary()
        if self.counts["nodes killed"] > self.counts["nodes stopped"]:
            self.cluster.freeze(node)
            time.sleep(OUTAGE_SECONDS)
            self.cluster.thaw(node)
            self.counts["nodes stopped"] += 1
        else:
            self.cluster.kill(node)
            time.sleep(OUTAGE_SECONDS)
            self.cluster.restart(node)
            self.counts["nodes killed"] += 1
        self.cluster.wait()

    def urls(self, _: str) -> list[str]:
        return [self.cluster.url(DRIVERS[self.name], i) for i in range(len(self.cluster.nodes))]


def soak_galera(seconds: float) -> int:
    """Run the soak on Galera; return the number of losses."""
    cluster, proxy = Galera.find(), HAProxy.find()
    if isinstance(cluster, str) or isinstance(proxy, str):
        print(cluster if isinstance(cluster, str) else proxy)
        return 0
    proxy.upstream = cluster
    with cluster, proxy:
        return asyncio.run(GaleraSoak(proxy, cluster, seconds).run())


def main() -> int:
    """Run the soak on the servers that are named; return 1 where something was lost."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60, help="for each server")
    parser.add_argument("servers", nargs="*", default=SERVERS, help="default: all but galera")
    given = parser.parse_args()
    for logger in ("sqlalchemy.pool", "checkpoint_sa.retry", "checkpoint_sa.slow"):
        logging.getLogger(logger).setLevel(logging.CRITICAL)  # there would be thousands of lines
    lost = 0
    for name in given.servers:
        if name == "galera":
            lost += soak_galera(given.seconds)
            continue
        found = next(kind for kind in KINDS if kind.kind.lower() == name).find()
        if isinstance(found, str):
            print(found)
            continue
        with found as server:
            lost += asyncio.run(Soak(name, server, given.seconds).run())
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
