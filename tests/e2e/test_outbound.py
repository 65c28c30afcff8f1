# SPDX-License-Identifier: Apache-2.0
"""Hosts that misbehave: every message is delivered or bounced, nothing hangs, nothing doubles."""
import email
import email.policy
import time

import pytest

from lib.kilat import message, send, smarthost
from lib.mx import Close, Mx, Reply, Stall
from lib.net import RawSmtp, free_port, queue_id, wait_until

EARLY = ["greeting", "ehlo", "mail", "rcpt", "data", "dot"]


def submit(kilat, *rcpts, sender="from@sender.test", size=1024):
    """The queue id."""
    return queue_id(send(kilat.port, message(size), sender, rcpts or ["to@rcpt.test"]))


def parse_bounce(got):
    """(message, per-message fields, [per-recipient fields]) of a DSN (RFC 3464)."""
    bounce = email.message_from_bytes(got.content, policy=email.policy.default)
    assert bounce.get_content_type() == "multipart/report", bounce.get_content_type()
    assert bounce.get_param("report-type") == "delivery-status"
    parts = list(bounce.iter_parts())
    assert parts[0].get_content_type() == "text/plain"
    assert parts[1].get_content_type() == "message/delivery-status"
    assert parts[2].get_content_type() in ("message/rfc822", "text/rfc822-headers",
                                           "message/global", "message/global-headers")
    groups = parts[1].get_payload()
    return bounce, groups[0], groups[1:]


def check_bounce(home, ident, rcpt, status, count=1):
    """P-227 to P-230: to the sender, from nobody, naming the recipient and what was said."""
    got = home.wait(count)[count - 1]
    assert got.sender == "" and got.rcpts == ["from@sender.test"]
    bounce, per_message, per_rcpt = parse_bounce(got)
    assert bounce["Auto-Submitted"].startswith("auto-")
    assert "kilat.test" in per_message["Reporting-MTA"]
    fields = [f for f in per_rcpt if rcpt in f["Final-Recipient"]]
    assert len(fields) == 1, per_rcpt
    assert fields[0]["Action"] == "failed"
    assert fields[0]["Status"] == status
    return bounce, fields[0]


# -- refused -----------------------------------------------------------------------------------

@pytest.mark.parametrize("stage", EARLY)
def test_tempfail_then_accepted(relaying, mx, stage):
    mx.on(stage, "451 4.3.0 Later", times=1)
    if stage == "ehlo":
        mx.on("helo", "451 4.3.0 Later", times=1)
    ident = submit(relaying)
    got = mx.wait(1)
    time.sleep(0.2)
    assert len(got) == 1 and ident.encode() in got[0].content
    relaying.wait_event("relay.done", id=ident, fate="delivered")
    if stage in ("rcpt", "mail", "data", "dot"):
        failed = relaying.events("relay.done", id=ident, fate="deferred")[0]
        assert str(failed["code"]) == "451" and stage in failed["stage"].lower(), failed
    assert mx.home.messages == []


@pytest.mark.parametrize("stage", EARLY[2:])
def test_permfail_bounces(relaying, mx, stage):
    mx.on(stage, "550 5.1.1 No such person <here>", times=1)
    ident = submit(relaying)
    bounce, fields = check_bounce(mx.home, ident, "to@rcpt.test", "5.1.1")
    assert "550" in fields["Diagnostic-Code"] and "smtp" in fields["Diagnostic-Code"]
    assert "No such person" in fields["Diagnostic-Code"]
    assert relaying.wait_event("relay.done", id=ident)["fate"] == "bounced"
    assert mx.messages == []
    wait_until(lambda: relaying.metrics()["deliveries_in_memory"] == 0, 10, "an empty queue")


def test_permfail_greeting_bounces(relaying, mx):
    mx.on("greeting", Reply("554 5.7.1 Go away", close=True))
    ident = submit(relaying)
    check_bounce(mx.home, ident, "to@rcpt.test", "5.7.1")
    assert mx.messages == []


def test_tempfail_several_times(relaying, mx):
    mx.on("dot", "451 4.3.0 Later", times=3)
    ident = submit(relaying)
    mx.wait(1, timeout=30)
    relaying.wait_event("relay.done", id=ident, fate="delivered")
    assert len(relaying.events("relay.done", id=ident, fate="deferred")) == 3


