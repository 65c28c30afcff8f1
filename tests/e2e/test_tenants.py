# SPDX-License-Identifier: Apache-2.0
"""Tenants: who may send as whom, how much, and to whom not; across gateways."""
import pytest

from lib.certs import Authority
from lib.kilat import merged, message, secure, smarthost
from lib.net import RawSmtp, queue_id
from lib.redis_server import Redis

PASSWORD = "correct horse battery"


@pytest.fixture
def ca(folder):
    return Authority(folder / "ca")


@pytest.fixture
def make(gateways, ca, mx):
    def made(tenants, users, name="k", **changes):
        settings = merged(secure(ca, route={"*": smarthost(mx.port)}), changes)
        settings["tenant"] = tenants
        kilat = gateways(name, start=False, **settings)
        for user, args in users.items():
            kilat.add_user(user, PASSWORD, *args)
        return kilat.start()
    return made


def login(kilat, ca, user):
    c = RawSmtp(kilat.ports["submission"])
    c.hello()
    c.starttls(ca.context())
    assert c.cmd("EHLO client.test").code == 250
    assert c.auth_plain(user, PASSWORD).code == 235
    return c


def test_senders(make, ca, mx):
    """P-34: the envelope sender and the From field must be the user's."""
    kilat = make({"acme": {"senders": ["@acme.test", "@*.acme.test"]}, "other": {}},
                 {"web": ["--tenant", "acme"],
                  "own": ["--tenant", "acme", "--sender", "one@own.test"],
                  "me@self.test": ["--tenant", "other"]})
    refused = 0
    for user, good, bad in (("web", ["a@acme.test", "b@x.acme.test"],
                             ["a@other.test", "a@acme.test.evil"]),
                            ("own", ["one@own.test"], ["two@own.test", "a@acme.test"]),
                            ("me@self.test", ["me@self.test", "me@SELF.test"], ["you@self.test"])):
        with login(kilat, ca, user) as c:
            for address in bad:
                reply = c.cmd(f"MAIL FROM:<{address}>")
                assert reply.code == 550 and reply.text.startswith("5.7.1"), reply
                reply = c.mail(message(From=address), sender=good[0])
                assert reply.code == 550 and reply.text.startswith("5.7.1"), (user, address, reply)
                refused += 1
            for address in good:
                assert queue_id(c.mail(message(From=f'"Some, One" <{address}>'), sender=address))
    mx.wait(5)
    assert len(mx.messages) == 5 and refused == 5


def test_null_sender(make, ca, mx):
    """P-37."""
    kilat = make({"yes": {"senders": ["*"]}, "no": {"senders": ["*"], "null_sender": False}},
                 {"yes": ["--tenant", "yes"], "no": ["--tenant", "no"]})
    with login(kilat, ca, "yes") as c:
        assert queue_id(c.mail(message(), sender=""))
    with login(kilat, ca, "no") as c:
        assert c.cmd("MAIL FROM:<>").code == 550
    mx.wait(1)


def test_sizes_and_recipients(make, ca, mx):
    kilat = make({"small": {"senders": ["*"], "recipients_max": 2, "message_size_max": "64k"}},
                 {"u": ["--tenant", "small"]})
    with login(kilat, ca, "u") as c:
        assert c.cmd("MAIL FROM:<a@b.test> SIZE=70000").code == 552
        assert c.cmd("MAIL FROM:<a@b.test>").code == 250
        codes = [c.cmd(f"RCPT TO:<r{i}@rcpt.test>").code for i in range(4)]
        assert codes == [250, 250, 452, 452]
        c.cmd("RSET")
        reply = c.mail(message(70000), sender="a@b.test")
        assert reply.code == 552, reply
        assert queue_id(c.mail(message(60000), sender="a@b.test"))
    mx.wait(1)


def test_sessions(make, ca):
    kilat = make({"few": {"senders": ["*"], "sessions_max": 2}}, {"u": ["--tenant", "few"]})
    with login(kilat, ca, "u"), login(kilat, ca, "u"):
        with RawSmtp(kilat.ports["submission"]) as c:
            c.hello()
            c.starttls(ca.context())
            c.cmd("EHLO client.test")
            assert c.auth_plain("u", PASSWORD).code == 454
    import time
    time.sleep(0.5)
    login(kilat, ca, "u").sock.close()


