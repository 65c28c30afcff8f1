# SPDX-License-Identifier: Apache-2.0
"""
mx - a mail host that keeps what it gets and misbehaves by script.

    with Mx() as mx:
        mx.on("rcpt", "550 5.1.1 No such user", match="nobody@")
        mx.on("dot", "451 4.3.0 Later", times=2)
        mx.on("body", Close(after=1000))
        ...
        message = mx.wait(1)[0]

A rule names a stage, what happens there, and when: only for lines that match, at most `times`
times, not the first `skip` times. The first rule that fits wins; without one the host is well
behaved.

stages   connect   before the greeting        greeting  the greeting itself
         ehlo helo mail rcpt data rset noop quit   the reply to that command
         bdat      the reply to a chunk, its octets read
         body      while content arrives      dot       at the end of content, before its reply
         starttls auth   the reply to that command     tls      where the handshake would begin
actions  "550 text" or a list of lines: a reply instead of the usual one
         Reply(lines, close=, drip=, delay=, half_close=)   a reply, and how it is said
         Close(after=octets, reset=)          ends the connection, in the body after so many octets
         Stall(seconds)                       says nothing for so long, then goes on as usual

It is also a judge of the client: what breaks RFC 5321 or uses what was not offered goes to
`violations`, which a test expects to be empty. Offered is what `extensions` says, as EHLO says it:
PIPELINING, SIZE n, 8BITMIME, BINARYMIME, CHUNKING, SMTPUTF8, DSN, DELIVERBY [n], MT-PRIORITY,
LIMITS NAME=n ..., REQUIRETLS, ENHANCEDSTATUSCODES; a message keeps the parameters it came with.

With tls=(certificate, key) it offers STARTTLS, or speaks TLS from the start (implicit=True); with
users={"name": "password or token"} AUTH PLAIN LOGIN XOAUTH2, over TLS only.

Runs on a thread of its own (asyncio); everything a test reads is only ever appended to.
"""
import asyncio
import base64
import random
import re
import socket
import ssl
import struct
import threading
import time
from dataclasses import dataclass, field

STAGES = {"connect", "greeting", "ehlo", "helo", "mail", "rcpt", "data", "bdat", "body", "dot",
          "rset", "noop", "quit", "starttls", "tls", "auth"}
LINE_MAX = 2048       # of a command, extensions included
CONTENT_LINE_MAX = 998

# The parameters we know: what must have been offered, and what a value looks like.
XTEXT = r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})"
MAIL_PARAMS = {
    "SIZE": ("SIZE", r"\d{1,20}"),
    "BODY": ("8BITMIME", r"7BIT|8BITMIME|BINARYMIME"),
    "SMTPUTF8": ("SMTPUTF8", None),
    "RET": ("DSN", r"FULL|HDRS"),
    "ENVID": ("DSN", XTEXT + r"{1,100}"),
    "BY": ("DELIVERBY", r"-?\d{1,9};[NR]T?"),
    "MT-PRIORITY": ("MT-PRIORITY", r"-?\d"),
    "REQUIRETLS": ("REQUIRETLS", None),
}
RCPT_PARAMS = {
    "NOTIFY": ("DSN", r"NEVER|(?:SUCCESS|FAILURE|DELAY)(?:,(?:SUCCESS|FAILURE|DELAY))*"),
    "ORCPT": ("DSN", r"[A-Za-z0-9-]+;" + XTEXT + "+"),
}


@dataclass
class Reply:
    lines: object               # a line, or a list of lines in full ("250-a", "250 b")
    close: bool = False         # ends the connection after it
    drip: float = 0.0           # seconds between octets
    delay: float = 0.0          # seconds before it
    half_close: bool = False    # sends FIN after it, goes on reading


@dataclass
class Close:
    after: int = 0              # body: octets of content to read before
    reset: bool = False         # RST instead of FIN


@dataclass
class Stall:
    seconds: float = 1e9


