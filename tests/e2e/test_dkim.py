# SPDX-License-Identifier: Apache-2.0
"""
DKIM (P-240 to P-246, P-249): what Kilat signs is verified by dkimpy and by libopendkim, neither of
which shares code with it, with keys that openssl made.
"""
import email.generator
import email.message
import email.policy
import io
import random
import re
import smtplib
import socket
import struct
import time

import dkim
import pytest

from lib.dkim_keys import make_key, name_of
from lib.kilat import HOLD, send, smarthost
from lib.mx import Mx
from lib.net import wait_until
from lib.opendkim import OpenDkim

SIGNED = "signed.test"


@pytest.fixture
def keys(folder):
    """The section of SIGNED, and the records of its keys."""
    records = {name_of("rsa1", SIGNED): make_key(folder / "rsa1.pem"),
               name_of("ed1", SIGNED): make_key(folder / "ed1.pem", "ed25519")}
    section = {"selector": ["rsa1", "ed1"],
               "private_key": [str(folder / "rsa1.pem"), str(folder / "ed1.pem")]}
    return section, records


def resolver(records):
    def look_up(name, timeout=5):
        return records.get(name.decode().rstrip("."), "").encode()
    return look_up


def verify(content, records, count=2):
    """Every signature of the message passes dkimpy's verification."""
    verifier = dkim.DKIM(content)
    results = [verifier.verify(idx=i, dnsfunc=resolver(records)) for i in range(count)]
    assert results == [True] * count, content.decode("latin-1")
    assert content.count(b"\r\nDKIM-Signature:") + content.startswith(b"DKIM-Signature:") == count


def signature_lines(content):
    head = content.split(b"\r\nReceived:")[0]
    assert head.startswith(b"DKIM-Signature:")
    return head.split(b"\r\n")


def mail(sender=f"a@{SIGNED}", body=b"hello\r\n", **fields):
    """Octets of a small message."""
    names = {"From": sender, "To": "b@rcpt.test", "Subject": "test", **fields}
    head = "".join(f"{k.replace('_', '-')}: {v}\r\n" for k, v in names.items())
    return head.encode() + b"\r\n" + body


def test_both_kinds_of_signature(gateways, mx, keys, folder):
    section, records = keys
    kilat = gateways(route={"*": smarthost(mx.port)}, dkim={SIGNED: section})
    send(kilat.port, mail(), sender=f"a@{SIGNED}", rcpts=["b@rcpt.test"])
    content = mx.wait(1)[0].content
    verify(content, records)
    with OpenDkim(records, folder) as other:
        assert other.passes(content)
        assert not other.passes(content.replace(b"hello", b"hallo"))
    lines = signature_lines(content)
    assert all(len(line.expandtabs(8)) <= 78 for line in lines), lines
    assert b"a=rsa-sha256" in lines[0] and b"l=" not in b"".join(lines)
    assert kilat.metrics()["dkim_signed_total"] == 1


# -- 1,000 messages of varied MIME ----------------------------------------------------------------

WORDS = ["alpha", "beta  gamma", "delta\t", "epsilon ", "= ", "zeta=", ".", "..", ". dot", "", " ",
         "\t", "eta theta", "From here", "x" * 990, "grüße", "日本語", "--", "http://a.test/",
         "trailing   ", "  leading"]


def random_text(rng, lines=30):
    return "".join(" ".join(rng.choice(WORDS) for _ in range(rng.randrange(6)))[:300] + "\n"
                   for _ in range(rng.randrange(lines)))


def random_octets(rng):
    """A body by hand: what no library would write, and a client may."""
    parts = [b" ", b"\t", b"\r\n", b"\r\n\r\n", b"text", b".", b"x" * 100, b"\xc3\xa4", b"=20",
             b" \r\n", b"\t \r\n", b":", b"y" * 500 + b"\r\n"]
    body = b"".join(rng.choice(parts) for _ in range(rng.randrange(40)))
    lines = [line[:990] for line in body.split(b"\r\n")]
    return b"\r\n".join(lines) + rng.choice([b"\r\n", b"\r\n\r\n\r\n", b" \r\n", b"."])


