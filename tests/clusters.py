"""Clusters of three servers for the tests, of one shape, as `servers` has it for single ones::

    found = Galera.find()
    if isinstance(found, str):
        pytest.skip(found)  # says what is missing
    with found as cluster:
        engines = [create_engine(cluster.url("mariadb+pymysql", node)) for node in range(3)]

``start`` returns when all nodes take writes. ``kill`` ends a node as a crash does and ``restart``
brings it back; ``freeze`` and ``thaw`` stop and continue a node's process, as a machine that
hangs or is cut off; ``wait`` waits until all nodes (or those given) are part of the cluster again.

``HAProxy`` gives a cluster one address: of the first node that answers, or of all in turn.

``python tests/clusters.py`` starts each kind once and says how long that took.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import pymysql
from servers import MariaDB, MySQL, Server, free_port, programs
from sqlalchemy import make_url

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Self

NODES = 3
WAIT_SECONDS = 90.0
_PROVIDERS = ("/usr/lib/galera/libgalera_smm.so", "/usr/lib64/galera-4/libgalera_smm.so")


# A node that is killed has told the others of its last commits, so it must still have them: with 0,
# those of the last second would be lost to it, and it would go on with other rows than they have.
_KEEP_COMMITS = "--innodb-flush-log-at-trx-commit=2"

_PRIMARY = """
SELECT member_port FROM performance_schema.replication_group_members
WHERE member_role = 'PRIMARY' AND member_state = 'ONLINE'
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
            read_timeout=30,
        )
        with connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return list(cursor.fetchall())

    def _state_or_error(self, node: int) -> str:
        if node in self._frozen:
            return "frozen"
        try:
            return self._state(node)
        except pymysql.MySQLError as error:
            return repr(error)

    # What each kind fills in.

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

    def primary(self) -> int:
        """Return the node that takes writes, as the nodes in reach see it."""
        ports = {node.port: i for i, node in enumerate(self.nodes) if node.is_running}
        for i in set(ports.values()) - self._frozen:
            with contextlib.suppress(pymysql.MySQLError):
                for (port,) in self.ask(i, _PRIMARY):
                    if port in ports:
                        return ports[int(str(port))]
        raise RuntimeError(f"no primary: {self.states()}")

    def rejoin(self, node: int) -> None:
        """Have a member join again that has left the group, in ERROR or expelled."""
        self.ask(node, "STOP GROUP_REPLICATION")
        self._join(node, is_first=False)

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


class HAProxy(Server):
    """HAProxy in front of a cluster: one address for all nodes."""

    kind = "HAProxy"
    variable = "CHECKPOINT_SA_HAPROXY_URL"
    default = make_url("mysql+pymysql://root@127.0.0.1:3306/test")
    stop_signal = signal.SIGTERM  # at once
    upstream: Cluster
    in_turn = False  # whether all nodes get connections, or the first one that answers

    @classmethod
    def locate(cls) -> list[str] | str:
        return next(([str(program)] for program in programs("haproxy")), "no HAProxy: no haproxy")

    def _initialise(self, data: Path) -> None:
        """Keep nothing."""

    def _arguments(self, folder: Path, port: int) -> list[str]:
        servers = "".join(
            f"    server node{i} 127.0.0.1:{node.port} check"
            f"{' backup' if i and not self.in_turn else ''}\n"
            for i, node in enumerate(self.upstream.nodes)
        )
        settings = folder / "haproxy.cfg"
        settings.write_text(
            "global\n    maxconn 1000\n"
            "defaults\n    mode tcp\n    timeout connect 2s\n"
            "    timeout client 1h\n    timeout server 1h\n"
            f"listen cluster\n    bind 127.0.0.1:{port}\n    balance roundrobin\n"
            # No mysql-check: that of HAProxy 2.6 can't log in to MySQL 9.
            "    default-server inter 500 fall 2 rise 2 on-marked-down shutdown-sessions\n"
            f"{servers}"
        )
        return ["-db", "-f", str(settings)]

    def _accepts(self, folder: Path) -> bool:
        return _listens(self._process.pid if self._process else 0)


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
