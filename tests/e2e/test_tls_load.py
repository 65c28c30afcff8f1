# SPDX-License-Identifier: Apache-2.0
"""Many sessions over TLS at once, in one process: what an idle one costs, and that all work."""
import resource
import socket
import ssl
import threading
import time

import pytest

from lib.certs import Authority
from lib.kilat import HOLD, message, secure
from lib.net import RawSmtp, queue_id

IDLE = 10000
SENDING = 1000
IDLE_OCTETS_MAX = 4096      # of the gateway's resident memory, each


@pytest.mark.release
def test_idle_and_sending(gateways, folder):
    """Must show 3: 10,000 idle after EHLO under TLS at 4 KiB at most; then 1,000 more that send."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    need = IDLE + SENDING + 3000
    if hard < need:
        pytest.skip(f"the limit of open files is {hard}, this needs {need}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    ca = Authority(folder / "ca")
    kilat = gateways(route={"*": HOLD}, **secure(
        ca, mode="optional", relay={"connections_max": 100},
        limits={"sessions_max": IDLE + SENDING + 1500, "command_timeout": "10min"}))
    port, context = kilat.ports["submissions"], ca.context()
    context.options |= ssl.OP_NO_RENEGOTIATION
    for _ in range(200):        # what is allocated once is not counted
        session(port, context).close()
    time.sleep(1)
    before = kilat.rss()
    held = []
    try:
        for _ in range(IDLE):
            held.append(session(port, context))
        time.sleep(2)
        assert kilat.metrics()["sessions_open"] == IDLE
        each = (kilat.rss() - before) / IDLE
        print(f"{IDLE} idle TLS sessions: {each:.0f} octets of resident memory each")
        send_from_many(port, context)
        print(f"with {SENDING} more that send: {kilat.rss() / 1048576:.0f} MiB resident in all")
        for sock in held[::20]:
            sock.sendall(b"NOOP\r\n")
            assert sock.recv(4096).startswith(b"250 ")
        assert kilat.metrics()["messages_accepted_total"] == 3 * SENDING
        assert each <= IDLE_OCTETS_MAX
    finally:
        for sock in held:
            sock.close()


def session(port, context):
    """After EHLO, with nothing left to read."""
    sock = context.wrap_socket(socket.create_connection(("127.0.0.1", port), 30),
                               server_hostname="kilat.test")
    sock.settimeout(30)
    assert sock.recv(4096).startswith(b"220 ")
    sock.sendall(b"EHLO client.test\r\n")
    assert sock.recv(4096).startswith(b"250-")
    return sock


def send_from_many(port, context):
    """All are connected before the first one sends."""
    ready, errors = threading.Barrier(20), []

    def run():
        try:
            clients = [RawSmtp(port).tls(context) for _ in range(SENDING // 20)]
            for c in clients:
                c.hello()
            ready.wait(120)
            for _ in range(3):
                for c in clients:
                    assert queue_id(c.mail(message(10240)))
            for c in clients:
                c.sock.close()
        except Exception as error:      # pylint: disable=broad-except
            errors.append(error)
            ready.abort()
    threads = [threading.Thread(target=run) for _ in range(20)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not errors, errors[:3]
