"""Clusters of three servers for the tests, of one shape, as `servers` has it for single ones::

    found = Galera.find()
    if isinstance(found, str):
        pytest.skip(found)  # says what is missing
    with found as cluster:
        engines = [create_engine(cluster.url("mariadb+pymysql", node)) for node in range(3)]

``start`` returns when all nodes take writes. ``kill`` ends a node as a crash does and ``restart``
brings it back; ``freeze`` and ``thaw`` stop and continue a node's process, as a machine that
hangs or is cut off; ``wait`` waits until all nodes (or those given) are part of the cluster again.

``HAProxy`` gives a cluster one address: of the first node that takes writes, or of all in turn.

``python tests/clusters.py`` starts each kind once and says how long that took.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.request import Request, urlopen

import psycopg
import pymysql
from servers import STOP_SECONDS, MariaDB, MySQL, PostgreSQL, Server, Standby, free_port, programs
from sqlalchemy import URL, make_url

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Self

NODES = 3
WAIT_SECONDS = 90.0
_CHECK_SECONDS = 0.5
UNREACHABLE = (pymysql.MySQLError, psycopg.Error, OSError)
_PROVIDERS = ("/usr/lib/galera/libgalera_smm.so", "/usr/lib64/galera-4/libgalera_smm.so")


# A node that is killed has told the others of its last commits, so it must still have them: with 0,
# those of the last second would be lost to it, and it would go on with other rows than they have.
_KEEP_COMMITS = "--innodb-flush-log-at-trx-commit=2"

# A member that has lost the majority still says ONLINE of itself, and UNREACHABLE of the others.
_TAKES_WRITES = """
SELECT sum(member_id = @@server_uuid AND member_role = 'PRIMARY' AND member_state = 'ONLINE') = 1
   AND sum(member_state = 'ONLINE') > sum(member_state = 'UNREACHABLE')
FROM performance_schema.replication_group_members
"""


class Cluster:
    """Three nodes on the loopback interface."""

    kind: ClassVar[str]

    def __init__(self, nodes: Sequence[Server]) -> None:
        self.nodes = list(nodes)
        self._frozen: set[int] = set()

    @classmethod
    def find(cls) -> Self | str:
        """Return a cluster, not yet started, or the reason why there can be none."""
        raise NotImplementedError

    def start(self) -> Self:
        """Start all nodes, the first one first, and return when they are one cluster."""
        try:
            for i, node in enumerate(self.nodes):
                node.start()
                self._join(i, is_first=i == 0)
            self.wait()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End the processes of the nodes, and no others, and remove their folders."""
        for i in [*self._frozen]:
            self.thaw(i)
        for node in reversed(self.nodes):
            node.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def url(self, drivername: str, node: int = 0) -> str:
        """Return the URL of a node for a driver, such as ``mysql+aiomysql``."""
        return self.nodes[node].url(drivername)

    def kill(self, node: int) -> None:
        """End a node's process as a crash does; its folder stays."""
        self._frozen.discard(node)
        self.nodes[node].kill()

    def restart(self, node: int) -> None:
        """Start a node that was killed, on its port; it joins the others."""
        self.nodes[node].resume()
        self._join(node, is_first=False)

    def freeze(self, node: int) -> None:
        """Stop a node's process without ending it: connections stay open, nothing is answered."""
        self._frozen.add(node)
        self.nodes[node].freeze()

    def thaw(self, node: int) -> None:
        """Let a node's process go on."""
        self._frozen.discard(node)
        self.nodes[node].thaw()

    def states(self) -> list[str]:
        """Return the state of each node in the cluster's words; the error's where it has none."""
        return [self._state_or_error(i) for i in range(len(self.nodes))]

    def wait(self, *nodes: int, seconds: float = WAIT_SECONDS) -> None:
        """Wait until nodes, all of them by default, are part of the cluster and caught up."""
        wanted = nodes or tuple(range(len(self.nodes)))
        deadline = time.monotonic() + seconds
        while True:
            states = self.states()
            if all(states[i] == self._good(len(wanted)) for i in wanted):
                return
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.kind} after {seconds:.0f} s: {states}")
            time.sleep(0.1)

    def ask(self, node: int, statement: str) -> list[tuple[object, ...]]:
        """Execute a statement on a node, on a connection of its own.

        Not through SQLAlchemy, whose first questions a node without the others refuses.
        """
        address = self.nodes[node].address
        connection = pymysql.connect(
            host=address.host,
            port=address.port,
            user=address.username,
            database=address.database,
            autocommit=True,
            connect_timeout=3,
            read_timeout=60,
        )
        with connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return list(cursor.fetchall())

    def _state_or_error(self, node: int) -> str:
        if node in self._frozen:
            return "frozen"
        try:
            return self._state(node)
        except UNREACHABLE as error:
            return repr(error)

    def primary(self) -> int:
        """Return the first node that takes writes: a proxy's choice, and the only one if any."""
        for i, node in enumerate(self.nodes):
            if node.is_running and i not in self._frozen:
                with contextlib.suppress(*UNREACHABLE):
                    if self.takes_writes(i):
                        return i
        raise RuntimeError(f"no primary: {self.states()}")

    def rejoin(self, node: int) -> None:
        """Have a node join again that was cut off; most do so by themselves."""

    def check_port(self, node: int) -> int | None:
        """Return the port where a node itself answers a proxy's ``OPTIONS /primary``, if any."""

    # What each kind fills in.

    def takes_writes(self, node: int) -> bool:
        """Whether a node is part of the cluster and takes writes, as it says itself."""
        raise NotImplementedError

    def _join(self, node: int, *, is_first: bool) -> None:
        """Make a running node part of the cluster."""
        raise NotImplementedError

    def _state(self, node: int) -> str:
        raise NotImplementedError

    def _good(self, nodes: int) -> str:
        """Return the state of a node that takes writes, in a cluster of so many."""
        raise NotImplementedError


