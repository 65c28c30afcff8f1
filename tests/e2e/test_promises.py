# SPDX-License-Identifier: Apache-2.0
"""What the submission side accepted by its extensions is kept by the relay: said to the next hop,
done in its place, or reported. How each word is chosen is shown by the unit tests of the client and
the reports; here it passes through the queue."""
import contextlib
import re
import time

import pytest

from lib.certs import Authority
from lib.kilat import message, secure, smarthost
from lib.mx import Close, Mx
from lib.net import RawSmtp, queue_id, wait_until
from test_outbound import parse_bounce

ALL = ("PIPELINING", "SIZE 104857600", "8BITMIME", "BINARYMIME", "CHUNKING", "SMTPUTF8", "DSN",
       "DELIVERBY 1", "MT-PRIORITY", "ENHANCEDSTATUSCODES")
PLAIN = ("PIPELINING", "SIZE 104857600", "8BITMIME", "ENHANCEDSTATUSCODES")


@pytest.fixture
def hop(gateways):
    """hop(extensions): a gateway whose mail for rcpt.test goes to such a host; the rest, reports
    among it, to host.home."""
    with contextlib.ExitStack() as stack:
        def make(extensions, **changes):
            host = stack.enter_context(Mx(extensions=extensions))
            host.home = stack.enter_context(Mx(name="home.test", extensions=ALL))
            changes = {"limits": {"deliver_by_min": 1}, **changes}
            kilat = gateways(route={"*.rcpt.test": smarthost(host.port),
                                    "rcpt.test": smarthost(host.port),
                                    "*": smarthost(host.home.port)}, **changes)
            make.hosts += [host, host.home]
            return kilat, host
        make.hosts = []
        yield make
        for host in make.hosts:
            assert host.violations == []


def submit(kilat, content, *rcpts, params="", sender="from@sender.test", chunks=False, raw=None):
    """Each of rcpts may carry parameters: "<a@b> NOTIFY=NEVER". Returns the queue id."""
    with contextlib.ExitStack() as stack:
        if raw is None:
            raw = stack.enter_context(RawSmtp(kilat.port))
            raw.hello()
        reply = raw.cmd(f"MAIL FROM:<{sender}>{params}")
        assert reply.code == 250, reply
        for rcpt in rcpts or ("<to@rcpt.test>",):
            reply = raw.cmd(f"RCPT TO:{rcpt}")
            assert reply.code == 250, reply
        if chunks:
            raw.send(f"BDAT {len(content)} LAST\r\n".encode() + content)
            return queue_id(raw.reply())
        reply = raw.cmd("DATA")
        assert reply.code == 354, reply
        raw.send(content + b".\r\n")
        return queue_id(raw.reply())


def the_report(host, action, status, count=1):
    """(report, per-message fields, fields of the only recipient)."""
    got = host.home.wait(count)[count - 1]
    assert got.sender == "" and got.rcpts == ["from@sender.test"]
    assert got.rcpt_params == ["NOTIFY=NEVER"]
    report, per_message, per_rcpt = parse_bounce(got)
    assert len(per_rcpt) == 1, per_rcpt
    assert per_rcpt[0]["Action"] == action and per_rcpt[0]["Status"] == status, per_rcpt[0]
    return report, per_message, per_rcpt[0]


def is_over(kilat):
    wait_until(lambda: kilat.metrics()["deliveries_in_memory"] == 0, 10, "an empty queue")


# -- said to the next hop ----------------------------------------------------------------------

def test_parameters_are_passed_on(hop):
    """P-64, P-65, P-68, P-177."""
    kilat, host = hop(ALL)
    submit(kilat, message(), "<to@rcpt.test> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;other+40rcpt.test",
           "<b@rcpt.test>", params=" RET=HDRS ENVID=AB+2BC BY=3600;NT MT-PRIORITY=-3")
    got = host.wait(1)[0]
    params = got.sender_params.split()
    assert {"RET=HDRS", "ENVID=AB+2BC", "MT-PRIORITY=-3"} <= set(params)
    left = [re.fullmatch(r"BY=(\d+);NT", p) for p in params if p.startswith("BY=")]
    assert 3590 <= int(left[0][1]) <= 3600
    assert got.rcpt_params == ["NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;other+40rcpt.test", ""]


