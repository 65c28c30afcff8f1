# SPDX-License-Identifier: Apache-2.0
"""Return paths (VERP, P-191), and the bounces (RFC 3464) and complaints (RFC 5965, P-250) that come
back to them."""
import json
import os
import re
import signal

import pytest

from lib.certs import Authority
from lib.exim import Exim
from lib.kilat import message, send, smarthost
from lib.mx import Mx
from lib.net import RawSmtp, free_port, queue_id, wait_until
from lib.reports import bounce, bring, complaint
from test_events import events

LISTENERS = {"trusted": {"bind": ["127.0.0.1:0"], "networks": ["127.0.0.0/8"], "tenant": "shop"},
             "returns": {"bind": ["127.0.0.1:0"], "role": "bounces"}}
PATH = re.compile(r"b-[0-9a-z]{20}-\d+-\d+-[0-9a-z]{16}@bounces\.test$")


def settings(port, **changes):
    """A gateway whose mail goes to that port with return paths of its own."""
    return {"listener": LISTENERS, "tenant": {"shop": {}},
            "route": {"*": dict(smarthost(port), verp="on")},
            "bounces": {"domain": "bounces.test"}, "events": {"size_max": "16m"}, **changes}


@pytest.fixture
def kilat(gateways, mx):
    return gateways(**settings(mx.port))


def sent(kilat, mx, rcpt="gone@rcpt.test"):
    """Mail that was delivered and forgotten but for its trace: its id, its return path."""
    before = len(mx.messages)
    ident = queue_id(send(kilat.port, message(), rcpts=[rcpt]))
    arrived = mx.wait(before + 1)[before]
    assert PATH.match(arrived.sender), arrived.sender
    kilat.wait_event("relay.done", id=ident)
    wait_until(lambda: traces(kilat, ident), 10, "the trace")
    return ident, arrived.sender


def traces(kilat, ident):
    keys = (f"{{q{shard}}}o:{ident}.0" for shard in range(16))
    return kilat.redis("EXISTS", *keys) != ["0"]


def listed(kilat, tenant="shop"):
    done = kilat.command("suppress", "list", tenant, "--json")
    return {row["address"]: row["reason"] for row in map(json.loads, done.stdout.splitlines())}


def test_a_bounce_comes_back(kilat, mx):
    """Matched by its address alone; told, and its recipient suppressed, before its 250."""
    ident, path = sent(kilat, mx)
    other, _ = sent(kilat, mx, "other@rcpt.test")
    code, text = bring(kilat.ports["returns"], bounce(final="other@rcpt.test"), path)
    assert (code, text) == (250, "2.0.0 Ok: read")
    assert listed(kilat) == {
        "gone@rcpt.test": f"returned: invalid-mailbox, 550 5.1.1, {ident}"}
    told, = (e for e in events(kilat) if e["event"] == "returned")
    assert told["id"] == ident and told["to"] == "gone@rcpt.test"
    assert told["from"] == "from@sender.test" and told["tenant"] == "shop"
    assert (told["action"], told["code"], told["enhanced"]) == ("failed", 550, "5.1.1")
    assert told["category"] == "invalid-mailbox" and told["host"] == "store.rcpt.test"
    assert told["text"] == "No such user here" and told["delivered_ms"] <= told["time_ms"]
    kilat.wait_event("return.bounce", id=ident)
    with pytest.raises(AssertionError, match="550"):
        send(kilat.port, message(), rcpts=["gone@rcpt.test"])
    assert kilat.metrics()["returned_bounces_total"] == 1


@pytest.mark.parametrize("report, category", [
    (bounce("delayed", "4.4.1", "smtp; 451 4.4.1 Later"), None),
    (bounce("failed", "5.2.2", "smtp; 552 5.2.2 Mailbox full"), "mailbox-full"),
    (bounce("failed", "5.7.1", "smtp; 550 5.7.1 Blocked by policy"), None),
    (bounce("relayed", "2.0.0", "smtp; 250 Ok"), None),
])
def test_what_says_nothing_of_the_address(kilat, mx, report, category):
    """P-238: only a hard bounce feeds the list."""
    ident, path = sent(kilat, mx)
    assert bring(kilat.ports["returns"], report, path)[0] == 250
    told, = (e for e in events(kilat) if e["event"] == "returned")
    assert told["id"] == ident and (category is None or told["category"] == category)
    assert listed(kilat) == {}