def test_outcomes_per_recipient(relaying, mx):
    """P-181: one good, one refused, one later; each gets its own verdict and nobody two mails."""
    mx.on("rcpt", "550 5.1.1 No such person", match="bad@")
    mx.on("rcpt", "452 4.2.2 Full", match="full@", times=1)
    ident = submit(relaying, "good@rcpt.test", "bad@rcpt.test", "full@rcpt.test")
    check_bounce(mx.home, ident, "bad@rcpt.test", "5.1.1")
    mx.wait(2)
    time.sleep(0.3)
    assert [m.rcpts for m in mx.messages] == [["good@rcpt.test"], ["full@rcpt.test"]]
    assert len(mx.home.messages) == 1


@pytest.mark.parametrize("code", [452, 552])
def test_more_recipients_than_it_takes(gateways, mx, code):
    """P-181: the rest goes in new transactions, at once, as long as each takes some; who is refused
    alone waits."""
    kilat = gateways(route={"*": smarthost(mx.port)}, retry={"schedule": ["1h"]})
    for first, count in (("cdefgz", 6), ("efgz", 4), ("gz", 2)):    # two at a time
        mx.on("rcpt", f"{code} Too many", match=f"<[{first}]@", times=count)
    mx.on("rcpt", "452 4.2.2 Full", match="<z@")
    submit(kilat, *(f"{name}@rcpt.test" for name in "abcdefgz"))
    mx.wait(4)
    kilat.wait_event("relay.done", rcpt="z@rcpt.test", count=5)
    time.sleep(0.5)
    assert [len(m.rcpts) for m in mx.messages] == [2, 2, 2, 1]
    assert len(kilat.events("relay.done", rcpt="z@rcpt.test")) == 5


def test_all_recipients_refused(relaying, mx):
    """P-182: nothing is sent when no recipient is left, whatever 354 says."""
    mx.on("rcpt", "550 5.1.1 No such person")
    ident = submit(relaying, "a@rcpt.test", "b@rcpt.test")
    bounce, per_message, per_rcpt = parse_bounce(mx.home.wait(1)[0])
    assert len(per_rcpt) == 2
    assert mx.messages == [] and mx.refused == []
    assert ident


def test_null_sender_never_bounces(relaying, mx):
    """P-227."""
    mx.on("rcpt", "550 5.1.1 No such person")
    ident = submit(relaying, sender="")
    relaying.wait_event("relay.done", id=ident)
    wait_until(lambda: relaying.metrics()["deliveries_in_memory"] == 0, 10, "an empty queue")
    time.sleep(0.3)
    assert mx.home.messages == []


def test_bounce_that_cannot_be_delivered(relaying, mx):
    """A bounce that is refused for good ends there: it is not bounced again, nor lost silently."""
    mx.on("rcpt", "550 5.1.1 No such person")
    mx.home.on("rcpt", "550 5.1.1 Nor this one")
    submit(relaying)
    relaying.wait_metric("bounce_messages_total", 1)
    wait_until(lambda: relaying.metrics()["dead_letters_total"] >= 1 and
               relaying.metrics()["deliveries_in_memory"] == 0, 10, "a dead letter")
    assert relaying.metrics()["bounce_messages_total"] == 1


# -- broken ------------------------------------------------------------------------------------

@pytest.mark.parametrize("reset", [False, True], ids=["fin", "rst"])
@pytest.mark.parametrize("stage", ["connect", "greeting", "ehlo", "mail", "rcpt", "data"])
def test_closes_then_accepts(relaying, mx, stage, reset):
    """P-176: an end before a reply is trouble of the connection, for a while."""
    mx.on(stage, Close(reset=reset), times=1)
    ident = submit(relaying)
    got = mx.wait(1)
    relaying.wait_event("relay.done", id=ident, fate="delivered")
    time.sleep(0.2)
    assert len(got) == 1 and mx.home.messages == []


@pytest.mark.parametrize("after", [0, 1000, 300000])
def test_closes_in_the_body(relaying, mx, after):
    mx.on("body", Close(after=after), times=1)
    ident = submit(relaying, size=600000)
    got = mx.wait(1)
    relaying.wait_event("relay.done", id=ident, fate="delivered")
    assert len(got) == 1


def test_closes_after_the_dot(relaying, mx):
    """P-185: without the reply nothing is known; it is sent again, and counted."""
    mx.on("dot", Close(), times=1)
    ident = submit(relaying)
    mx.wait(1)
    relaying.wait_event("relay.done", id=ident, fate="delivered")
    assert relaying.metrics()["ambiguous_total"] == 1
    assert len(mx.refused) == 1 and len(mx.messages) == 1