class _GaleraNode(MariaDB):
    kind = "Galera node"
    accounts = ("mysql", "nobody")  # the state transfer by rsync fails as root
    options = (
        *MariaDB.options,
        _KEEP_COMMITS,
        "--binlog-format=ROW",
        "--innodb-autoinc-lock-mode=2",
        "--wsrep-on=ON",
        "--wsrep-sst-method=rsync",
    )

    def __init__(self, command: Sequence[str], provider: str) -> None:
        super().__init__(command)
        self.provider = provider
        self.group, self.transfer, self.catch_up = free_port(), free_port(), free_port()
        self.peers: Sequence[_GaleraNode] = ()
        self.begins = False

    def _arguments(self, folder: Path, port: int) -> list[str]:
        here = "127.0.0.1"
        options = (
            f"base_host={here};base_port={self.group};gmcast.listen_addr=tcp://{here}:{self.group};"
            f"ist.recv_addr={here}:{self.catch_up};gcache.size=64M;"
            # A node that is gone is noticed in 2 s, not 5.
            "evs.suspect_timeout=PT2S;evs.inactive_timeout=PT4S;evs.keepalive_period=PT0.5S"
        )
        others = ",".join(f"{here}:{peer.group}" for peer in self.peers)
        arguments = super()._arguments(folder, port)
        if not self.begins:  # all that a node has comes from the others
            arguments = [each for each in arguments if not each.startswith("--init-file")]
        return [
            *arguments,
            f"--wsrep-provider={self.provider}",
            f"--wsrep-provider-options={options}",
            f"--wsrep-node-address={here}:{self.group}",
            f"--wsrep-node-incoming-address={here}:{port}",
            f"--wsrep-sst-receive-address={here}:{self.transfer}",
            f"--wsrep-cluster-address=gcomm://{'' if self.begins else others}",
            *(["--wsrep-new-cluster"] if self.begins else []),
        ]


class Galera(Cluster):
    """MariaDB with Galera: every node takes writes."""

    kind = "Galera"

    @classmethod
    def find(cls) -> Self | str:
        command = MariaDB.locate()
        if isinstance(command, str):
            return command
        provider = next((path for path in _PROVIDERS if Path(path).is_file()), None)
        if provider is None:
            return "no Galera: no libgalera_smm.so (Debian's galera-4)"
        for program in ("wsrep_sst_rsync", "rsync"):
            if not list(programs(program)):
                return f"no Galera: no {program} (Debian's mariadb-server and rsync)"
        nodes = [_GaleraNode(command, provider) for _ in range(NODES)]
        for node in nodes:
            node.peers = nodes
        return cls(nodes)

    def start(self) -> Self:
        first = self.nodes[0]
        assert isinstance(first, _GaleraNode)
        first.begins = True
        super().start()
        first.begins = False  # when it comes back, it joins
        return self

    def bootstrap(self, node: int) -> None:
        """Make a node that has lost the others a cluster of its own, as an administrator does."""
        self.ask(node, "SET GLOBAL wsrep_provider_options='pc.bootstrap=YES'")

    def takes_writes(self, node: int) -> bool:
        return self._state(node).startswith("Synced Primary")

    def _join(self, node: int, *, is_first: bool) -> None:
        """Do nothing: a node joins before it listens."""

    def _state(self, node: int) -> str:
        rows = self.ask(node, "SHOW GLOBAL STATUS LIKE 'wsrep_%'")
        found = {name: value for name, value in rows}  # noqa: C416 - of rows of two
        names = ("wsrep_local_state_comment", "wsrep_cluster_status", "wsrep_cluster_size")
        return " ".join(str(found.get(name)) for name in names)

    def _good(self, nodes: int) -> str:
        return f"Synced Primary {nodes}"