@dataclass
class Message:
    sender: str
    sender_params: str
    rcpts: list
    content: bytes              # dots removed, lines end in CRLF
    connection: int             # number of the connection, from 0
    helo: str
    time: float                 # monotonic, when its last octet had come
    rcpt_params: list           # of each of rcpts, as text
    by_bdat: bool               # it came in chunks
    tls: str                    # "TLSv1.3", or "" in clear
    user: str                   # who logged in, or ""


@dataclass
class Rule:
    stage: str
    action: object
    match: object
    times: float
    skip: int


@dataclass
class Connection:
    number: int
    commands: list = field(default_factory=list)    # lines as they came
    messages: int = 0
    mails: int = 0              # MAIL commands
    pipelined: int = 0          # commands that came before the reply to the one before
    ended: bool = False
    tls: str = ""               # version
    resumed: bool = False
    server_name: str = ""       # the client's SNI
    peer: str = ""              # the client's address


class _Ended(Exception):
    """The connection is over, by either side."""


class Mx:
    extensions = ("PIPELINING", "SIZE 104857600", "8BITMIME", "ENHANCEDSTATUSCODES")

    def __init__(self, extensions=None, helo_only=False, port=0, keep_content=True, name="mx.test",
                 on_message=None, chaos=None, host="127.0.0.1", tls=None, implicit=False,
                 users=None):
        """chaos: (seed, rate): at each stage, with that chance, something temporary goes wrong."""
        self.tls, self.implicit, self.users = None, implicit, users or {}
        if tls:
            self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.tls.load_cert_chain(*map(str, tls))
            self.tls.sni_callback = lambda sock, name, _: self._names.append(name or "")
        self._names = []
        self.name = name
        self.host = host
        self.port = port
        self.offered = self.extensions if extensions is None else tuple(extensions)
        self.helo_only = helo_only
        self.keep_content = keep_content
        self.on_message = on_message        # called in our thread for each message accepted
        self.chance, self.chaos_rate = (random.Random(chaos[0]), chaos[1]) if chaos else (None, 0)
        self.rules = []
        self.messages = []                  # accepted with 250
        self.refused = []                   # complete, but answered otherwise
        self.connections = []
        self.violations = []
        self.lock = threading.Lock()
        self._thread = None

    # -- what a test uses ---------------------------------------------------------------------

    def on(self, stage, action, match=None, times=float("inf"), skip=0):
        assert stage in STAGES, stage
        with self.lock:
            self.rules.append(Rule(stage, action, match and re.compile(match, re.I), times, skip))
        return self

    def clear(self):
        with self.lock:
            self.rules.clear()

    def wait(self, count, timeout=20.0):
        """The messages, once there are at least so many."""
        end = time.monotonic() + timeout
        while len(self.messages) < count:
            if time.monotonic() > end:
                raise AssertionError(f"{len(self.messages)} of {count} messages within {timeout} s")
            time.sleep(0.01)
        return self.messages

    def open_connections(self):
        return sum(not c.ended for c in self.connections)

    def start(self):
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), daemon=True)
        self._thread.start()
        assert ready.wait(10), "the mx did not start"
        if isinstance(self._error, Exception):
            raise self._error
        return self

    def stop(self):
        if self._thread and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(10)

    __enter__ = start

    def __exit__(self, *_):
        self.stop()

    # -- the server ---------------------------------------------------------------------------

    _error = None

    def _run(self, ready):
        asyncio.run(self._serve(ready))

    async def _serve(self, ready):
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self._tasks = set()
        try:
            server = await asyncio.start_server(self._client, self.host, self.port, backlog=1024,
                                                limit=1 << 20)
        except OSError as error:
            self._error = error
            ready.set()
            return
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        await self._stop.wait()
        server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _client(self, reader, writer):
        task = asyncio.current_task()
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        record = Connection(len(self.connections), peer=writer.get_extra_info("peername")[0])
        self.connections.append(record)
        try:
            await _Session(self, record, reader, writer).run()
        except (_Ended, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            record.ended = True
            writer.close()

    def action(self, stage, text=""):
        with self.lock:
            for rule in self.rules:
                if rule.stage != stage or (rule.match and not rule.match.search(text)):
                    continue
                if rule.skip > 0:
                    rule.skip -= 1
                    continue
                if rule.times > 0:
                    rule.times -= 1
                    return rule.action
        return self._mischief(stage)

    def _mischief(self, stage):
        if not self.chance or self.chance.random() >= self.chaos_rate:
            return None
        if stage in ("connect", "body"):
            return Close(after=self.chance.randrange(200), reset=self.chance.random() < 0.5)
        kinds = ["tempfail", "close", "421", "reset"]
        kind = self.chance.choice(kinds)
        if kind == "tempfail":
            return Reply("421 4.3.2 Chaos at the greeting", close=True) if stage == "greeting" \
                else "451 4.3.0 Chaos"
        if kind == "421":
            return Reply("421 4.3.2 Chaos, closing", close=True)
        return Close(reset=kind == "reset")


class _Session:
    """One connection: reads lines, looks for a rule, else does what RFC 5321 says."""

    def __init__(self, mx, record, reader, writer):
        self.mx, self.record, self.reader, self.writer = mx, record, reader, writer
        self.buf = bytearray()
        self.helo = ""
        self.offered = ()
        self.reset()

        self.user = ""

    def reset(self):
        self.sender = None
        self.params = ""
        self.rcpts = []
        self.rcpt_params = []
        self.chunks = None

    def blame(self, what):
        self.mx.violations.append(f"connection {self.record.number}: {what}")

    async def more(self):
        got = await self.reader.read(262144)
        if not got:
            raise _Ended
        self.buf += got

    async def line(self):
        while (end := self.buf.find(b"\n")) < 0:
            if len(self.buf) > LINE_MAX:
                self.blame("a command line without end")
                raise _Ended
            await self.more()
        line = bytes(self.buf[:end + 1])
        del self.buf[:end + 1]
        if not line.endswith(b"\r\n") or b"\r" in line[:-2] or b"\0" in line:
            self.blame(f"bad octets in a command: {line!r}")
        if len(line) > LINE_MAX:
            self.blame(f"a command of {len(line)} octets")
        return line.rstrip(b"\r\n").decode("utf-8", "surrogateescape")

    async def end(self, reset=False):
        if reset:
            sock = self.writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.writer.transport.abort()
        raise _Ended

    async def say(self, lines, drip=0.0):
        lines = [lines] if isinstance(lines, str) else lines
        octets = b"".join(line.encode("utf-8", "surrogateescape") + b"\r\n" for line in lines)
        if drip:
            for octet in octets:
                self.writer.write(bytes([octet]))
                await self.writer.drain()
                await asyncio.sleep(drip)
        else:
            self.writer.write(octets)
            await self.writer.drain()

    async def answer(self, stage, text, usual):
        """Says the usual reply or what a rule wants; True when it was positive."""
        action = self.mx.action(stage, text)
        if isinstance(action, Stall):
            await asyncio.sleep(action.seconds)
            action = None
        if isinstance(action, Close):
            await self.end(action.reset)
        if action is None:
            action = usual
        reply = action if isinstance(action, Reply) else Reply(action)
        if reply.delay:
            await asyncio.sleep(reply.delay)
        await self.say(reply.lines, reply.drip)
        if reply.half_close:
            self.writer.write_eof()
        if reply.close:
            await self.end()
        last = reply.lines if isinstance(reply.lines, str) else reply.lines[-1]
        return last[:1] in "23"

    async def shake_hands(self):
        action = self.mx.action("tls")
        if isinstance(action, Stall):
            await asyncio.sleep(action.seconds)
        elif isinstance(action, str):
            await self.say(action)
            await self.end()
        elif action is not None:
            await self.end(action.reset)
        try:
            await self.writer.start_tls(self.mx.tls)
        except (ssl.SSLError, OSError) as error:
            raise _Ended from error
        tls = self.writer.get_extra_info("ssl_object")
        self.record.tls, self.record.resumed = tls.version(), tls.session_reused
        self.record.server_name = self.mx._names[-1] if self.mx._names else ""
        self.offered, self.helo = (), ""
        self.reset()

    async def on_starttls(self, text):
        if not self.offers("STARTTLS"):
            self.blame("STARTTLS was not offered")
        if self.buf:
            self.blame("sent on after STARTTLS without waiting (RFC 3207 4)")
        if await self.answer("starttls", text, "220 2.0.0 Go ahead"):
            await self.shake_hands()

    async def ask(self, challenge):
        await self.say("334 " + base64.b64encode(challenge.encode()).decode())
        return base64.b64decode(await self.line()).decode()

    async def on_auth(self, text):
        if not self.offers("AUTH"):
            self.blame("AUTH was not offered")
        words = text.split(" ")
        first = base64.b64decode(words[2]).decode() if len(words) > 2 else None
        if words[1] == "PLAIN":
            _, user, secret = first.split("\0")
        elif words[1] == "LOGIN":
            user, secret = await self.ask("Username:"), await self.ask("Password:")
        else:
            found = re.fullmatch("user=(.*)\1auth=Bearer (.*)\1\1", first)
            user, secret = found[1], found[2]
        if self.mx.users.get(user) == secret:
            if await self.answer("auth", text, "235 2.7.0 Ok"):
                self.user = user
            return
        if words[1] == "XOAUTH2" and await self.ask('{"status":"401"}') != "":
            self.blame("something was said to the explanation of a refused token")
        await self.say("535 5.7.8 Wrong credentials")

    def extensions_now(self):
        lines = list(self.mx.offered)
        if self.mx.tls and not self.record.tls:
            lines.append("STARTTLS")
        if self.mx.users and self.record.tls:
            lines.append("AUTH PLAIN LOGIN XOAUTH2")
        return tuple(lines)

    async def run(self):
        if self.mx.tls and self.mx.implicit:
            await self.shake_hands()
        action = self.mx.action("connect")
        if isinstance(action, Stall):
            await asyncio.sleep(action.seconds)
        elif action is not None:
            await self.end(getattr(action, "reset", False))
        if self.buf:
            self.blame("spoke before the greeting")
        if not await self.answer("greeting", "", f"220 {self.mx.name} ESMTP"):
            self.offered = ()
        while True:
            text = await self.line()
            self.record.commands.append(text)
            verb = text.split(" ", 1)[0].upper()
            if self.buf and verb in ("EHLO", "HELO", "DATA", "QUIT", "NOOP", "AUTH"):
                if verb != "NOOP":
                    self.blame(f"sent on after {verb} without waiting (RFC 2920 3.1)")
            elif self.buf and verb != "BDAT":
                self.record.pipelined += 1
                if "PIPELINING" not in self.offered:
                    self.blame(f"pipelined after {verb}, which was not offered")
            handler = getattr(self, "on_" + verb.lower(), None)
            if handler:
                await handler(text)
            else:
                self.blame(f"unknown command {text!r}")
                await self.say("500 5.5.2 Unknown command")

    async def on_ehlo(self, text):
        self.reset()
        self.helo = text[5:]
        if self.mx.helo_only:
            await self.answer("ehlo", text, "500 5.5.1 Unknown command")
            return
        offered = self.extensions_now()
        lines = [f"250-{self.mx.name}"] + ["250-" + e for e in offered]
        lines[-1] = "250 " + lines[-1][4:]
        if await self.answer("ehlo", text, lines):
            self.offered = offered

    def offers(self, keyword):
        return any(e.split()[0] == keyword for e in self.offered)

    def limit(self, name):
        """The number announced by LIMITS, or none."""
        for extension in self.offered:
            found = re.search(rf"\b{name}=(\d+)", extension)
            if extension.startswith("LIMITS") and found:
                return int(found[1])
        return float("inf")

    async def on_helo(self, text):
        self.reset()
        self.helo = text[5:]
        self.offered = ()
        await self.answer("helo", text, f"250 {self.mx.name}")

    def check_params(self, text, known):
        seen = set()
        for param in text.split():
            name, _, value = param.partition("=")
            need, form = known.get(name, (None, None))
            if param == "BODY=BINARYMIME":
                need = "BINARYMIME"
            if not need or not self.offers(need):
                self.blame(f"parameter {param} was not offered")
            elif not (re.fullmatch(form, value) if form else param == name):
                self.blame(f"parameter {param} is malformed")
            if name in seen:
                self.blame(f"parameter {param} stands twice")
            seen.add(name)

    def check_ascii(self, text, params):
        if not text.isascii() and "SMTPUTF8" not in params.split():
            self.blame(f"not ASCII, and not SMTPUTF8: {text!r}")

    def check_limits(self):
        """RFC 9422, as far as a client can break it."""
        domains = {rcpt.rpartition("@")[2].lower() for rcpt in self.rcpts}
        if len(self.rcpts) > self.limit("RCPTMAX"):
            self.blame("more recipients than RCPTMAX")
        if len(domains) > self.limit("RCPTDOMAINMAX"):
            self.blame("more domains than RCPTDOMAINMAX")

    async def on_mail(self, text):
        found = re.fullmatch(r"MAIL FROM:<(.*)>( .*)?", text, re.I)
        if not found or not self.helo or self.sender is not None:
            self.blame(f"out of order or malformed: {text!r}")
            await self.say("503 5.5.1 Bad sequence")
            return
        self.check_params(found[2] or "", MAIL_PARAMS)
        self.check_ascii(text, found[2] or "")
        self.record.mails += 1
        if self.record.mails > self.limit("MAILMAX"):
            self.blame("more transactions than MAILMAX")
        if await self.answer("mail", text, "250 2.1.0 Ok"):
            self.reset()
            self.sender, self.params = found[1], (found[2] or "").strip()

    async def on_rcpt(self, text):
        found = re.fullmatch(r"RCPT TO:<(.+)>( .*)?", text, re.I)
        if not found:
            self.blame(f"malformed: {text!r}")
        if self.sender is None or not found:
            await self.say("503 5.5.1 Need MAIL")
            return
        self.check_params(found[2] or "", RCPT_PARAMS)
        self.check_ascii(text, self.params)
        if await self.answer("rcpt", text, "250 2.1.5 Ok"):
            self.rcpts.append(found[1])
            self.rcpt_params.append((found[2] or "").strip())
            self.check_limits()

    async def on_data(self, text):
        if self.sender is None or not self.rcpts:
            await self.say("503 5.5.1 Need RCPT")
            return
        if "BODY=BINARYMIME" in self.params or self.chunks is not None:
            self.blame("DATA for what can only come by BDAT (RFC 3030 2, 3)")
        if await self.answer("data", text, "354 Go ahead"):
            await self.take(await self.read_content(self.mx.action("body")), by_bdat=False)
        self.reset()

    async def on_bdat(self, text):
        found = re.fullmatch(r"BDAT (\d+)( LAST)?", text, re.I)
        if not found or not self.offers("CHUNKING"):
            self.blame(f"not offered, or malformed: {text!r}")
            await self.say("500 5.5.2 Unknown command")
            return
        chunk = await self.read_chunk(int(found[1]), self.mx.action("body"))
        if self.sender is None or not self.rcpts:
            self.blame("BDAT without recipients")
            await self.say("503 5.5.1 Need RCPT")
            return
        self.chunks = (self.chunks or b"") + chunk
        action = self.mx.action("bdat", text)
        if action is not None:
            await self.say(action)      # the octets are gone, the transaction stands (RFC 3030 2)
        elif found[2]:
            await self.take(self.chunks, by_bdat=True)
            self.reset()
        else:
            await self.say(f"250 2.0.0 {len(chunk)} octets")

    async def take(self, content, by_bdat):
        message = Message(self.sender, self.params, list(self.rcpts),
                          content if self.mx.keep_content else b"", self.record.number, self.helo,
                          time.monotonic(), list(self.rcpt_params), by_bdat, self.record.tls,
                          self.user)
        self.check_content(content)
        action = self.mx.action("dot", " ".join(self.rcpts))
        if isinstance(action, Stall):
            await asyncio.sleep(action.seconds)
            action = None
        if isinstance(action, Close):
            self.mx.refused.append(message)
            await self.end(action.reset)
        usual = f"250 2.0.0 Ok {len(content)} octets"
        reply = usual if action is None else action
        lines = reply.lines if isinstance(reply, Reply) else reply
        first = lines if isinstance(lines, str) else lines[-1]
        if first.startswith("2"):
            self.record.messages += 1
            if self.mx.on_message:
                self.mx.on_message(message, content)
            self.mx.messages.append(message)
        else:
            self.mx.refused.append(message)
        if isinstance(reply, Reply):
            if reply.delay:
                await asyncio.sleep(reply.delay)
            await self.say(reply.lines, reply.drip)
            if reply.half_close:
                self.writer.write_eof()
            if reply.close:
                await self.end()
        else:
            await self.say(reply)

    async def read_chunk(self, size, action):
        """So many octets, whatever they are; `action` may interrupt."""
        while len(self.buf) < size:
            if isinstance(action, Close) and len(self.buf) >= action.after:
                await self.end(action.reset)
            if isinstance(action, Stall):
                await asyncio.sleep(action.seconds)
                action = None
            if isinstance(action, (str, Reply)):
                await self.say(action if isinstance(action, str) else action.lines)
                await self.end()
            await self.more()
        if isinstance(action, Close) and size >= action.after:
            await self.end(action.reset)
        chunk = bytes(self.buf[:size])
        del self.buf[:size]
        return chunk

    async def read_content(self, action):
        """Octets up to the final dot, dots removed; `action` may interrupt."""
        self.buf[:0] = b"\r\n"          # so that a lone dot at the very start is found too
        seen = 0
        while (end := self.buf.find(b"\r\n.\r\n", max(0, seen - 4))) < 0:
            seen = len(self.buf)
            if isinstance(action, Close) and seen - 2 >= action.after:
                await self.end(action.reset)
            if isinstance(action, Stall):
                await asyncio.sleep(action.seconds)
                action = None
            if isinstance(action, (str, Reply)):
                await self.say(action if isinstance(action, str) else action.lines)
                await self.end()
            await self.more()
        if isinstance(action, Close) and end >= action.after:
            await self.end(action.reset)
        content = bytes(self.buf[2:end + 2])
        del self.buf[:end + 5]
        if content.startswith(b"."):
            content = content[1:]
        return content.replace(b"\r\n.", b"\r\n")

    def check_content(self, content):
        if not self.mx.keep_content:
            return
        bare = content.replace(b"\r\n", b"")
        is_binary = "BODY=BINARYMIME" in self.params
        if not is_binary and (b"\r" in bare or b"\n" in bare or b"\0" in bare):
            self.blame("bare CR, bare LF or NUL in content (P-184)")
        size = re.search(r"\bSIZE=(\d+)", self.params, re.I)
        if size and len(content) > int(size[1]) + 1024:
            self.blame(f"declared SIZE={size[1]}, sent {len(content)}")

    async def on_rset(self, text):
        self.reset()
        await self.answer("rset", text, "250 2.0.0 Ok")

    async def on_noop(self, text):
        await self.answer("noop", text, "250 2.0.0 Ok")

    async def on_quit(self, text):
        await self.answer("quit", text, "221 2.0.0 Bye")
        await self.end()