def test_early_reply_in_the_body(relaying, mx):
    """P-186: the reply that came before the connection ended counts, not the broken pipe."""
    mx.on("body", "552 5.3.4 Too big")
    ident = submit(relaying, size=2000000)
    check_bounce(mx.home, ident, "to@rcpt.test", "5.3.4")


def test_says_421_in_the_middle(relaying, mx):
    mx.on("mail", Reply("421 4.3.2 Shutting down", close=True), times=1, skip=1)
    idents = [submit(relaying) for _ in range(3)]
    mx.wait(3)
    for ident in idents:
        relaying.wait_event("relay.done", id=ident, fate="delivered")
    assert len(mx.messages) == 3 and mx.home.messages == []


def test_half_closes(relaying, mx):
    mx.on("mail", Reply("250 2.1.0 Ok", half_close=True), times=1)
    ident = submit(relaying)
    mx.wait(1)
    relaying.wait_event("relay.done", id=ident, fate="delivered")
    assert len(mx.messages) == 1


@pytest.mark.parametrize("stage", ["greeting", "ehlo", "rcpt", "data", "dot"])
def test_stalls(relaying, mx, stage):
    """relay.reply_timeout ends a silent host; the mail is tried again."""
    mx.on(stage, Stall(30), times=1)
    ident = submit(relaying)
    mx.wait(1, timeout=30)
    relaying.wait_event("relay.done", id=ident, fate="delivered")
    assert len(mx.messages) == 1


def test_dripping_replies(relaying, mx):
    for stage, line in (("greeting", "220 slow ESMTP"), ("mail", "250 2.1.0 Ok"),
                        ("dot", "250 2.0.0 Ok")):
        mx.on(stage, Reply(line, drip=0.01), times=1)
    ident = submit(relaying)
    mx.wait(1)
    relaying.wait_event("relay.done", id=ident, fate="delivered")
    assert len(mx.messages) == 1


def test_multiline_replies(relaying, mx):
    """P-187: the last line decides."""
    mx.on("greeting", ["220-mx.test", "220-hello", "220 ESMTP"])
    mx.on("mail", ["250-2.1.0 one", "250 2.1.0 two"])
    mx.on("dot", ["250-2.0.0 taken"] * 20 + ["250 2.0.0 Ok"])
    ident = submit(relaying)
    mx.wait(1)
    relaying.wait_event("relay.done", id=ident, fate="delivered")


@pytest.mark.parametrize("line", ["garbage", "2500 Ok", "250", "999 what", "250\0 Ok"])
def test_nonsense_replies(relaying, mx, line):
    """Nonsense is trouble of the connection, not a verdict: it must not lose the mail."""
    mx.on("mail", Reply(line, close=True), times=1)
    submit(relaying)
    mx.wait(1)
    assert mx.home.messages == []


def test_endless_reply(relaying, mx):
    """A reply without end is cut off, in bounded memory."""
    mx.on("mail", Reply(["250-" + "x" * 400] * 20000 + ["250 Ok"]), times=1)
    submit(relaying)
    mx.wait(1, timeout=30)


@pytest.mark.parametrize("kwargs", [{"extensions": ()}, {"helo_only": True},
                                    {"extensions": ("SIZE", "8BITMIME")}],
                         ids=["no-extensions", "helo-only", "no-pipelining"])
def test_plain_hosts(gateways, kwargs):
    """Nothing is used that was not offered: the host complains else."""
    with Mx(**kwargs) as host:
        kilat = gateways(route={"*": smarthost(host.port)})
        for _ in range(3):
            submit(kilat, "a@rcpt.test", "b@rcpt.test")
        host.wait(3)
        assert host.violations == []
        assert all(m.rcpts == ["a@rcpt.test", "b@rcpt.test"] for m in host.messages)


def test_size_limit_of_the_host(gateways, mx):
    """P-178: what the host cannot take is not sent."""
    with Mx(extensions=("PIPELINING", "SIZE 10000")) as small:
        kilat = gateways(route={"rcpt.test": smarthost(small.port), "*": smarthost(mx.port)})
        ident = submit(kilat, size=50000)
        check_bounce(mx, ident, "to@rcpt.test", "5.3.4")
        assert small.messages == [] and small.refused == []


# -- many --------------------------------------------------------------------------------------

def test_recipients_share_a_transaction(relaying, mx):
    rcpts = [f"r{n}@rcpt.test" for n in range(60)]
    submit(relaying, *rcpts)
    got = mx.wait(1)[0]
    time.sleep(0.2)
    assert got.rcpts == rcpts and len(mx.messages) == 1


