# SPDX-License-Identifier: Apache-2.0
"""net - ports, waiting, and a bare SMTP client that says exactly what it is told."""
import base64
import ctypes
import signal
import socket
import time

PR_SET_PDEATHSIG = 1


def end_with_us():
    """For Popen(preexec_fn=...): the child gets SIGKILL when this process ends, however it ends.
    The kernel watches the thread that started it, so only for what the main thread starts."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def free_port():
    """A TCP port of 127.0.0.1 that was free a moment ago."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_until(check, timeout=10.0, what="condition", step=0.02):
    """Calls check until it is true and returns its value; fails after timeout seconds."""
    end = time.monotonic() + timeout
    while True:
        value = check()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {timeout} s: {what() if callable(what) else what}")
        time.sleep(step)


class Reply:
    """One SMTP reply: code 0 means that the connection ended instead."""

    def __init__(self, lines):
        self.lines = lines
        self.code = int(lines[-1][:3]) if lines else 0
        self.text = "\n".join(line[4:] for line in lines)

    def __repr__(self):
        return f"Reply({self.lines!r})"


class RawSmtp:
    """A client without opinions. Octets go out as given; replies are parsed leniently."""

    def __init__(self, port, timeout=20.0, source=None, host="127.0.0.1"):
        self.sock = socket.create_connection((host, port), timeout,
                                             source_address=(source, 0) if source else None)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buf = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()

    def send(self, octets):
        self.sock.sendall(octets if isinstance(octets, bytes) else octets.encode())

    def line(self):
        """The next line without its end; None when the connection has ended."""
        while b"\n" not in self.buf:
            try:
                got = self.sock.recv(65536)
            except ConnectionError:
                return None
            if not got:
                return None
            self.buf += got
        line, self.buf = self.buf.split(b"\n", 1)
        return line.rstrip(b"\r").decode("latin-1")

    def reply(self):
        lines = []
        while True:
            line = self.line()
            if line is None:
                return Reply([])
            lines.append(line)
            if line[3:4] != "-":
                return Reply(lines)

    def cmd(self, line):
        self.send(line + "\r\n" if isinstance(line, str) else line + b"\r\n")
        return self.reply()

    def hello(self, name="client.test"):
        greeting = self.reply()
        assert greeting.code == 220, greeting
        reply = self.cmd("EHLO " + name)
        assert reply.code == 250, reply
        return reply

    # -- TLS and AUTH -------------------------------------------------------------------------

    def tls(self, context, name="kilat.test", session=None):
        """Shakes hands; what was read in clear and not asked for is an error."""
        assert self.buf == b"", self.buf
        self.sock = context.wrap_socket(self.sock, server_hostname=name, session=session)
        return self

    def starttls(self, context, name="kilat.test", session=None):
        reply = self.cmd("STARTTLS")
        assert reply.code == 220, reply
        return self.tls(context, name, session)

    def auth_plain(self, user, password):
        """Returns the reply."""
        text = base64.b64encode(f"\0{user}\0{password}".encode()).decode()
        return self.cmd(f"AUTH PLAIN {text}")

    def mail(self, content, sender="from@sender.test", rcpts=("to@rcpt.test",)):
        """One transaction, step by step; returns the reply to the final dot."""
        reply = self.cmd(f"MAIL FROM:<{sender}>")
        assert reply.code == 250, reply
        for rcpt in rcpts:
            reply = self.cmd(f"RCPT TO:<{rcpt}>")
            assert reply.code == 250, reply
        reply = self.cmd("DATA")
        assert reply.code == 354, reply
        self.send(stuff(content) + b".\r\n")
        return self.reply()


def stuff(content):
    """Dot-stuffed octets of a message whose lines end in CRLF."""
    if content.startswith(b"."):
        content = b"." + content
    return content.replace(b"\r\n.", b"\r\n..")


def queue_id(reply):
    """The id in "250 2.0.0 Ok: queued as ID"."""
    text = reply.text if isinstance(reply, Reply) else reply
    if isinstance(text, bytes):
        text = text.decode()
    word = text.split("queued as ", 1)[1].split()[0]
    assert len(word) == 20, text
    return word
