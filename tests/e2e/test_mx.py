# SPDX-License-Identifier: Apache-2.0
"""Delivery to MX hosts, with a name server and hosts of our own on loopback addresses."""
import contextlib

import pytest

from lib.dns import Dns
from lib.mx import Close, Mx
from lib.net import RawSmtp, free_port, wait_until
from test_outbound import check_bounce, parse_bounce, submit
from lib.kilat import message, smarthost


@pytest.fixture
def net(gateways):
    """net(table, hosts): a gateway, and an Mx on each loopback address; bounces go to `home`."""
    with contextlib.ExitStack() as stack:
        def make(table, *addresses, **changes):
            port = free_port()
            hosts = [stack.enter_context(Mx(host=a, port=port)) for a in addresses]
            home = stack.enter_context(Mx(name="home.test"))
            dns = stack.enter_context(Dns(table))
            kilat = gateways(route={"sender.test": smarthost(home.port), "*": {"relay": "mx"}},
                             dns={"servers": [dns.address]},
                             relay={"mx_port": port, "allow_private": True,
                                    "connect_timeout": "2s", **changes})
            make.dns, make.home = dns, home
            return kilat, hosts
        yield make


def test_lowest_preference_first(net):
    """P-208."""
    kilat, (first, second) = net({("rcpt.test", "MX"): [(20, "b.rcpt.test"), (10, "a.rcpt.test")],
                                  ("a.rcpt.test", "A"): ["127.0.0.2"],
                                  ("b.rcpt.test", "A"): ["127.0.0.3"]}, "127.0.0.2", "127.0.0.3")
    for _ in range(5):
        submit(kilat)
    first.wait(5)
    assert second.messages == []


@pytest.mark.parametrize("trouble", ["refused", "greeting", "closed"])
def test_next_host(net, trouble):
    """P-176: the second host takes what the first does not."""
    addresses = ["127.0.0.3"] if trouble == "refused" else ["127.0.0.2", "127.0.0.3"]
    kilat, hosts = net({("rcpt.test", "MX"): [(10, "a.rcpt.test"), (20, "b.rcpt.test")],
                        ("a.rcpt.test", "A"): ["127.0.0.2"],
                        ("b.rcpt.test", "A"): ["127.0.0.3"]}, *addresses)
    if trouble == "greeting":
        hosts[0].on("greeting", "421 4.3.2 Busy")
    if trouble == "closed":
        hosts[0].on("connect", Close())
    submit(kilat)
    hosts[-1].wait(1)
    assert kilat.metrics()["recipients_deferred_total"] == 0


def test_domains_hosted_together(net):
    """Their mail goes over the same connections; that of a domain at other hosts does not."""
    names = [f"d{i}.test" for i in range(20)]
    table = {(name, "MX"): [(10, "a.rcpt.test"), (20, "b.rcpt.test")] for name in names}
    table |= {("a.rcpt.test", "A"): ["127.0.0.2"], ("b.rcpt.test", "A"): ["127.0.0.3"],
              ("c.test", "MX"): [(10, "a.rcpt.test")]}
    kilat, hosts = net(table, "127.0.0.2", "127.0.0.3")
    for number, name in enumerate(names):
        ident = submit(kilat, f"to@{name}")
        hosts[0].wait(number + 1)
        kilat.wait_event("relay.done", id=ident)
    made = len(hosts[0].connections)
    assert made <= 2    # one of each worker
    submit(kilat, "to@c.test")
    hosts[0].wait(len(names) + 1)
    assert len(hosts[0].connections) == made + 1


def test_implicit_mx(net):
    """P-209: a domain without MX is its own host."""
    kilat, (host,) = net({("rcpt.test", "A"): ["127.0.0.2"]}, "127.0.0.2")
    submit(kilat)
    host.wait(1)


def test_cname(net):
    """P-208: the alias is followed."""
    kilat, (host,) = net({("rcpt.test", "CNAME"): ["real.test"],
                          ("real.test", "MX"): [(10, "a.real.test")],
                          ("a.real.test", "A"): ["127.0.0.2"]}, "127.0.0.2")
    submit(kilat)
    host.wait(1)


def test_null_mx_bounces(net):
    """P-210, P-74: a domain that takes no mail is told in the bounce, at the first attempt."""
    kilat, _ = net({("rcpt.test", "MX"): [(0, ".")], ("rcpt.test", "A"): ["127.0.0.2"]})
    ident = submit(kilat)
    check_bounce(net.home, ident, "to@rcpt.test", "5.1.10")
    assert not kilat.events("relay.done", id=ident, fate="deferred")


