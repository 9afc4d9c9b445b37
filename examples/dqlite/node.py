"""A node of a dqlite cluster: `python node.py NUMBER HOST:PORT FOLDER` runs until it is killed.

libdqlite has no server program. Node 1 begins a cluster, if its folder is empty; the others join by
`ClusterClient.add_node`.
"""

from __future__ import annotations

import ctypes
import signal
import sys


def run(number: int, address: str, folder: str) -> None:
    """Start a node, print a line, and wait for a signal."""
    library = ctypes.CDLL("libdqlite.so.0")
    library.dqlite_node_errmsg.restype = ctypes.c_char_p
    node = ctypes.c_void_p()

    def check(code: int) -> None:
        if code != 0:
            sys.exit(f"dqlite: error {code}: {library.dqlite_node_errmsg(node)}")

    where = address.encode()
    check(
        library.dqlite_node_create(
            ctypes.c_uint64(number), where, folder.encode(), ctypes.byref(node)
        )
    )
    check(library.dqlite_node_set_bind_address(node, where))
    check(library.dqlite_node_start(node))
    print("ready", flush=True)
    signal.pause()


if __name__ == "__main__":
    run(int(sys.argv[1]), sys.argv[2], sys.argv[3])