def test_rates_and_quotas_across_gateways(make, ca, folder, mx):
    """P-35: counted per recipient, on all nodes together; the transaction goes on without them."""
    with Redis(folder / "redis") as redis:
        where = {"redis": {"mode": "external", "url": redis.url}}
        tenants = {"rate": {"senders": ["*"], "recipients_per_minute": 10},
                   "day": {"senders": ["*"], "recipients_per_day": 7},
                   "each": {"senders": ["*"], "user_recipients_per_day": 3}}
        users = {"rate": ["--tenant", "rate"], "day": ["--tenant", "day"],
                 "e1": ["--tenant", "each"], "e2": ["--tenant", "each"],
                 "e3": ["--tenant", "each", "--recipients-per-day", "5"]}
        a = make(tenants, users, name="a", **where)
        b = make(tenants, {}, name="b", **where)

        def codes(user, count):
            out = []
            for number in range(count):
                with login((a, b)[number % 2], ca, user) as c:
                    assert c.cmd("MAIL FROM:<a@b.test>").code == 250
                    out += [c.cmd(f"RCPT TO:<r{i}@rcpt.test>") for i in range(4)]
            return out
        rate = codes("rate", 4)
        assert [r.code for r in rate].count(250) == 10
        assert {(r.code, r.text[:5]) for r in rate if r.code != 250} == {(450, "4.7.1")}
        day = codes("day", 3)
        assert [r.code for r in day] == [250] * 7 + [452] * 5
        for user, limit in (("e1", 3), ("e2", 3), ("e3", 5)):
            assert [r.code for r in codes(user, 2)].count(250) == limit
        with login(a, ca, "e3") as c:
            assert c.cmd("MAIL FROM:<a@b.test>").code == 250
            assert c.cmd("RCPT TO:<x@rcpt.test>").code == 452
            assert c.cmd("DATA").code == 503


def test_suppression(make, ca, mx):
    """550 with the reason, for this tenant alone, at once after `kilat suppress`."""
    kilat = make({"acme": {"senders": ["*"]}, "other": {"senders": ["*"]}},
                 {"u": ["--tenant", "acme"], "o": ["--tenant", "other"]})
    done = kilat.command("suppress", "add", "acme", "Bob@RCPT.test", "--reason", "hard bounce")
    assert done.returncode == 0, done.stderr
    with login(kilat, ca, "u") as c:
        assert c.cmd("MAIL FROM:<a@b.test>").code == 250
        reply = c.cmd("RCPT TO:<Bob@rcpt.TEST>")
        assert reply.code == 550 and "hard bounce" in reply.text and reply.text[:5] == "5.7.1"
        assert c.cmd("RCPT TO:<ann@rcpt.test>").code == 250
    with login(kilat, ca, "o") as c:
        assert queue_id(c.mail(message(), rcpts=["Bob@rcpt.test"]))
    assert kilat.command("suppress", "remove", "acme", "Bob@rcpt.test").returncode == 0
    with login(kilat, ca, "u") as c:
        assert queue_id(c.mail(message(), rcpts=["Bob@rcpt.test"]))
    assert kilat.metrics()["recipients_declined_total"] == 1
    mx.wait(2)


def test_nobody_relays_unauthenticated(make, ca):
    """P-31, P-51: not in clear, not under TLS, not with a foreign sender, not after a failure."""
    kilat = make({"acme": {"senders": ["@acme.test"]}}, {"u": ["--tenant", "acme"]})
    for port in ("submission", "submissions"):
        with RawSmtp(kilat.ports[port]) as c:
            if port == "submissions":
                c.tls(ca.context())
            c.hello()
            for line in ("MAIL FROM:<a@acme.test>", "MAIL FROM:<>",
                         "MAIL FROM:<a@acme.test> AUTH=<>"):
                assert c.cmd(line).code == 530
            assert c.cmd("RCPT TO:<x@rcpt.test>").code == 503
            assert c.cmd("DATA").code == 503
            assert c.cmd("BDAT 0 LAST").code == 503
    with RawSmtp(kilat.ports["submissions"]) as c:
        c.tls(ca.context()).hello()
        assert c.auth_plain("u", "wrong").code == 535
        assert c.cmd("MAIL FROM:<a@acme.test>").code == 530