def test_sender_without_mail(net):
    """P-74: a sender whose domain takes no mail is not refused: newsletters of "no reply" have one,
    and what it may send from is the tenant's to say. Its bounce ends there."""
    kilat, (host,) = net({("rcpt.test", "A"): ["127.0.0.2"], ("noreply.test", "MX"): [(0, ".")]},
                         "127.0.0.2")
    submit(kilat, sender="shop@noreply.test")
    assert host.wait(1)[0].sender == "shop@noreply.test"
    host.on("rcpt", "550 5.1.1 No such person")
    submit(kilat, sender="shop@noreply.test")
    wait_until(lambda: kilat.metrics()["dead_letters_total"] == 1, 20)
    assert net.home.messages == []


def test_no_such_domain_bounces(net):
    """P-211."""
    kilat, _ = net({("other.test", "A"): ["127.0.0.2"]})
    check_bounce(net.home, submit(kilat), "to@rcpt.test", "5.1.2")


@pytest.mark.parametrize("failure", ["SERVFAIL", "REFUSED"])
def test_broken_dns_defers(net, failure):
    """P-211: trouble is not a no; when it ends, the mail goes out."""
    kilat, (host,) = net({("rcpt.test", "MX"): failure, ("rcpt.test", "A"): failure}, "127.0.0.2")
    ident = submit(kilat)
    kilat.wait_event("relay.done", id=ident, fate="deferred")
    assert net.home.messages == []


def test_private_addresses_are_refused(net):
    """P-213: an MX in our own network is not contacted unless the configuration says so."""
    kilat, (host,) = net({("rcpt.test", "MX"): [(10, "a.rcpt.test")],
                          ("a.rcpt.test", "A"): ["127.0.0.2"]}, "127.0.0.2", allow_private=False)
    submit(kilat)
    _, _, fields = parse_bounce(net.home.wait(1)[0])
    assert fields[0]["Status"].startswith("5.4.")
    assert host.connections == []


def test_names_are_cached(net):
    kilat, (host,) = net({("rcpt.test", "MX"): [(10, "a.rcpt.test")],
                          ("a.rcpt.test", "A"): ["127.0.0.2"]}, "127.0.0.2")
    for n in range(10):
        submit(kilat)
    host.wait(10)
    asked = [q for q in net.dns.asked if q == ("rcpt.test", "MX")]
    assert len(asked) <= 2, f"asked {len(asked)} times, by at most two workers"


def test_host_without_an_answer(net):
    """A name server that never answers defers the mail, and stops nothing else."""
    kilat, (host,) = net({("slow.test", "MX"): "SILENT", ("slow.test", "A"): "SILENT",
                          ("rcpt.test", "A"): ["127.0.0.2"]}, "127.0.0.2")
    submit(kilat, "to@slow.test")
    submit(kilat, "to@rcpt.test")
    host.wait(1)
    wait_until(lambda: kilat.get("/healthz")[0] == 200, 5, "health")


MX_PAIR = {("rcpt.test", "MX"): [(10, "a.rcpt.test"), (20, "b.rcpt.test")],
           ("a.rcpt.test", "A"): ["127.0.0.2"], ("b.rcpt.test", "A"): ["127.0.0.3"]}


def test_another_host_takes_what_is_too_large(net):
    """P-178: and ordinary mail still goes to the first."""
    kilat, (first, second) = net(MX_PAIR, "127.0.0.2", "127.0.0.3")
    first.offered = ("PIPELINING", "SIZE 10000")
    submit(kilat, size=50000)
    second.wait(1)
    submit(kilat)
    first.wait(1)
    assert len(second.messages) == 1 and net.home.messages == []


def test_no_host_takes_it(net):
    kilat, hosts = net(MX_PAIR, "127.0.0.2", "127.0.0.3")
    for host in hosts:
        host.offered = ("PIPELINING", "SIZE 10000")
    check_bounce(net.home, submit(kilat, size=50000), "to@rcpt.test", "5.3.4")
    assert [len(host.connections) for host in hosts] == [1, 1]


def test_the_other_host_is_down(net):
    """What it might take waits for it."""
    kilat, (first,) = net(MX_PAIR, "127.0.0.2")
    first.offered = ("PIPELINING", "SIZE 10000")
    ident = submit(kilat, size=50000)
    kilat.wait_event("relay.done", id=ident, fate="deferred")
    assert net.home.messages == []


def test_names_in_utf8(net):
    """P-71, P-215: a domain in U-labels is looked up by its A-labels."""
    kilat, (host,) = net({("xn--caf-dma.test", "MX"): [(10, "a.rcpt.test")],
                          ("a.rcpt.test", "A"): ["127.0.0.2"]}, "127.0.0.2")
    host.offered += ("SMTPUTF8",)
    with RawSmtp(kilat.port) as raw:
        raw.hello()
        assert raw.cmd("MAIL FROM:<from@sender.test> SMTPUTF8").code == 250
        assert raw.cmd("RCPT TO:<to@café.test>").code == 250
        assert raw.cmd("DATA").code == 354
        raw.send(message(600) + b".\r\n")
        assert raw.reply().code == 250
    assert host.wait(1)[0].rcpts == ["to@café.test"]