def test_complaints(kilat, mx):
    """To the mailbox for feedback reports: matched by the proof alone, wherever it stands."""
    port = kilat.ports["returns"]
    ids = {}
    for name, where in (("a", {"sender": 1}), ("b", {"path": 1}), ("c", {"sender": 1}),
                        ("d", {"sender": 1})):
        ids[name], path = sent(kilat, mx, f"{name}@rcpt.test")
        where = {key: path for key in where}
        if name == "c":
            where["kind"] = "not-spam"
        if name == "d":
            where["sender"] = where["sender"].replace("-0-", "-1-")    # another recipient
        assert bring(port, complaint(**where), "FBL@Bounces.test", "loop@isp.test")[0] == 250
    assert listed(kilat) == {"a@rcpt.test": f"complaint: abuse, {ids['a']}",
                             "b@rcpt.test": f"complaint: abuse, {ids['b']}"}
    told = {e["to"]: e["feedback"] for e in events(kilat) if e["event"] == "complaint"}
    assert told == {"a@rcpt.test": "abuse", "b@rcpt.test": "abuse", "c@rcpt.test": "not-spam"}
    assert kilat.wait_event("return.unread")["reason"] == "it names no return path of ours"
    assert kilat.metrics()["returned_complaints_total"] == 3


def test_each_recipient_alone(kilat, mx):
    """Several recipients of one host: a transaction and a return path each (P-191)."""
    rcpts = [f"r{i}@rcpt.test" for i in range(5)]
    ident = queue_id(send(kilat.port, message(), rcpts=rcpts))
    got = mx.wait(5)
    assert sorted(m.rcpts[0] for m in got) == rcpts and all(len(m.rcpts) == 1 for m in got)
    assert len({m.sender for m in got}) == 5 and all(ident in m.sender for m in got)
    kilat.wait_event("relay.done", count=5)
    third = next(m for m in got if m.rcpts == ["r3@rcpt.test"])
    assert bring(kilat.ports["returns"], bounce(), third.sender)[0] == 250
    assert set(listed(kilat)) == {"r3@rcpt.test"}


def test_who_is_not_known(kilat, mx):
    """Nothing is relayed from there, and no address is made up."""
    port = kilat.ports["returns"]
    _, path = sent(kilat, mx)
    local, domain = path.split("@")
    forged = local[:-1] + ("0" if local[-1] != "0" else "1")
    for to, want in ((f"{forged}@{domain}", "550 5.1.1"), (f"x@{domain}", "550 5.1.1"),
                     (f"{local}@elsewhere.test", "550 5.7.1"), ("a@rcpt.test", "550 5.7.1")):
        code, text = bring(port, bounce(), to)
        assert f"{code} {text}".startswith(want), to
    assert bring(port, bounce(), f"{local.upper()}@Bounces.TEST")[0] == 250
    assert set(listed(kilat)) == {"gone@rcpt.test"}
    with RawSmtp(port) as c:
        c.reply()
        said = str(c.cmd("EHLO mx.rcpt.test"))
        assert "AUTH" not in said and "MT-PRIORITY" not in said and "RCPTMAX=1" in said
        assert c.cmd("MAIL FROM:<>").code == 250
        assert c.cmd(f"RCPT TO:<{path}>").code == 250
        assert c.cmd("RCPT TO:<fbl@bounces.test>").code == 452


def test_what_is_no_report(kilat, mx):
    """An answer by hand, a broken report: taken, logged, and nothing changes."""
    ident, path = sent(kilat, mx)
    port = kilat.ports["returns"]
    odd = bounce().replace(b"multipart/report", b"multipart/mixed")
    for content in (b"Subject: I am away\r\n\r\nUntil Monday.\r\n", odd, b"no header at all\r\n",
                    b"Content-Type: multipart/report; boundary=x\r\n\r\n--x\r\nnothing\r\n"):
        assert bring(port, content, path)[0] == 250
    kilat.wait_event("return.unread", count=4)
    kilat.redis("DEL", *(f"{{q{shard}}}o:{ident}.0" for shard in range(16)))
    assert bring(port, bounce(), path)[0] == 250
    assert "any more" in kilat.wait_event("return.unread", count=5)["reason"]
    assert listed(kilat) == {} and not [e for e in events(kilat) if e["event"] == "returned"]
    assert kilat.metrics()["returned_unread_total"] == 5


def test_a_large_bounce(kilat, mx):
    """It is read while it comes, and kept nowhere."""
    _, path = sent(kilat, mx)
    padding = b"Subject: hello\r\n\r\n" + b"x" * 70 + b"\r\n"
    large = bounce().replace(b"Subject: hello\r\n\r\n", padding + (b"y" * 76 + b"\r\n") * 100_000)
    assert len(large) > 7_000_000
    assert bring(kilat.ports["returns"], large, path)[0] == 250
    assert set(listed(kilat)) == {"gone@rcpt.test"}


