# SPDX-License-Identifier: Apache-2.0
"""DANE (RFC 7672): a real name server with signed zones, hosts with all sorts of certificates."""
import contextlib
import hashlib
import subprocess

import pytest

import test_promises
from lib.certs import Authority
from lib.kilat import message, secure
from lib.knot import Knot
from lib.mx import Close, Mx
from lib.net import RawSmtp, free_port
from lib.policy_host import PolicyHost, policy

def submit(kilat, **more):
    return test_promises.submit(kilat, message(), **more)


@pytest.fixture(scope="module")
def ca(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("ca"))


def der(cert, what):
    """The octets that a selector is about."""
    if what == 0:
        command = ["openssl", "x509", "-in", str(cert), "-outform", "DER"]
        return subprocess.run(command, check=True, capture_output=True).stdout
    key = subprocess.run(["openssl", "x509", "-in", str(cert), "-noout", "-pubkey"], check=True,
                         capture_output=True).stdout
    return subprocess.run(["openssl", "pkey", "-pubin", "-outform", "DER"], input=key, check=True,
                          capture_output=True).stdout


def tlsa(usage, selector, matching, cert):
    octets = der(cert, selector)
    octets = {0: lambda o: o, 1: lambda o: hashlib.sha256(o).digest(),
              2: lambda o: hashlib.sha512(o).digest()}[matching](octets)
    return f"TLSA {usage} {selector} {matching} {octets.hex()}"


def with_chain(ca, pair):
    """The certificate with its authority behind it, as DANE-TA needs it."""
    chain = pair[0].with_suffix(".chain")
    chain.write_text(pair[0].read_text() + ca.cert.read_text())
    return chain, pair[1]


@pytest.fixture
def net(gateways, folder, ca):
    """net(record, certificate): a gateway, and the MX of rcpt.test with that TLSA record."""
    with contextlib.ExitStack() as stack:
        def make(record, certificate, zone="test", route=None, more="", settings=None, broken=None,
                 relay=None, **mx):
            port = free_port()
            host = stack.enter_context(Mx(host="127.0.0.2", port=port, tls=certificate, **mx))
            records = f"rcpt MX 10 mx.rcpt\nmx.rcpt A 127.0.0.2\n{more}"
            for line in [record] if isinstance(record, str) else record or []:
                records += f"_{port}._tcp.mx.rcpt {line}\n"
            zones = {zone: records, **({"broken": broken} if broken else {})}
            dns = stack.enter_context(Knot(folder / "knot", zones,
                                           ["test"] if zone == "test" else [],
                                           ["broken"] if "broken" in zones else []))
            anchors = dns.trust_anchor
            if zone not in ("test", "broken"):
                anchors.write_text("elsewhere. DS 1 13 2 " + "00" * 32 + "\n")
            kilat = gateways(route={"*": {"relay": "mx", **(route or {})}},
                             dns={"servers": [dns.address], "trust_anchor": str(anchors)},
                             relay={"mx_port": port, "allow_private": True, **(relay or {})},
                             log={"level": "debug"}, **(settings or {}))
            return kilat, host
        yield make


def delivered(kilat, host, verified):
    submit(kilat)
    sent = host.wait(1)[0]
    assert sent.tls
    assert kilat.wait_event("relay.tls")["verified"] == verified


def deferred(kilat, host, words):
    done = kilat.wait_event("relay.done", id=submit(kilat), fate="deferred")
    assert words in done["text"], done["text"]
    assert not host.messages and not any(c.mails for c in host.connections)


@pytest.mark.parametrize("selector, matching", [(0, 1), (1, 1), (1, 2), (0, 0), (1, 0)])
def test_end_entity(net, ca, selector, matching):
    """P-199: DANE-EE: neither the name nor the time matters."""
    pair = ca.issue("other.test", days=-1, file="expired")
    kilat, host = net(tlsa(3, selector, matching, pair[0]), pair)
    delivered(kilat, host, 1)


def test_end_entity_of_another(net, ca):
    """P-199, P-200: not what the record says: never in clear, never to this host."""
    kilat, host = net(tlsa(3, 1, 1, ca.issue("x.test")[0]), ca.issue("mx.rcpt.test"))
    deferred(kilat, host, "is not what the TLSA records")


def test_one_of_two_records_is_enough(net, ca):
    """A key that is about to be changed (RFC 7671 8.1)."""
    pair = ca.issue("mx.rcpt.test")
    kilat, host = net([tlsa(3, 1, 1, ca.issue("next.test")[0]), tlsa(3, 1, 1, pair[0])], pair)
    delivered(kilat, host, 1)


def test_trust_anchor(net, ca):
    """P-199: DANE-TA, with the name of the host."""
    kilat, host = net(tlsa(2, 0, 1, ca.cert), with_chain(ca, ca.issue("mx.rcpt.test")))
    delivered(kilat, host, 1)


def test_trust_anchor_and_the_domain(net, ca):
    """RFC 7672 3.2.2: the next-hop domain is a name of the host too."""
    kilat, host = net(tlsa(2, 1, 1, ca.cert), with_chain(ca, ca.issue("rcpt.test")))
    delivered(kilat, host, 1)


def test_trust_anchor_wrong_name(net, ca):
    kilat, host = net(tlsa(2, 0, 1, ca.cert), with_chain(ca, ca.issue("mx.evil.test")))
    deferred(kilat, host, "is not for mx.rcpt.test")


def test_trust_anchor_expired(net, ca):
    pair = with_chain(ca, ca.issue("mx.rcpt.test", days=-1, file="late"))
    kilat, host = net(tlsa(2, 0, 1, ca.cert), pair)
    deferred(kilat, host, "expired")


