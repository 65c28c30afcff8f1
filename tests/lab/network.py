# SPDX-License-Identifier: Apache-2.0
"""
network - network namespaces of the lab's own, joined by a bridge; and how to be inside of one.

    become_private()                        # this process and what it starts leave the machine's
    add("postfix", numbers=[10, 11])        # 10.77.0.10, fd77::10, ...
    with inside("postfix"): ...             # sockets made and programs started here are in it

Namespaces are a property of a thread: what a program or a socket was born in stays with it.
"""
import contextlib
import ctypes
import os
import subprocess

CLONE_NEWNET = 0x40000000
BRIDGE = "lab"


def ipv4(number):
    return f"10.77.0.{number}"


def ipv6(number):
    return f"fd77::{number}"


def ip(*words):
    subprocess.run(["ip", *map(str, words)], check=True)


def become_private():
    """The calling thread gets a network of its own, with a bridge in it; names of further ones are
    kept in a folder that only this mount namespace sees."""
    os.makedirs("/run/netns", exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "lab", "/run/netns"], check=True)
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "cannot make a network namespace")
    ip("link", "set", "lo", "up")
    ip("link", "add", BRIDGE, "type", "bridge")
    ip("link", "set", BRIDGE, "up")
    _addresses(BRIDGE, [1])


def _addresses(device, numbers):
    for number in numbers:
        ip("addr", "add", ipv4(number) + "/24", "dev", device)
        ip("addr", "add", ipv6(number) + "/64", "dev", device, "nodad")


def add(name, numbers):
    ip("netns", "add", name)
    ip("link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name)
    ip("link", "set", name, "master", BRIDGE, "up")
    with inside(name):
        ip("link", "set", "lo", "up")
        ip("link", "set", "eth0", "up")
        _addresses("eth0", numbers)


def _enter(space):
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(space, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "cannot enter a network namespace")


@contextlib.contextmanager
def inside(name):
    with open("/proc/thread-self/ns/net", "rb") as before, \
            open(f"/run/netns/{name}", "rb") as space:
        _enter(space.fileno())
        try:
            yield
        finally:
            _enter(before.fileno())