def random_fields(rng, number):
    """Lines of a header section by hand, with folds and white space where they may be."""
    space = lambda: rng.choice(["", " ", "\t", "  ", " \r\n\t", "\r\n "])  # noqa: E731
    fields = [f"From:{space()}{rng.choice(['A B', 'grüße', ''])} <a@{rng.choice(['', 'sub.'])}"
              f"{SIGNED}>",
              f"To:{space()}b@rcpt.test,{space()}c@rcpt.test",
              f"subject:{space()}number {number}{space()}{rng.choice(WORDS[:5])}"]
    optional = [f"DATE: Mon, 23 Nov 2026 00:00:{number % 60:02} +0000{space().rstrip()}",
                f"Message-Id:{space()}<{number}.x@{SIGNED}>", "Cc: d@rcpt.test", "cc: e@rcpt.test",
                "References: <1@a.test>\r\n\t<2@a.test>  <3@a.test>", "In-Reply-To: <3@a.test>",
                "List-Unsubscribe: <https://a.test/u?t=" + "z" * rng.randrange(300) + ">",
                "List-Unsubscribe-Post: List-Unsubscribe=One-Click", "List-Id: l <l.a.test>",
                "Reply-To:", "X-Other:  a   b ", "Received: from x by y; now", "MIME-Version: 1.0",
                "Content-Type: text/plain;\r\n charset=utf-8", "Feedback-ID: a:b:c"]
    fields += rng.sample(optional, rng.randrange(len(optional)))
    rng.shuffle(fields)
    return "".join(f + "\r\n" for f in fields).encode()


def random_mime(rng, number):
    message = email.message.EmailMessage(policy=email.policy.SMTP)
    message["From"] = f"Ä. Person <a@{SIGNED}>"
    message["To"] = ", ".join(f"person{i} <p{i}@rcpt.test>" for i in range(rng.randrange(1, 20)))
    message["Subject"] = f"{number} " + "wörter und mehr " * rng.randrange(12)
    cte = rng.choice(["7bit", "8bit", "quoted-printable", "base64"])
    text = random_text(rng)
    message.set_content(text if cte != "7bit" else text.encode("ascii", "replace").decode(),
                        cte=cte)
    if rng.random() < 0.5:
        message.add_alternative("<p>" + random_text(rng) + "</p>", subtype="html")
    for i in range(rng.randrange(3)):
        message.add_attachment(rng.randbytes(rng.randrange(5000)), maintype="application",
                               subtype="octet-stream", filename=f"ä{i}.bin")
    if rng.random() < 0.2:
        message.add_attachment(email.message.EmailMessage())
    out = io.BytesIO()
    email.generator.BytesGenerator(out, policy=email.policy.SMTP).flatten(message)
    return out.getvalue()


def random_mail(rng, number):
    if rng.random() < 0.4:
        return random_mime(rng, number)
    if rng.random() < 0.05:
        return random_fields(rng, number)       # neither a body nor the empty line
    return random_fields(rng, number) + b"\r\n" + random_octets(rng)


def submit(client, content, by_bdat):
    assert client.mail(f"a@{SIGNED}")[0] == 250
    assert client.rcpt("b@rcpt.test")[0] == 250
    if by_bdat:
        at = len(content) // 3
        client.send(b"BDAT %d\r\n" % at + content[:at])
        assert client.getreply()[0] == 250
        client.send(b"BDAT %d LAST\r\n" % (len(content) - at) + content[at:])
        code, text = client.getreply()
    else:
        code, text = client.data(content)
    assert code == 250, (text, content)


@pytest.mark.parametrize("extensions", [
    ("PIPELINING", "SIZE 104857600", "8BITMIME"),
    ("SIZE 104857600", "8BITMIME", "CHUNKING"),         # the relay uses BDAT
])
def test_a_thousand_messages_verify(gateways, keys, folder, extensions):
    section, records = keys
    count, rng = 1000 if "PIPELINING" in extensions else 200, random.Random(len(extensions[0]))
    with Mx(extensions=extensions) as mx:
        kilat = gateways(route={"*": smarthost(mx.port)}, dkim={SIGNED: section},
                         queue={"stream_size": "16k"}, tenant={"t": {"dkim_required": True}},
                         listener={"t": {"bind": ["127.0.0.1:0"], "tls": "off", "auth": "off",
                                         "networks": ["127.0.0.0/8"], "tenant": "t"}})
        with smtplib.SMTP("127.0.0.1", kilat.port, timeout=30) as client:
            client.ehlo("client.test")
            for number in range(count):
                submit(client, random_mail(rng, number), rng.random() < 0.3)
        messages = mx.wait(count, 60)
        with OpenDkim(records, folder) as other:
            for m in messages:
                verify(m.content, records)
                # libopendkim forgets the line's end of RFC 6376 3.4.4; a milter always gets it
                ended = m.content + (b"" if m.content.endswith(b"\r\n") else b"\r\n")
                assert other.passes(ended), m.content.decode("latin-1")
                assert m.by_bdat == ("CHUNKING" in extensions)
                # by DATA, what came by BDAT without a last line's end gets it
                said = int(m.sender_params.split("SIZE=")[1].split()[0])
                assert len(m.content) - said in ((0,) if m.by_bdat else (0, 2))
        assert kilat.metrics()["dkim_signed_total"] == count
        assert mx.violations == []