@pytest.mark.parametrize("usage", [0, 1])
def test_unusable(net, ca, usage):
    """P-199: PKIX usages: encrypted, whoever it is."""
    pair = ca.issue("other.test")
    kilat, host = net(tlsa(usage, 0, 1, pair[0]), pair)
    delivered(kilat, host, 0)


def test_unusable_is_never_in_clear(net, ca):
    pair = ca.issue("other.test")
    kilat, host = net(tlsa(1, 0, 1, pair[0]), pair)
    host.on("starttls", "454 4.7.0 Not now")
    deferred(kilat, host, "Not now")


def test_no_starttls(net, ca):
    """P-200: a host with TLSA records that offers no TLS was tampered with."""
    kilat, host = net(tlsa(3, 1, 1, ca.issue("mx.rcpt.test")[0]), None)
    deferred(kilat, host, "does not offer STARTTLS")


def test_handshake_fails(net, ca):
    """P-192, P-200: no second try in clear."""
    pair = ca.issue("mx.rcpt.test")
    kilat, host = net(tlsa(3, 1, 1, pair[0]), pair)
    host.on("tls", Close())
    deferred(kilat, host, "")


def test_no_records(net, ca):
    """P-200: that there are none is vouched for: opportunistic."""
    kilat, host = net(None, ca.issue("other.test"))
    delivered(kilat, host, 0)


def test_not_signed(net, ca):
    """P-198: records that nobody vouches for say nothing."""
    kilat, host = net(tlsa(3, 1, 1, ca.issue("x.test")[0]), ca.issue("other.test"), zone="plain")
    submit_to = test_promises.submit(kilat, message(), "<to@rcpt.plain>")
    assert host.wait(1)[0].tls, submit_to


def test_bogus(net, ca):
    """P-200, P-211: what is bogus is no answer."""
    pair = ca.issue("mx.rcpt.broken")
    kilat, host = net(tlsa(3, 1, 1, pair[0]), pair, zone="broken")
    ident = test_promises.submit(kilat, message(), "<to@rcpt.broken>")
    done = kilat.wait_event("relay.done", id=ident, fate="deferred")
    assert done["stage"] == "dns" and host.connections == []
    assert "bogus: DNSSEC denies them" in done["text"]


@pytest.mark.parametrize("trouble", ["key", "no tls"])
def test_sender_waives_it(net, ca, trouble):
    """P-72: "TLS-Required: No" goes to a host that is not what the records say; others do not, and
    do not share its connection."""
    pair = ca.issue("mx.rcpt.test") if trouble == "key" else None
    kilat, host = net(tlsa(3, 1, 1, ca.issue("x.test")[0]), pair)
    test_promises.submit(kilat, message(TLS_Required="No"))
    assert bool(host.wait(1)[0].tls) == (trouble == "key")
    done = kilat.wait_event("relay.done", id=submit(kilat), fate="deferred")
    assert done["stage"] == "tls" and len(host.messages) == 1


def test_sender_waives_records_that_cannot_be_had(net, ca):
    """P-72, P-200: only such mail goes where nobody can say what the records are."""
    pair = ca.issue("mx.rcpt.test")
    kilat, host = net("CNAME tlsa.broken.", pair, broken=f"tlsa {tlsa(3, 1, 1, pair[0])}\n")
    test_promises.submit(kilat, message(TLS_Required="No"))
    assert host.wait(1)[0].tls
    done = kilat.wait_event("relay.done", id=submit(kilat), fate="deferred")
    assert done["stage"] == "dns" and "TLSA records" in done["text"]


def test_off_means_off(net, ca):
    kilat, host = net(tlsa(3, 1, 1, ca.issue("x.test")[0]), ca.issue("other.test"),
                      route={"tls": "off"})
    submit(kilat)
    assert host.wait(1)[0].tls == ""


def test_requiretls(net, ca):
    """P-204: DANE is verified TLS."""
    pair = ca.issue("other.test")
    kilat, host = net(tlsa(3, 1, 1, pair[0]), pair, extensions=(*Mx.extensions, "REQUIRETLS"),
                      settings=secure(ca, mode="optional"))
    with RawSmtp(kilat.ports["submission"]) as raw:
        raw.hello()
        raw.starttls(ca.context())
        assert raw.cmd("EHLO client.test").code == 250
        submit(kilat, params=" REQUIRETLS", raw=raw)
    assert host.wait(1)[0].sender_params.endswith("REQUIRETLS")


@pytest.fixture
def net_with_policy(net, ca):
    """The same, and an MTA-STS policy that is enforced and allows these hosts."""
    with PolicyHost(ca.issue("mta-sts.rcpt.test")) as web:
        def make(record, certificate, allowed):
            web.text = policy("enforce", allowed)
            return net(record, certificate,
                       more='mta-sts.rcpt A 127.0.0.1\n_mta-sts.rcpt TXT "v=STSv1; id=1"\n',
                       relay={"ca_file": str(ca.cert), "mta_sts_port": web.port})
        yield make
        assert web.requests


def test_before_mta_sts(net_with_policy, ca):
    """P-201: a policy that does not name the host is not asked: its records can be used."""
    pair = ca.issue("other.test")
    delivered(*net_with_policy(tlsa(3, 1, 1, pair[0]), pair, "another.test"), 1)


def test_unusable_leaves_it_to_mta_sts(net_with_policy, ca):
    """P-201: only records that can be used come before a policy."""
    pair = ca.issue("other.test")
    deferred(*net_with_policy(tlsa(1, 0, 1, pair[0]), pair, "mx.rcpt.test"), "is not for mx.rcpt")