def test_recipients_of_several_destinations(relaying, mx):
    submit(relaying, "a@rcpt.test", "b@elsewhere.test", "c@rcpt.test")
    assert mx.wait(1)[0].rcpts == ["a@rcpt.test", "c@rcpt.test"]
    assert mx.home.wait(1)[0].rcpts == ["b@elsewhere.test"]


def test_duplicate_recipients(relaying, mx):
    """P-54: a recipient named twice gets one mail."""
    submit(relaying, "a@rcpt.test", "a@rcpt.test")
    assert mx.wait(1)[0].rcpts.count("a@rcpt.test") == 1
    time.sleep(0.3)
    assert len(mx.messages) == 1


def test_connections_are_reused(gateways, mx):
    kilat = gateways(route={"*": smarthost(mx.port)}, workers=1)
    for _ in range(40):
        submit(kilat)
    mx.wait(40)
    assert len(mx.connections) <= 2, f"{len(mx.connections)} connections for 40 messages in turn"


def test_messages_per_connection(gateways, mx):
    kilat = gateways(route={"*": smarthost(mx.port)}, workers=1,
                     relay={"messages_per_connection": 5})
    for _ in range(20):
        submit(kilat)
    mx.wait(20)
    assert len(mx.connections) >= 4
    assert all(c.messages <= 5 for c in mx.connections)


def test_connections_to_one_destination_are_bounded(gateways, mx):
    mx.on("dot", Reply("250 2.0.0 Ok", delay=0.1))
    kilat = gateways(route={"*": smarthost(mx.port)}, workers=1,
                     relay={"per_destination_max": 3})
    most = 0
    with RawSmtp(kilat.port) as raw:
        raw.hello()
        for _ in range(40):
            assert raw.mail(message(600)).code == 250
            most = max(most, mx.open_connections())
    mx.wait(40)
    assert most <= 3


def test_pipelined_transactions(gateways, mx):
    """With PIPELINING, MAIL, RCPT and DATA travel together."""
    kilat = gateways(route={"*": smarthost(mx.port)}, workers=1)
    for _ in range(5):
        submit(kilat)
    mx.wait(5)
    assert sum(c.pipelined for c in mx.connections) >= 5


def test_idle_connections_end(gateways, mx):
    kilat = gateways(route={"*": smarthost(mx.port)}, relay={"idle_timeout": "1s"})
    submit(kilat)
    mx.wait(1)
    wait_until(lambda: mx.open_connections() == 0, 10, "the idle connection to end")
    assert mx.connections[0].commands[-1].upper() == "QUIT"


def test_host_that_is_down(gateways):
    """Mail waits for a host that comes later."""
    port = free_port()
    kilat = gateways(route={"*": smarthost(port)})
    idents = [submit(kilat) for _ in range(5)]
    kilat.wait_metric("recipients_deferred_total", 5)
    with Mx(port=port) as late:
        late.wait(5, timeout=30)
        for ident in idents:
            kilat.wait_event("relay.done", id=ident, fate="delivered")
        assert len(late.messages) == 5


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_chaos(gateways, seed):
    """A host where everything goes wrong now and then: all mail arrives, none is bounced."""
    print(f"seed {seed}")
    with Mx(chaos=(seed, 0.05)) as host:
        kilat = gateways(route={"*": smarthost(host.port)})
        idents = [submit(kilat, size=600 + 50 * n) for n in range(60)]
        try:
            for ident in idents:
                kilat.wait_event("relay.done", timeout=40, id=ident, fate="delivered")
        except AssertionError:
            print(kilat.queue("stats"), kilat.queue("list"), f"{len(host.messages)} arrived")
            raise
        got = b"".join(m.content for m in host.messages)
        assert all(ident.encode() in got for ident in idents)
        assert host.violations == []
        assert kilat.metrics()["bounce_messages_total"] == 0


@pytest.mark.release
def test_expires(gateways, mx):
    """P-219: after retry.expire (one minute at least) the sender is told, with the last word."""
    mx.on("rcpt", "451 4.2.1 Greylisted", match="rcpt.test")
    kilat = gateways(route={"*": smarthost(mx.port)}, retry={"expire": "1min", "schedule": ["5s"]})
    ident = submit(kilat)
    got = mx.wait(1, timeout=90)[0]
    assert got.rcpts == ["from@sender.test"]
    bounce, _, fields = parse_bounce(got)
    assert fields[0]["Status"] == "4.4.7" or fields[0]["Status"] == "5.4.7"
    assert "Greylisted" in fields[0]["Diagnostic-Code"]
    kilat.wait_event("relay.done", id=ident, fate="expired")
