# SPDX-License-Identifier: Apache-2.0
"""MTA-STS (RFC 8461): policies found, fetched, kept and obeyed."""
import contextlib

import pytest

import test_promises
from lib.certs import Authority
from lib.dns import Dns
from lib.kilat import message, secure
from lib.mx import Mx
from lib.net import RawSmtp, free_port
from lib.policy_host import PolicyHost, policy
from lib.redis_server import Redis


@pytest.fixture(scope="module")
def ca(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("ca"))


def submit(kilat, **more):
    return test_promises.submit(kilat, message(), **more)


def table(record="v=STSv1; id=1;", mx=((10, "mx.rcpt.test"),)):
    rows = {("rcpt.test", "MX"): list(mx), ("mta-sts.rcpt.test", "A"): ["127.0.0.1"]}
    for number, (_, name) in enumerate(mx):
        rows[(name, "A")] = [f"127.0.0.{2 + number}"]
    if record:
        rows[("_mta-sts.rcpt.test", "TXT")] = [record] if isinstance(record, str) else record
    return rows


@pytest.fixture
def net(gateways, ca):
    """net(policy text, ...): a gateway, the MX of rcpt.test and the host of its policy."""
    with contextlib.ExitStack() as stack:
        def make(text, certificate=True, rows=None, policy_certificate=None, hosts=1, route=None,
                 settings=None, **mx):
            port = free_port()
            if certificate is True:
                certificate = ca.issue("mx.rcpt.test")
            mxs = [stack.enter_context(Mx(host=f"127.0.0.{2 + i}", port=port, tls=certificate,
                                          **mx)) for i in range(hosts)]
            make.web = stack.enter_context(PolicyHost(policy_certificate or
                                                      ca.issue("mta-sts.rcpt.test")))
            make.web.text = text
            make.dns = stack.enter_context(Dns(rows or table()))
            make.settings = dict(route={"*": {"relay": "mx", **(route or {})}}, workers=1,
                                 dns={"servers": [make.dns.address]},
                                 relay={"mx_port": port, "allow_private": True,
                                        "ca_file": str(ca.cert), "mta_sts_port": make.web.port},
                                 log={"level": "debug"}, **(settings or {}))
            return gateways(**make.settings), *mxs
        yield make


def deferred(kilat, words):
    done = kilat.wait_event("relay.done", id=submit(kilat), fate="deferred")
    assert words in done["text"], done["text"]


@pytest.mark.parametrize("pattern", ["mx.rcpt.test", "*.rcpt.test", "MX.Rcpt.Test"])
@pytest.mark.parametrize("chunked", [False, True])
def test_enforce(net, pattern, chunked):
    """P-202, P-203: the host is allowed, and its certificate good for its name."""
    kilat, host = net(policy("enforce", pattern))
    net.web.chunked = chunked
    submit(kilat)
    assert host.wait(1)[0].tls
    assert kilat.wait_event("relay.tls")["verified"] == 1
    assert kilat.wait_event("sts.policy")["mode"] == "enforce"
    assert net.web.requests == [("mta-sts.rcpt.test", "/.well-known/mta-sts.txt")]


def test_is_fetched_once(net):
    """P-202: the same id, the same policy."""
    kilat, host = net(policy("enforce", "mx.rcpt.test"))
    for number in range(3):
        submit(kilat)
        host.wait(number + 1)
    assert len(net.web.requests) == 1


@pytest.mark.parametrize("pattern", ["other.rcpt.test", "*.other.test", "rcpt.test",
                                     "*.mx.rcpt.test"])
def test_host_is_not_allowed(net, pattern):
    """P-203: a wildcard is one label; a host that the policy does not name gets nothing."""
    kilat, host = net(policy("enforce", pattern))
    deferred(kilat, "allows none of its MX hosts")
    assert host.connections == []


def test_next_host(net, ca):
    """P-203: the one that is allowed, though another is preferred."""
    rows = table(mx=((10, "bad.rcpt.test"), (20, "mx.rcpt.test")))
    kilat, bad, good = net(policy("enforce", "mx.rcpt.test"), rows=rows, hosts=2)
    submit(kilat)
    assert good.wait(1)[0].tls and bad.connections == []


@pytest.mark.parametrize("trouble", ["name", "authority", "expired", "no tls", "refused"])
def test_enforce_keeps_mail_back(net, ca, tmp_path, trouble):
    """P-203: 4.7.x, never in clear."""
    make = {"name": lambda: ca.issue("mx.other.test"),
            "authority": lambda: Authority(tmp_path / "x").issue("mx.rcpt.test"),
            "expired": lambda: ca.issue("mx.rcpt.test", days=-1, file="late")}
    words = {"name": "is not for mx.rcpt.test", "authority": "unable to get",
             "expired": "expired", "no tls": "does not offer STARTTLS", "refused": "No"}[trouble]
    certificate = make.get(trouble, lambda: None if trouble == "no tls" else True)()
    kilat, host = net(policy("enforce", "mx.rcpt.test"), certificate)
    if trouble == "refused":
        host.on("starttls", "454 4.7.0 No")
    deferred(kilat, words)
    assert not any(c.mails for c in host.connections)