# -- from Redis ------------------------------------------------------------------------------------

def test_large_mail_and_mail_tried_again(gateways, mx, keys, folder):
    """Streamed in chunks; deferred, taken up from Redis by another run, sent again: the
    signature is the one that was made once."""
    section, records = keys
    mx.on("dot", "451 4.3.0 Later", times=2)
    kilat = gateways(route={"*": smarthost(mx.port)}, dkim={SIGNED: section},
                     retry={"schedule": ["3s"]})
    large = mail(body=b"".join(b"line %d  of many\t\r\n.\r\n" % i for i in range(60000)))
    for content in (large, mail(body=b"small\r\n")):
        send(kilat.port, content, sender=f"a@{SIGNED}", rcpts=["b@rcpt.test"])
    accepted = time.time()
    kilat.wait_event("relay.done", count=2, fate="deferred")
    assert kilat.stop() == 0
    time.sleep(max(0, accepted + 2 - time.time()))  # a signature of the second run would tell
    kilat.start()
    kilat.wait_event("relay.done", count=2, fate="delivered")
    messages = mx.wait(4) if len(mx.messages) >= 4 else mx.wait(2)
    for m in messages:
        verify(m.content, records)
    assert {len(m.content) > 1000000 for m in messages} == {True, False}
    for m in messages:
        made = [int(t) for t in re.findall(rb"\bt=(\d+);", b"".join(signature_lines(m.content)))]
        assert len(made) == 2 and all(t <= accepted for t in made)


# -- which key signs, and what happens without -------------------------------------------------

def refusal(port, content, **options):
    """The reply to the end of data, which is not 250."""
    with smtplib.SMTP("127.0.0.1", port, timeout=30) as client:
        client.ehlo("client.test")
        client.mail(options.get("sender", f"a@{SIGNED}"))
        client.rcpt("b@rcpt.test")
        code, text = client.data(content)
        assert code != 250, text
        assert client.noop()[0] == 250          # the session goes on
        return f"{code} {text.decode()}"


def test_a_key_that_cannot_be_read_defers_its_domain(gateways, mx, keys, folder):
    """P-246. Other domains go on; the key counts as soon as it is there."""
    section, records = keys
    (folder / "ed1.pem").rename(folder / "away.pem")
    kilat = gateways(route={"*": smarthost(mx.port)}, dkim={SIGNED: section})
    assert kilat.events("dkim.bad")
    assert "ed1.pem" in kilat.events("dkim.bad")[0]["error"]
    large = mail(body=b"0123456789" * 98 + b"\r\n" + b"x\r\n" * 300000)
    for content in (mail(), large):
        assert refusal(kilat.port, content).startswith("451 4.7.5")
    event = kilat.wait_event("dkim.deferred", domain=SIGNED)
    assert event["reason"] == "its keys cannot be read"
    send(kilat.port, mail("a@elsewhere.test"), rcpts=["b@rcpt.test"])
    assert b"DKIM-Signature" not in mx.wait(1)[0].content
    assert kilat.command("check").returncode == 1
    (folder / "away.pem").rename(folder / "ed1.pem")
    kilat.wait_event("dkim.reloaded", keys=2)
    assert kilat.command("check").returncode == 0
    send(kilat.port, mail(), rcpts=["b@rcpt.test"])
    verify(mx.wait(2)[1].content, records)
    numbers = kilat.metrics()
    assert (numbers["dkim_deferred_total"], numbers["dkim_unsigned_total"]) == (2, 1)
    assert numbers["messages_accepted_total"] == 2
    assert kilat.queue("list").count("b@rcpt.test") == 0


def test_dkim_missing_unsigned(gateways, mx, keys, folder):
    section, _ = keys
    (folder / "rsa1.pem").write_text("no key\n")
    kilat = gateways(route={"*": smarthost(mx.port)}, dkim={SIGNED: section},
                     dkim_missing="unsigned")
    send(kilat.port, mail(), rcpts=["b@rcpt.test"])
    assert b"DKIM-Signature" not in mx.wait(1)[0].content
    assert kilat.wait_event("dkim.unsigned", domain=SIGNED)["reason"] == "its keys cannot be read"


def listener(tenant):
    return {"bind": ["127.0.0.1:0"], "tls": "off", "auth": "off", "networks": ["127.0.0.0/8"],
            "tenant": tenant}