def test_nothing_is_said_that_was_not_offered(hop):
    kilat, host = hop(PLAIN)
    submit(kilat, message(), "<to@rcpt.test> NOTIFY=FAILURE",
           params=" RET=HDRS ENVID=AB BY=3600;N MT-PRIORITY=3")
    assert host.wait(1)[0].sender_params.startswith("SIZE=")
    assert host.messages[0].rcpt_params == [""]


def test_time_held_back_is_not_passed_on(hop):
    kilat, host = hop(ALL + ("FUTURERELEASE 100000 2099-01-01T00:00:00Z",))
    before = time.monotonic()
    submit(kilat, message(), params=" HOLDFOR=1")
    got = host.wait(1)[0]
    assert "HOLD" not in got.sender_params
    assert time.monotonic() - before >= 1


# -- BDAT --------------------------------------------------------------------------------------

def binary(size):
    head = message(500)
    return head + bytes(range(256)) * (size // 256) + b"\n.\n\r.\r\n.\r\nno end"


@pytest.mark.parametrize("size", [1000, 1000000], ids=["small", "in-pieces"])
def test_binary_by_bdat(hop, size):
    """P-106: octet by octet, also when it went through Redis in pieces."""
    kilat, host = hop(ALL)
    content = binary(size)
    submit(kilat, content, params=" BODY=BINARYMIME", chunks=True)
    got = host.wait(1)[0]
    assert got.by_bdat and "BODY=BINARYMIME" in got.sender_params
    assert got.content.endswith(content.split(b"\r\n\r\n", 1)[1])


@pytest.mark.parametrize("size", [1000, 1000000], ids=["small", "in-pieces"])
def test_binary_comes_back(hop, size):
    kilat, host = hop(PLAIN + ("CHUNKING",))
    submit(kilat, binary(size), params=" BODY=BINARYMIME", chunks=True)
    report, _, _ = the_report(host, "failed", "5.6.3")
    assert list(report.iter_parts())[2].get_content_type() == "text/rfc822-headers"
    assert host.messages == []


@pytest.mark.parametrize("size", [1000, 600000], ids=["small", "in-pieces"])
def test_a_missing_line_end_is_added(hop, size):
    """P-105: what came by BDAT may end anywhere; by DATA it ends in CR LF."""
    kilat, host = hop(PLAIN)
    content = message(size) + b"no end"
    submit(kilat, content, chunks=True)
    got = host.wait(1)[0]
    assert not got.by_bdat
    assert got.content.endswith(b"\r\nno end\r\n")


def test_bdat_spares_a_round_trip(hop):
    kilat, host = hop(("CHUNKING", "8BITMIME"))
    submit(kilat, message() + b".dots\r\n..\r\n", chunks=True)
    got = host.wait(1)[0]
    assert got.by_bdat and got.content.endswith(b"\r\n.dots\r\n..\r\n")
    assert "DATA" not in host.connections[0].commands


def test_bdat_refused(hop):
    """P-188: the same mail by DATA, on the same connection, and so from then on."""
    kilat, host = hop(("CHUNKING", "8BITMIME"), workers=1)
    host.on("bdat", "503 5.5.1 Not here")
    for _ in range(3):
        submit(kilat, message())
    got = host.wait(3)
    assert not any(m.by_bdat for m in got)
    assert sum(c.startswith("BDAT") for c in host.connections[0].commands) == 1
    assert kilat.metrics()["recipients_deferred_total"] == 0


def test_lost_in_a_chunk(hop):
    kilat, host = hop(ALL)
    host.on("body", Close(after=1000), times=1)
    submit(kilat, binary(100000), params=" BODY=BINARYMIME", chunks=True)
    assert len(host.wait(1)) == 1
    is_over(kilat)
    assert len(host.messages) == 1 and host.home.messages == []


# -- SMTPUTF8 ----------------------------------------------------------------------------------

def utf8_message():
    return message(600).replace(b"Subject: test", "Subject: grüße".encode())


def test_utf8_is_passed_on(hop):
    kilat, host = hop(ALL)
    submit(kilat, utf8_message(), "<jürgen@rcpt.test>", params=" SMTPUTF8 BODY=8BITMIME")
    got = host.wait(1)[0]
    assert got.rcpts == ["jürgen@rcpt.test"] and "SMTPUTF8" in got.sender_params
    assert "Subject: grüße".encode() in got.content


def test_utf8_address_comes_back(hop):
    """P-180, P-231; who has an ASCII address gets it."""
    kilat, host = hop(PLAIN)
    submit(kilat, message(), "<jürgen@rcpt.test>", "<to@rcpt.test>", params=" SMTPUTF8")
    assert host.wait(1)[0].rcpts == ["to@rcpt.test"]
    got = host.home.wait(1)[0]
    assert "SMTPUTF8" not in got.sender_params and "BODY=8BITMIME" in got.sender_params
    assert b"Content-Type: message/global-delivery-status\r\n" in got.content
    assert "\r\nFinal-Recipient: utf-8; jürgen@rcpt.test\r\n".encode() in got.content
    assert b"\r\nStatus: 5.6.7\r\n" in got.content


def test_utf8_header_comes_back(hop):
    kilat, host = hop(PLAIN)
    submit(kilat, utf8_message(), params=" SMTPUTF8")
    the_report(host, "failed", "5.6.9")
    assert host.messages == []


# -- reports -----------------------------------------------------------------------------------

def test_notify_decides(hop):
    """P-233: one refusal, three wishes, one report of the two that want one."""
    kilat, host = hop(PLAIN)
    host.on("rcpt", "550 5.1.1 No such user")
    submit(kilat, message(), "<never@rcpt.test> NOTIFY=NEVER", "<success@rcpt.test> NOTIFY=SUCCESS",
           "<failure@rcpt.test> NOTIFY=FAILURE", "<open@rcpt.test>")
    _, _, per_rcpt = parse_bounce(host.home.wait(1)[0])
    assert [f["Final-Recipient"] for f in per_rcpt] == ["rfc822; failure@rcpt.test",
                                                        "rfc822; open@rcpt.test"]
    is_over(kilat)
    assert len(host.home.messages) == 1


def test_never_is_no_dead_letter(hop):
    kilat, host = hop(PLAIN)
    host.on("rcpt", "550 5.1.1 No such user")
    submit(kilat, message(), "<never@rcpt.test> NOTIFY=NEVER")
    kilat.wait_event("relay.done", fate="bounced")
    is_over(kilat)
    assert kilat.metrics()["dead_letters_total"] == 0 and host.home.messages == []


def test_what_was_given_comes_back(hop):
    """P-65, P-229."""
    kilat, host = hop(PLAIN)
    host.on("rcpt", "550 5.1.1 No such user")
    submit(kilat, message(), "<to@rcpt.test> ORCPT=rfc822;first+2Bname@rcpt.test",
           params=" RET=HDRS ENVID=order+2B7")
    report, per_message, fields = the_report(host, "failed", "5.1.1")
    assert per_message["Original-Envelope-Id"] == "order+7"
    assert fields["Original-Recipient"] == "rfc822; first+name@rcpt.test"
    returned = list(report.iter_parts())[2]
    assert returned.get_content_type() == "text/rfc822-headers"
    assert "xxxxxx" not in returned.get_payload()


@pytest.mark.parametrize("extensions", [PLAIN, ALL], ids=["without-dsn", "with-dsn"])
def test_success(hop, extensions):
    """P-232: told by us when nobody else will."""
    kilat, host = hop(extensions)
    submit(kilat, message(), "<to@rcpt.test> NOTIFY=SUCCESS")
    host.wait(1)
    if extensions is PLAIN:
        report, _, _ = the_report(host, "relayed", "2.0.0")
        assert "passed on" in report["Subject"]
        return
    assert host.messages[0].rcpt_params == ["NOTIFY=SUCCESS ORCPT=rfc822;to@rcpt.test"]
    is_over(kilat)
    time.sleep(0.3)
    assert host.home.messages == []


def test_delay_is_told_once(hop):
    """P-218: also after the item went through Redis several times."""
    kilat, host = hop(PLAIN, retry={"delay_notice": "1s"})
    host.on("rcpt", "451 4.2.1 Later", times=5)
    submit(kilat, message(), "<to@rcpt.test> NOTIFY=DELAY,FAILURE")
    report, _, fields = the_report(host, "delayed", "4.2.1")
    assert fields["Will-Retry-Until"] and "Later" in fields["Diagnostic-Code"]
    assert "still being tried" in report["Subject"]
    host.wait(1)
    assert len(host.home.messages) == 1


def test_delay_is_not_told_unasked(hop):
    kilat, host = hop(PLAIN, retry={"delay_notice": "1s"})
    host.on("rcpt", "451 4.2.1 Later", times=3)
    submit(kilat, message())
    host.wait(1)
    assert host.home.messages == []


# -- time --------------------------------------------------------------------------------------

def test_too_late_is_returned(hop):
    """P-68, by-mode R: at its time, not at the next attempt after it."""
    kilat, host = hop(ALL, retry={"schedule": ["1min"]})
    host.on("rcpt", "451 4.2.1 Later")
    before = time.monotonic()
    submit(kilat, message(), params=" BY=3;R")
    the_report(host, "failed", "5.4.7")
    assert 2 <= time.monotonic() - before < 15


def test_in_time_needs_a_promise(hop):
    """RFC 2852: by-mode R goes to nobody who does not look at the time."""
    kilat, host = hop(PLAIN)
    submit(kilat, message(), params=" BY=3600;R")
    the_report(host, "failed", "5.4.7")
    assert host.messages == []


def test_late_is_told_and_goes_on(hop):
    """By-mode N."""
    kilat, host = hop(ALL)
    host.on("rcpt", "451 4.2.1 Later", times=4)
    submit(kilat, message(), params=" BY=1;N")
    the_report(host, "delayed", "4.4.7")
    got = host.wait(1)[0]
    assert re.search(r"BY=-\d+;N", got.sender_params)
    assert len(host.home.messages) == 1


# -- the next hop's limits ---------------------------------------------------------------------

def test_limits_of_recipients(hop):
    """P-173: several transactions, nobody twice, nobody forgotten."""
    kilat, host = hop(ALL + ("LIMITS RCPTMAX=2",))
    rcpts = [f"r{n}@rcpt.test" for n in range(7)]
    submit(kilat, message(), *(f"<{r}>" for r in rcpts))
    got = host.wait(4, timeout=30)
    is_over(kilat)
    assert sorted(r for m in got for r in m.rcpts) == rcpts
    assert all(len(m.rcpts) <= 2 for m in got)
    assert kilat.metrics()["recipients_deferred_total"] == 0


def test_limits_of_domains(hop):
    kilat, host = hop(ALL + ("LIMITS RCPTDOMAINMAX=1 MAILMAX=2",), workers=1)
    rcpts = [f"r@{n}.rcpt.test" for n in range(3)] + [f"s@{n}.rcpt.test" for n in range(3)]
    submit(kilat, message(), *(f"<{r}>" for r in rcpts))
    got = host.wait(3, timeout=30)
    is_over(kilat)
    assert sorted(sorted(m.rcpts) for m in got) == [[f"r@{n}.rcpt.test", f"s@{n}.rcpt.test"]
                                                    for n in range(3)]
    assert all(c.mails <= 2 for c in host.connections)


# -- EHLO, TLS ---------------------------------------------------------------------------------

def test_helo_after_hanging_up_on_ehlo(hop):
    """P-163: once, at once, on a new connection."""
    kilat, host = hop(ALL, workers=1)
    host.on("ehlo", Close())
    submit(kilat, message())
    host.wait(1)
    assert [c.commands[0].split()[0] for c in host.connections] == ["EHLO", "HELO"]
    assert kilat.metrics()["recipients_deferred_total"] == 0


def test_requiretls_is_kept(gateways, folder):
    """P-204: the way out is in clear, so it comes back, its body left out, and is never sent."""
    ca = Authority(folder / "ca")
    with Mx(extensions=ALL) as host, Mx(name="home.test", extensions=ALL) as host.home:
        kilat = gateways(route={"rcpt.test": smarthost(host.port), "*": smarthost(host.home.port)},
                         **secure(ca, mode="optional"))
        with RawSmtp(kilat.ports["submission"]) as raw:
            raw.hello()
            raw.starttls(ca.context())
            assert raw.cmd("EHLO client.test").code == 250
            submit(kilat, message(), params=" REQUIRETLS", raw=raw)
        report, _, _ = the_report(host, "failed", "5.7.30")
        assert list(report.iter_parts())[2].get_content_type() == "text/rfc822-headers"
        assert not any(c.mails for c in host.connections)