@pytest.mark.parametrize("mode", ["testing", "none"])
def test_other_modes_keep_nothing_back(net, ca, mode):
    """P-203: what is tested is told in the log."""
    kilat, host = net(policy(mode, "mx.rcpt.test"), ca.issue("mx.other.test"))
    submit(kilat)
    assert host.wait(1)[0].tls
    if mode == "testing":
        assert "is not for mx.rcpt.test" in kilat.wait_event("sts.testing")["error"]


@pytest.mark.parametrize("trouble", ["name", "no tls"])
def test_sender_waives_it(net, ca, trouble):
    """P-72: "TLS-Required: No": what the policy keeps back goes; the next mail is kept back."""
    kilat, host = net(policy("enforce", "mx.rcpt.test"),
                      ca.issue("mx.other.test") if trouble == "name" else None)
    ident = test_promises.submit(kilat, message(TLS_Required="No"))
    assert bool(host.wait(1)[0].tls) == (trouble == "name")
    assert kilat.wait_event("relay.done", id=ident)["dest"] == "~rcpt.test"
    deferred(kilat, "")
    assert len(host.messages) == 1


@pytest.mark.parametrize("trouble", ["certificate", "authority", "redirect", "missing", "type",
                                     "text", "large", "cut"])
def test_policy_cannot_be_had(net, ca, tmp_path, trouble):
    """P-202, P-203: no policy was known, so there is none; the log says why."""
    certificate = {"certificate": lambda: ca.issue("elsewhere.test"),
                   "authority": lambda: Authority(tmp_path / "x").issue("mta-sts.rcpt.test")}
    kilat, host = net(policy("enforce", "other.test"), ca.issue("mx.other.test"),
                      policy_certificate=certificate.get(trouble, lambda: None)())
    web = net.web
    web.status = {"redirect": 302, "missing": 404}.get(trouble, 200)
    web.type = "text/html" if trouble == "type" else "text/plain; charset=us-ascii"
    web.cut = trouble == "cut"
    if trouble == "text":
        web.text = "version: STSv1\nmode: enforce\n"
    if trouble == "large":
        web.text += "mx: a.test\r\n" * 8000
    submit(kilat)
    assert host.wait(1)[0].tls
    assert kilat.wait_event("sts.failed")["domain"] == "rcpt.test"
    assert len(web.requests) <= 1


@pytest.mark.parametrize("record", [None, "v=STSv1; id=;", "v=spf1 -all",
                                    ["v=STSv1; id=1", "v=STSv1; id=2"]])
def test_no_record(net, ca, record):
    """P-202: exactly one, well-formed; else nothing is fetched."""
    kilat, host = net(policy("enforce", "other.test"), ca.issue("x.test"), rows=table(record))
    submit(kilat)
    host.wait(1)
    assert net.web.requests == []


def test_kept_policy_outlives_the_record(net, ca, gateways, folder):
    """P-203: after a restart, with the record gone and its host silent, what is kept counts."""
    with Redis(folder / "redis") as redis:
        outside = {"redis": {"mode": "external", "url": redis.url}}
        kilat, host = net(policy("enforce", "mx.rcpt.test"), settings=outside)
        submit(kilat)
        host.wait(1)
        kilat.stop()
        host.tls = None
        net.web.status = 500
        del net.dns.table[("_mta-sts.rcpt.test", "TXT")]
        again = gateways("again", **net.settings)
        deferred(again, "does not offer STARTTLS")


def test_new_id_is_fetched(net, gateways, folder):
    """P-202: a changed id brings the new policy."""
    with Redis(folder / "redis") as redis:
        outside = {"redis": {"mode": "external", "url": redis.url}}
        kilat, host = net(policy("enforce", "other.test"), settings=outside)
        deferred(kilat, "allows none")
        kilat.stop()
        net.dns.table[("_mta-sts.rcpt.test", "TXT")] = ["v=STSv1; id=2"]
        net.web.text = policy("enforce", "mx.rcpt.test")
        again = gateways("again", **net.settings)
        submit(again)
        assert host.wait(1)[0].tls
        assert len(net.web.requests) == 2


def test_off(net, ca):
    kilat, host = net(policy("enforce", "other.test"), ca.issue("x.test"), route={"tls": "off"})
    submit(kilat)
    assert host.wait(1)[0].tls == "" and net.web.requests == []


def test_requiretls(net, ca):
    """P-204: a policy that is enforced makes TLS verified."""
    kilat, host = net(policy("enforce", "mx.rcpt.test"), settings=secure(ca, mode="optional"),
                      extensions=(*Mx.extensions, "REQUIRETLS"))
    with RawSmtp(kilat.ports["submission"]) as raw:
        raw.hello()
        raw.starttls(ca.context())
        assert raw.cmd("EHLO client.test").code == 250
        submit(kilat, params=" REQUIRETLS", raw=raw)
    assert host.wait(1)[0].sender_params.endswith("REQUIRETLS")
