"""Who listens on the node, as /proc says."""

import os
import socket
from pathlib import Path

from services.capture.identity.sockets import PROC, _sockets, _waiting, container_ports

CONTAINER = "ab" * 32
HEAD = "  sl  local_address rem_address   st tx rx tr tm->when retrnsmt uid timeout inode\n"


def line(port, state, inode, address="00000000"):
    return f"   0: {address}:{port:04X} 00000000:0000 {state} 0:0 00:0 0  0  0 {inode} 1 0\n"


def process(proc, number, namespace, inodes, cgroup):
    folder = proc / number
    (folder / "ns").mkdir(parents=True)
    (folder / "ns/net").symlink_to(namespace)
    (folder / "fd").mkdir()
    (folder / "fd/0").symlink_to("/dev/null")
    for inode in inodes:
        (folder / f"fd/{inode}").symlink_to(f"socket:[{inode}]")
    (folder / "cgroup").write_text(cgroup)


def made(tmp_path):
    """A node: a container in its network, another one that is not, and a daemon."""
    proc = tmp_path / "proc"
    in_container = f"0::/kubepods.slice/pod1.slice/cri-containerd-{CONTAINER}.scope\n"
    process(proc, "self", "net:[1]", [], "0::/\n")
    process(proc, "10", "net:[1]", [100, 101, 102], in_container)
    process(proc, "11", "net:[2]", [103], f"0::/kubepods/{'cd' * 32}\n")
    process(proc, "12", "net:[1]", [104], "0::/system.slice/sshd.service\n")
    tables = proc / "self/net"
    tables.mkdir()
    states = [(9100, "0A", 100), (40000, "01", 101), (81, "0A", 103), (22, "0A", 104)]
    (tables / "tcp").write_text(HEAD + "".join(line(*each) for each in states))
    (tables / "udp6").write_text(HEAD + line(53, "07", 102, "0" * 32))
    return proc


def test_a_container_has_the_ports_that_it_listens_on(tmp_path):
    assert container_ports(made(tmp_path)) == {CONTAINER: {9100, 53}}


def test_tables_that_are_damaged_or_not_there_name_nothing(tmp_path):
    proc = made(tmp_path)
    (proc / "self/net/tcp").write_bytes(b"\xff\xfe broken\n" * 3)
    (proc / "self/net/udp6").write_text(
        HEAD + "1 2 3\n" + line(53, "07", "x").replace(":0035", ":zz")
    )
    assert container_ports(proc) == {}
    assert container_ports(tmp_path / "nowhere") == {}


def test_the_kernel_writes_what_is_read_here():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        waiting = dict(_waiting(PROC))
        mine = {waiting.get(inode) for inode in _sockets(Path(f"/proc/{os.getpid()}"))}
    assert port in mine