class _Member(MySQL):
    kind = "Group Replication member"
    plain = ("--skip-name-resolve", "--log-bin=b", "--gtid-mode=ON", "--enforce-gtid-consistency")
    options = (
        _KEEP_COMMITS,
        "--mysqlx=OFF",
        "--secure-file-priv=NULL",
        "--report-host=127.0.0.1",
        "--plugin-load-add=group_replication.so",
        "--group-replication-start-on-boot=OFF",
        "--group-replication-ip-allowlist=127.0.0.1/32",
        "--group-replication-recovery-get-public-key=ON",
        "--group-replication-member-expel-timeout=0",  # a silent member goes after 5 s
        "--group-replication-unreachable-majority-timeout=3",  # by default it waits for ever
        "--group-replication-autorejoin-tries=0",
    )
    # A member's own accounts are no transaction of the group's.
    first = ("SET sql_log_bin = 0", *MySQL.first)

    def __init__(self, command: Sequence[str], number: int, group: str, mode: str) -> None:
        super().__init__(command)
        self.number, self.group, self.mode = number, group, mode
        self.local = free_port()
        self.peers: Sequence[_Member] = ()

    def _initialise(self, data: Path) -> None:
        super()._initialise(data)
        (data / "auto.cnf").unlink(missing_ok=True)  # who it is: all copies would be one server

    def _arguments(self, folder: Path, port: int) -> list[str]:
        everywhere = "OFF" if self.mode == "ON" else "ON"
        seeds = ",".join(f"127.0.0.1:{peer.local}" for peer in self.peers)
        return [
            *super()._arguments(folder, port),
            f"--server-id={self.number}",
            f"--report-port={port}",
            f"--group-replication-group-name={self.group}",
            f"--group-replication-local-address=127.0.0.1:{self.local}",
            f"--group-replication-group-seeds={seeds}",
            f"--group-replication-single-primary-mode={self.mode}",
            f"--group-replication-enforce-update-everywhere-checks={everywhere}",
        ]


class GroupReplication(Cluster):
    """MySQL Group Replication with one primary: the others take no writes."""

    kind = "Group Replication"
    single_primary = True

    @classmethod
    def find(cls) -> Self | str:
        command = MySQL.locate()
        if isinstance(command, str):
            return command
        root = Path(command[-1]).parents[1]
        if not list(root.glob("lib*/**/group_replication.so")):
            return f"no Group Replication: no group_replication.so below {root}"
        group, mode = str(uuid.uuid4()), "ON" if cls.single_primary else "OFF"
        nodes = [_Member(command, i + 1, group, mode) for i in range(NODES)]
        for node in nodes:
            node.peers = nodes
        return cls(nodes)

    def takes_writes(self, node: int) -> bool:
        return self.ask(node, _TAKES_WRITES) == [(1,)]

    def switch(self) -> int:
        """Make another member the primary; return its node."""
        node = (self.primary() + 1) % len(self.nodes)
        self.ask(node, "DO group_replication_set_as_primary(@@server_uuid)")
        return node

    def rejoin(self, node: int) -> None:
        """Have a member join again that has left the group, in ERROR or expelled."""
        self._leave(node)
        self._join(node, is_first=False)

    def bootstrap(self, node: int) -> None:
        """Make a member that has lost the others a group of its own, as an administrator does."""
        self._leave(node)
        self._join(node, is_first=True)

    def _leave(self, node: int) -> None:
        self.ask(node, "STOP GROUP_REPLICATION")
        self.ask(node, "SET GLOBAL offline_mode = OFF")

    def _join(self, node: int, *, is_first: bool) -> None:
        self.ask(
            node,
            "CHANGE REPLICATION SOURCE TO SOURCE_USER = 'root', SOURCE_PASSWORD = ''"
            " FOR CHANNEL 'group_replication_recovery'",
        )
        if is_first:
            self.ask(node, "SET GLOBAL group_replication_bootstrap_group = ON")
        self.ask(node, "START GROUP_REPLICATION")
        if is_first:
            self.ask(node, "SET GLOBAL group_replication_bootstrap_group = OFF")

    def _state(self, node: int) -> str:
        found = self.ask(
            node,
            "SELECT member_state, (SELECT count(*) FROM"
            " performance_schema.replication_group_members WHERE member_state = 'ONLINE')"
            " FROM performance_schema.replication_group_members WHERE member_id = @@server_uuid",
        )
        return " ".join(str(each) for row in found for each in row)

    def _good(self, nodes: int) -> str:
        return f"ONLINE {nodes}"