def test_redis_is_away(gateways, mx):
    """451, and the host brings it again."""
    kilat = gateways(limits={"commit_timeout": "1s"}, **settings(mx.port))
    _, path = sent(kilat, mx)
    os.kill(kilat.redis_pid(), signal.SIGSTOP)
    code, text = bring(kilat.ports["returns"], bounce(), path)
    assert (code, text[:5]) == (451, "4.3.0")
    os.kill(kilat.redis_pid(), signal.SIGCONT)
    wait_until(lambda: bring(kilat.ports["returns"], bounce(), path)[0] == 250, 20, "250")
    assert set(listed(kilat)) == {"gone@rcpt.test"}


def test_domains_and_routes(gateways, mx):
    """A tenant's own domain; a route without; a smarthost that nobody asked; the null sender."""
    with Mx() as plain, Mx() as other:
        kilat = gateways(**settings(
            mx.port, tenant={"shop": {"bounce_domain": "back.shop.test"}},
            route={"*": dict(smarthost(mx.port), verp="on"),
                   "plain.test": smarthost(plain.port),
                   "off.test": dict(smarthost(other.port), verp="off")}))
        send(kilat.port, message())
        assert mx.wait(1)[0].sender.endswith("@back.shop.test")
        send(kilat.port, message(), sender="")
        assert mx.wait(2)[1].sender == ""
        send(kilat.port, message(), rcpts=["a@plain.test"])
        send(kilat.port, message(), rcpts=["a@off.test"])
        assert plain.wait(1)[0].sender == other.wait(1)[0].sender == "from@sender.test"
        assert plain.violations == other.violations == []


def test_postmaster(gateways, mx):
    """RFC 5321 4.5.1: a human being is there; a stranger is not told what becomes of it (P-234)."""
    kilat = gateways(**settings(mx.port, bounces={"domain": "bounces.test",
                                                  "postmaster": "admin@home.test"}))
    port = kilat.ports["returns"]
    mx.on("rcpt", "550 5.1.1 No such user", match="admin@", times=1)
    bring(port, b"Subject: lost\r\nFrom: a@x.test\r\n\r\nHello?\r\n", "abuse@bounces.test",
          "a@x.test")
    kilat.wait_event("relay.done", fate="bounced")
    code, text = bring(port, b"Subject: hi\r\nFrom: a@x.test\r\n\r\nHello?\r\n", "Postmaster",
                       "a@x.test")
    assert code == 250 and "queued as" in text
    got, = mx.wait(1)
    assert got.rcpts == ["admin@home.test"] and b"Hello?" in got.content
    assert kilat.metrics()["bounce_messages_total"] == 0
    plain = gateways("plain", **settings(mx.port))
    assert bring(plain.ports["returns"], b"\r\n", "postmaster@bounces.test")[0] == 550


def test_a_bounce_of_exim(gateways, folder):
    """A real server takes the mail and finds out later that there is nobody."""
    port = free_port()
    ca = Authority(folder / "ca")
    with Exim(folder / "exim", tls=ca.issue("localhost"), users={"a@b.test": "x"},
              returns=port) as exim:
        kilat = gateways(**settings(exim.port, listener={
            **LISTENERS, "returns": {"bind": [f"127.0.0.1:{port}"], "role": "bounces"}}))
        ident = queue_id(send(kilat.port, message(), rcpts=["gone@local.test", "here@local.test"]))
        told = kilat.wait_event("return.bounce", id=ident, timeout=60)
        assert told["rcpt"] == "gone@local.test" and told["action"] == "failed"
        assert told["status"] == "5.0.0"    # Exim knows no better: not enough for the list
        wait_until(lambda: "=> b-" in exim.log(), 10, "the 250")
    assert listed(kilat) == {}


def test_configuration(gateways, folder):
    """What cannot work is said at once."""
    returns = LISTENERS["returns"]
    for change, words in (
            ({"bounces": {"domain": "b.test"}}, "nobody would take what comes back"),
            ({"listener": {"returns": returns}}, "nothing comes back there"),
            ({"bounces": {"domain": "b.test"},
              "listener": {"returns": dict(returns, auth="optional")}},
             "nobody hands in mail here"),
            ({"bounces": {"domain": "b.test", "complaints": "b-x"},
              "listener": {"returns": returns}}, "is a local part"),
            ({"bounces": {"domain": "b.test", "postmaster": "x@b.test"},
              "listener": {"returns": returns}}, "no mailbox at another domain")):
        kilat = gateways(start=False, **change)
        done = kilat.command("check")
        assert done.returncode != 0 and words in done.stderr + done.stdout, done