def test_directories_and_tenants(gateways, mx, folder):
    """P-243: nobody signs with another tenant's key, and a new file takes over."""
    shared, own = folder / "shared", folder / "own"
    records = {name_of("a1", "shared.test"): make_key(shared / "shared.test" / "a1.pem"),
               name_of("o1", "own.test"): make_key(own / "own.test" / "o1.pem", "ed25519")}
    kilat = gateways(route={"*": smarthost(mx.port)}, dkim_directory=str(shared),
                     tenant={"acme": {"dkim_directory": str(own)}, "other": {},
                             "strict": {"dkim_required": True}},
                     listener={name: listener(name) for name in ("acme", "other", "strict")})

    def sent(tenant, sender):
        before = len(mx.messages)
        send(kilat.ports[tenant], mail(sender), rcpts=["b@rcpt.test"])
        return mx.wait(before + 1)[before].content

    verify(sent("acme", "a@own.test"), records, 1)
    verify(sent("acme", "a@below.own.test"), records, 1)
    verify(sent("acme", "a@shared.test"), records, 1)
    verify(sent("other", "Name <a@Shared.TEST>"), records, 1)
    assert b"DKIM-Signature" not in sent("other", "a@own.test")
    assert kilat.wait_event("dkim.unsigned")["reason"] == "its keys are another tenant's"
    assert b"DKIM-Signature" not in sent("other", "a@nowhere.test")
    for sender in ("a@own.test", "a@nowhere.test", "a@shared.test, b@nowhere.test"):
        content = mail(sender, Sender="a@shared.test")
        assert refusal(kilat.ports["strict"], content).startswith("451 4.7.5")
    records[name_of("a2", "shared.test")] = make_key(shared / "shared.test" / "a2.pem")
    records[name_of("n1", "nowhere.test")] = make_key(shared / "nowhere.test" / "n1.pem")
    wait_until(lambda: b"s=a2;" in sent("strict", "a@shared.test"), 10, "the new selector")
    verify(sent("strict", "a@nowhere.test"), records, 1)
    (shared / "shared.test" / "a2.pem").write_bytes(b"half of a k")
    wait_until(lambda: kilat.events("dkim.bad"), 10, "the bad key")
    assert refusal(kilat.ports["other"], mail("a@shared.test")).startswith("451 4.7.5")


def test_an_unreadable_directory_holds_everything_back(gateways, mx, folder):
    kilat = gateways(route={"*": smarthost(mx.port)}, dkim_directory=str(folder / "none"))
    assert kilat.events("dkim.bad")
    assert refusal(kilat.port, mail("a@any.test")).startswith("451 4.7.5")
    (folder / "none").mkdir()
    kilat.wait_event("dkim.reloaded", keys=0)
    send(kilat.port, mail("a@any.test"), rcpts=["b@rcpt.test"])
    assert b"DKIM-Signature" not in mx.wait(1)[0].content


def test_expiry_and_held_mail(gateways, mx, folder):
    make_key(folder / "k" / SIGNED / "s.pem", "ed25519")
    kilat = gateways(route={"*": smarthost(mx.port)}, dkim_directory=str(folder / "k"),
                     dkim_expire="6d")
    with smtplib.SMTP("127.0.0.1", kilat.port, timeout=30) as client:
        client.ehlo("client.test")
        assert client.mail(f"a@{SIGNED}", ["HOLDFOR=2"])[0] == 250
        assert client.rcpt("b@rcpt.test")[0] == 250
        assert client.data(mail())[0] == 250
    tags = dict(tag.strip().split(b"=", 1) for tag in
                b"".join(signature_lines(mx.wait(1)[0].content)).split(b";") if b"=" in tag)
    t, x = int(tags[b"t"]), int(tags[b"x"])
    assert abs(t - time.time()) < 60
    assert 6 * 86400 + 2 <= x - t <= 6 * 86400 + 4


# -- threads ---------------------------------------------------------------------------------------

def test_sessions_that_go_while_they_are_signed(gateways, keys, folder):
    """RSA of 4096 bits, one thread, many sessions that hang up behind their final dot, and an end
    of the gateway while more are signed: no crash, and what was accepted is in the queue."""
    section, _ = keys
    make_key(folder / "rsa1.pem", bits=4096)
    kilat = gateways(route={"*": HOLD}, dkim={SIGNED: section}, dkim_threads=1)

    def flood():
        clients = []
        for _ in range(40):
            client = smtplib.SMTP("127.0.0.1", kilat.port, timeout=30)
            client.ehlo("client.test")
            client.mail(f"a@{SIGNED}")
            client.rcpt("b@rcpt.test")
            client.docmd("DATA")
            clients.append(client)
        for client in clients:
            client.send(mail() + b".\r\n")
        return clients
    for _ in range(2):
        for client in flood():
            client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.sock.close()
    clients = flood()
    assert kilat.stop() == 0
    replies = [client.getreply()[0] for client in clients]
    assert set(replies) <= {250, 421}
    kilat.start()
    accepted = replies.count(250)
    wait_until(lambda: kilat.queue("list", "-n", 1000).count(" held ") >= accepted, 20,
               f"{accepted} in the queue")