class MultiPrimary(GroupReplication):
    """MySQL Group Replication where every member takes writes."""

    kind = "multi-primary Group Replication"
    single_primary = False


class Etcd(Server):
    """etcd, one member: the place where Patroni's nodes agree on the primary."""

    kind = "etcd"
    variable = "CHECKPOINT_SA_ETCD_URL"
    default = make_url("http://127.0.0.1:2379")
    stop_signal = signal.SIGKILL

    @classmethod
    def locate(cls) -> list[str] | str:
        found = ([str(program)] for program in programs("etcd"))
        return next(found, "no etcd: no etcd (Debian's etcd-server)")

    def _initialise(self, data: Path) -> None:
        """Leave the folder to etcd."""

    def _arguments(self, folder: Path, port: int) -> list[str]:
        clients, peers = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{free_port()}"
        return [
            f"--data-dir={folder / 'data'}",
            f"--listen-client-urls={clients}",
            f"--advertise-client-urls={clients}",
            f"--listen-peer-urls={peers}",
            f"--initial-advertise-peer-urls={peers}",
            f"--initial-cluster=default={peers}",
        ]

    def _accepts(self, folder: Path) -> bool:
        return b"ready to serve client requests" in (folder / "server.log").read_bytes()


class _PatroniNode(PostgreSQL):
    """A Patroni and the PostgreSQL that it starts."""

    kind = "Patroni node"
    stop_signal = signal.SIGTERM  # Patroni ends PostgreSQL first

    def __init__(self, command: Sequence[str], programs_folder: str, number: int) -> None:
        super().__init__(command)
        self.programs_folder, self.number = programs_folder, number
        self.rest = 0
        self.etcd: Etcd
        # Patroni runs on the system's Python, which must not import our modules.
        self.environment = {"PYTHONPATH": ""}

    def call(self, path: str, body: object = None) -> bytes:
        """Call Patroni's REST API; return the answer."""
        data = None if body is None else json.dumps(body).encode()
        with urlopen(Request(f"http://127.0.0.1:{self.rest}{path}", data), timeout=30) as answer:
            content: bytes = answer.read()
        return content

    def freeze(self) -> None:
        """Stop Patroni and each process of PostgreSQL."""
        super().freeze()
        for process in self._postgres():
            os.kill(process, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let PostgreSQL go on first: for a moment an old primary doesn't know of the new one."""
        for process in self._postgres():
            os.kill(process, signal.SIGCONT)
        super().thaw()

    def _initialise(self, data: Path) -> None:
        """Leave the folder to Patroni: initdb on the first node, pg_basebackup on the others."""
        self.rest = free_port()

    def _arguments(self, folder: Path, port: int) -> list[str]:
        rest, address = f"127.0.0.1:{self.rest}", f"127.0.0.1:{port}"
        account = {"username": "postgres"}
        settings = {
            "scope": "checkpoint-sa",
            "name": str(self.number),
            "restapi": {"listen": rest, "connect_address": rest},
            "etcd3": {"host": f"{self.etcd.host}:{self.etcd.port}"},
            "bootstrap": {
                # A primary that is gone is replaced after 5 s, not 30.
                "dcs": {
                    "ttl": 5,
                    "loop_wait": 1,
                    "retry_timeout": 2,
                    # A commit is acknowledged when a standby has it, and only that one succeeds.
                    "synchronous_mode": True,
                    "postgresql": {"use_pg_rewind": True, "parameters": {"max_connections": 200}},
                },
                "initdb": [{"encoding": "UTF8"}, {"locale": "C.UTF-8"}, "no-sync"],
            },
            "postgresql": {
                "listen": address,
                "connect_address": address,
                "bin_dir": self.programs_folder,
                "data_dir": str(folder / "data"),
                "pgpass": str(folder / "pgpass"),
                "basebackup": [{"checkpoint": "fast"}, "no-sync"],
                "authentication": {"superuser": account, "replication": account},
                "pg_hba": [
                    "host all all 127.0.0.1/32 trust",
                    "host replication all 127.0.0.1/32 trust",
                ],
                # A killed process loses nothing that it has written: fsync is for power failures.
                "parameters": {
                    "fsync": "off",
                    "shared_buffers": "32MB",
                    "unix_socket_directories": "",
                },
            },
        }
        path = folder / "patroni.yml"
        path.write_text(json.dumps(settings))  # JSON is YAML
        return [str(path)]

    def _accepts(self, folder: Path) -> bool:
        with contextlib.suppress(OSError):
            self.call("/health")
            return True
        return False

    def _postgres(self) -> list[int]:
        """Return the processes of PostgreSQL, the first one first."""
        assert self._folder is not None
        with contextlib.suppress(OSError, IndexError):
            first = (self._folder / "data" / "postmaster.pid").read_text().split()[0]
            children = Path(f"/proc/{first}/task/{first}/children").read_text().split()
            return [int(process) for process in (first, *children)]
        return []

    def _end(self, how: signal.Signals | None = None, seconds: float = STOP_SECONDS) -> None:
        """Kill Patroni, which would start PostgreSQL again, and then PostgreSQL."""
        processes = self._postgres() if self._process is not None else []
        super()._end(signal.SIGKILL)
        for process in processes[:1]:
            # "Immediate shutdown" leaves no shared memory; after a crash the next start removes it.
            os.kill(process, how or signal.SIGQUIT)
        deadline = time.monotonic() + seconds
        while any(_runs(process) for process in processes) and time.monotonic() < deadline:
            time.sleep(0.01)


class Patroni(Cluster):
    """PostgreSQL with Patroni and etcd: one primary, and two standbys of which one is in sync."""

    kind = "Patroni"

    def __init__(self, nodes: Sequence[_PatroniNode], etcd: Etcd) -> None:
        super().__init__(nodes)
        self.members, self.etcd = list(nodes), etcd

    @classmethod
    def find(cls) -> Self | str:
        command, etcd = Standby.locate(), Etcd.find()
        if isinstance(command, str):
            return command
        if isinstance(etcd, str):
            return etcd
        patroni = next(programs("patroni"), None)
        if patroni is None:
            return "no Patroni: no patroni (Debian's patroni)"
        folder = str(Path(command[-1]).parent)
        nodes = [_PatroniNode([str(patroni)], folder, i) for i in range(NODES)]
        for node in nodes:
            node.etcd = etcd
        return cls(nodes, etcd)

    def start(self) -> Self:
        self.etcd.start()
        return super().start()

    def stop(self) -> None:
        super().stop()
        self.etcd.stop()

    def url_of_all(self, drivername: str) -> str:
        """Return the URL with all nodes, for drivers that look for the primary themselves."""
        query = {
            "host": [f"{node.host}:{node.port}" for node in self.nodes],
            "target_session_attrs": "read-write",
            "connect_timeout": "2",
        }
        url = URL.create(drivername, username="postgres", database="test", query=query)
        return url.render_as_string(hide_password=False)

    def ask(self, node: int, statement: str) -> list[tuple[object, ...]]:
        return self._ask(node, statement, "test")

    def takes_writes(self, node: int) -> bool:
        return self._ask(node, "SELECT pg_is_in_recovery()", "postgres") == [(False,)]

    def switch(self) -> int:
        """Make the standby in sync the primary; return its node."""
        old = self.primary()
        members = json.loads(self.members[old].call("/cluster"))["members"]
        new = next(member["name"] for member in members if member["role"] == "sync_standby")
        self.members[old].call("/switchover", {"leader": str(old), "candidate": new})
        return int(new)

    def check_port(self, node: int) -> int | None:
        return self.members[node].rest

    def _ask(self, node: int, statement: str, database: str) -> list[tuple[object, ...]]:
        address = self.nodes[node].address
        connection = psycopg.connect(
            host=address.host,
            port=address.port,
            user=address.username,
            dbname=database,
            autocommit=True,
            connect_timeout=3,
        )
        with connection, connection.cursor() as cursor:
            cursor.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def _join(self, node: int, *, is_first: bool) -> None:
        if is_first:
            while not self.takes_writes(node):
                time.sleep(0.1)
            self._ask(node, "CREATE DATABASE test", "postgres")

    def _state(self, node: int) -> str:
        members = json.loads(self.members[node].call("/cluster"))["members"]
        running = [each["role"] for each in members if each["state"] in {"running", "streaming"}]
        return f"{len(running)} {' '.join(sorted(set(running)))}"

    def _good(self, nodes: int) -> str:
        return f"{nodes} leader replica sync_standby"


class _Checks:
    """The answers to a proxy's questions about a node: an HTTP server in a thread."""

    def __init__(self, cluster: Cluster, node: int) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_OPTIONS(self) -> None:
                is_up = False
                with contextlib.suppress(*UNREACHABLE):
                    is_up = cluster.takes_writes(node)
                with contextlib.suppress(OSError):  # the proxy may have given up
                    self.send_response(200 if is_up else 503)
                    self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_port
        self._thread = Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class HAProxy(Server):
    """HAProxy in front of a cluster: one address for all nodes."""

    kind = "HAProxy"
    variable = "CHECKPOINT_SA_HAPROXY_URL"
    default = make_url("mysql+pymysql://root@127.0.0.1:3306/test")
    stop_signal = signal.SIGTERM  # at once
    upstream: Cluster
    in_turn = False  # whether all nodes get connections, or the first one that takes writes

    @classmethod
    def locate(cls) -> list[str] | str:
        return next(([str(program)] for program in programs("haproxy")), "no HAProxy: no haproxy")

    def start(self) -> Self:
        super().start()
        time.sleep(4 * _CHECK_SECONDS)  # until its first check, a node counts as one that is up
        return self

    def stop(self) -> None:
        super().stop()
        while self._checks:
            self._checks.pop().stop()

    def url(self, drivername: str) -> str:
        address = self.upstream.nodes[0].address.set(drivername=drivername, port=self.port)
        return address.render_as_string(hide_password=False)

    def _initialise(self, data: Path) -> None:
        self._checks: list[_Checks] = []

    def _arguments(self, folder: Path, port: int) -> list[str]:
        servers = "".join(
            f"    server node{i} 127.0.0.1:{node.port} check port {self._check_port(i)}"
            f"{' backup' if i and not self.in_turn else ''}\n"
            for i, node in enumerate(self.upstream.nodes)
        )
        settings = folder / "haproxy.cfg"
        settings.write_text(
            "global\n    maxconn 1000\n"
            "defaults\n    mode tcp\n    timeout connect 2s\n    timeout check 2s\n"
            "    timeout client 1h\n    timeout server 1h\n"
            f"listen cluster\n    bind 127.0.0.1:{port}\n    balance roundrobin\n"
            # A connection would not tell: the kernel accepts it for a process that is stopped.
            "    option httpchk OPTIONS /primary\n    http-check expect status 200\n"
            f"    default-server inter {_CHECK_SECONDS * 1000:.0f} fall 2 rise 2"
            " on-marked-down shutdown-sessions\n"
            f"{servers}"
        )
        return ["-db", "-f", str(settings)]

    def _check_port(self, node: int) -> int:
        if own := self.upstream.check_port(node):
            return own
        self._checks.append(_Checks(self.upstream, node))
        return self._checks[-1].port

    def _accepts(self, folder: Path) -> bool:
        return _listens(self._process.pid if self._process else 0)


def _runs(process: int) -> bool:
    """Whether a process has not ended, even if its parent hasn't noticed yet."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def _listens(process: int) -> bool:
    """Whether a process has a listening socket, by what the kernel says of it."""
    sockets = set()
    with contextlib.suppress(OSError):
        for entry in Path(f"/proc/{process}/fd").iterdir():
            with contextlib.suppress(OSError):
                sockets.add(str(entry.readlink()))
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return any(row[3] == "0A" and f"socket:[{row[9]}]" in sockets for row in rows)


CLUSTERS: dict[str, type[Cluster]] = {
    "galera": Galera,
    "group-replication": GroupReplication,
    "multi-primary": MultiPrimary,
    "patroni": Patroni,
}


def _check() -> None:
    for name in sys.argv[1:] or CLUSTERS:
        found = CLUSTERS[name].find()
        if isinstance(found, str):
            print(found)  # noqa: T201
            continue
        begin = time.monotonic()
        with found as cluster:
            print(f"{name}: {time.monotonic() - begin:.1f} s: {cluster.states()}")  # noqa: T201


if __name__ == "__main__":
    _check()
