# SPDX-License-Identifier: Apache-2.0
"""
What a client wrote arrives octet for octet, after the fields that Kilat adds. The judge: what the
receiver gets from the client directly must be the tail of what it gets through Kilat.
"""
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from lib import postfix_tools
from lib.kilat import Kilat, message, send, smarthost
from lib.mx import Mx
from lib.net import RawSmtp, wait_until

MIB = 1024 * 1024
ADDRESSES = ("from@sender.test", "to@rcpt.test")


def odd_lines():
    return message(600) + b"".join(
        b"." * n + b"x" * m + b"\r\n" for n in range(4) for m in (0, 1, 60))


CONTENTS = {
    "1KiB": lambda: message(1024),
    "10KiB": lambda: message(10 * 1024),
    "100KiB": lambda: message(100 * 1024),
    "25MiB": lambda: message(25 * MIB),
    "leading-dots": odd_lines,
    "998-octet-lines": lambda: message(600) + (b"x" * 998 + b"\r\n") * 40,
    "8bit": lambda: message(600) + bytes(b for b in range(1, 256) if b not in b"\r\n") + b"\r\n",
    "empty-lines": lambda: message(600) + b"\r\n" * 50,
    "header-only": lambda: message(600).split(b"\r\n\r\n")[0] + b"\r\n\r\n",
}


def by_smtplib(port, content, folder):
    send(port, content, ADDRESSES[0], ADDRESSES[1:], timeout=60)


def by_raw_pipelined(port, content, folder):
    with RawSmtp(port, timeout=60) as raw:
        raw.hello()
        raw.send(f"MAIL FROM:<{ADDRESSES[0]}>\r\nRCPT TO:<{ADDRESSES[1]}>\r\nDATA\r\n")
        assert [raw.reply().code for _ in range(3)] == [250, 250, 354]
        from lib.net import stuff
        raw.send(stuff(content) + b".\r\n")
        reply = raw.reply()
        assert reply.code == 250, reply


def by_smtp_source(port, content, folder):
    path = folder / "source.eml"
    path.write_bytes(content.replace(b"\r\n", b"\n"))
    postfix_tools.smtp_source(port, "-F", path, "-m", 1, "-f", ADDRESSES[0], "-t", ADDRESSES[1])


def by_swaks(port, content, folder):
    path = folder / "swaks.eml"
    path.write_bytes(content.replace(b"\r\n", b"\n"))
    done = subprocess.run(["swaks", "--server", f"127.0.0.1:{port}", "--from", ADDRESSES[0], "--to",
                           ADDRESSES[1], "--data", f"@{path}", "--helo", "client.test",
                           "--hide-all", "--timeout", "60"], capture_output=True, timeout=120)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


CLIENTS = {"smtplib": by_smtplib, "raw": by_raw_pipelined, "smtp-source": by_smtp_source,
           "swaks": by_swaks}


class MxReceiver:
    def __init__(self, folder):
        self.mx = Mx()

    def __enter__(self):
        self.port = self.mx.start().port
        return self

    def __exit__(self, *_):
        self.mx.stop()
        assert self.mx.violations == []

    def next(self):
        content = self.mx.wait(1, timeout=60)[0].content
        self.mx.messages.clear()
        return content


class SinkReceiver:
    def __init__(self, folder):
        self.sink = postfix_tools.SmtpSink(folder / "sink")
        self.port = self.sink.port

    def __enter__(self):
        self.sink.__enter__()
        wait_until(lambda: _answers(self.port), 10, "smtp-sink")
        return self

    def __exit__(self, *_):
        self.sink.__exit__()

    def next(self):
        """smtp-sink writes as it reads: wait until a file has stopped growing."""
        sizes = []

        def settled():
            found = self.sink.files()
            sizes.append(found[0].stat().st_size if found else 0)
            return len(sizes) > 10 and sizes[-1] and len(set(sizes[-10:])) == 1
        wait_until(settled, 60, "a message at smtp-sink", step=0.03)
        content = self.sink.contents()[0]
        for path in self.sink.files():
            path.unlink()
        return content


def _answers(port):
    try:
        with RawSmtp(port) as raw:
            return raw.reply().code == 220
    except OSError:
        return False


@pytest.fixture(scope="module", params=[MxReceiver, SinkReceiver], ids=["mx", "smtp-sink"])
def path(request, module_folder):
    """(receiver, gateway that relays to it)"""
    folder = module_folder / request.param.__name__
    folder.mkdir()
    with request.param(folder) as receiver:
        with Kilat(folder / "k", route={"*": smarthost(receiver.port)}) as kilat:
            yield receiver, kilat


def check_added(added):
    """What Kilat put before: one Received field and nothing else."""
    text = added.decode()
    assert re.fullmatch(r"Received: [^\r\n]+\r\n([ \t][^\r\n]+\r\n)*", text), text
    assert "by kilat.test" in text and " id " in text and "from client.test" in text or \
        "by kilat.test" in text, text
    assert all(len(line) <= 998 for line in text.split("\r\n"))


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("content", CONTENTS)
def test_arrives(path, folder, client, content):
    receiver, kilat = path
    octets = CONTENTS[content]()
    CLIENTS[client](receiver.port, octets, folder)
    direct = receiver.next()
    assert direct.startswith(octets), "the client and the receiver alone already differ"
    CLIENTS[client](kilat.port, octets, folder)
    relayed = receiver.next()
    assert relayed.endswith(direct)
    check_added(relayed[:len(relayed) - len(direct)])


def test_adds_what_is_missing(path):
    """Date and Message-ID, and nothing twice; Bcc goes (P-97 and around)."""
    receiver, kilat = path
    body = b"From: a@sender.test\r\nBcc: secret@rcpt.test\r\nSubject: s\r\n\r\nbody\r\n"
    send(kilat.port, body)
    got = receiver.next()
    head, rest = got.split(b"\r\n\r\n", 1)
    assert rest.startswith(b"body\r\n")
    for name in (b"Received", b"Date", b"Message-ID", b"From", b"Subject"):
        assert len(re.findall(rb"(?mi)^" + name + b":", head)) == 1, head
    assert b"secret" not in got


def test_large_messages_side_by_side(gateways, mx):
    """Several sessions stream at once, more than one message each: no octet overtakes another."""
    kilat = gateways(route={"*": smarthost(mx.port)})

    def numbered(tag):
        lines = [b"From: a@sender.test\r\nDate: Mon, 23 Nov 2026 00:00:00 +0000\r\n"
                 b"Message-ID: <" + tag + b"@sender.test>\r\nSubject: s\r\n\r\n"]
        lines += [tag + b" %d " % n + b"x" * (n % 700) + b"\r\n" for n in range(22_000)]
        return b"".join(lines)

    contents = [numbered(b"m%d.%d" % (i, k)) for i in range(4) for k in range(2)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda i: [send(kilat.port, c) for c in contents[2 * i:2 * i + 2]], range(4)))
    got = [m.content for m in mx.wait(len(contents), timeout=120)]
    for content in contents:
        assert sum(g.endswith(content) for g in got) == 1
