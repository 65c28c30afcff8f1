# SPDX-License-Identifier: Apache-2.0
"""Routes by tenant and lane: the same recipient by another way, also after the file has changed."""
from lib.dns import Dns
from lib.kilat import HOLD, send, message, smarthost
from lib.mx import Mx
from lib.net import free_port, queue_id

TRUSTED = {"bind": ["127.0.0.1:0"], "networks": ["127.0.0.0/8"]}
TENANT = {"senders": ["*"]}
LISTENERS = {"any": TRUSTED, "bulk": {**TRUSTED, "lane": "bulk"},
             "shop": {**TRUSTED, "tenant": "shop"},
             "shop-bulk": {**TRUSTED, "tenant": "shop", "lane": "bulk"}}


def submit(kilat, listener, domain="rcpt.test"):
    rcpt = f"{listener}@{domain}"
    return queue_id(send(kilat.ports[listener], message(), "from@sender.test", [rcpt]))


def test_tenant_and_lane(gateways):
    """One name, four ways: MX delivery by two routes, which share nothing but the host, and two
    smarthosts."""
    port = free_port()
    table = {("rcpt.test", "MX"): [(10, "a.rcpt.test")], ("a.rcpt.test", "A"): ["127.0.0.2"]}
    with Mx(host="127.0.0.2", port=port) as mx, Mx() as shop, Mx() as exact, Dns(table) as dns:
        kilat = gateways(listener=LISTENERS, tenant={"shop": TENANT},
                         route={"*": {"relay": "mx"},
                                "bulk": {"domain": "*", "lane": "bulk", "relay": "mx"},
                                "shop": {"domain": "*", "tenant": "shop", **smarthost(shop.port)},
                                "exact.test": smarthost(exact.port)},
                         dns={"servers": [dns.address]},
                         relay={"mx_port": port, "allow_private": True})
        idents = {name: submit(kilat, name) for name in LISTENERS}
        submit(kilat, "shop-bulk", "exact.test")
        assert {m.rcpts[0] for m in mx.wait(2)} == {"any@rcpt.test", "bulk@rcpt.test"}
        # the tenant comes before the lane
        assert {m.rcpts[0] for m in shop.wait(2)} == {"shop@rcpt.test", "shop-bulk@rcpt.test"}
        assert exact.wait(1)[0].rcpts == ["shop-bulk@exact.test"]
        dests = {name: kilat.wait_event("relay.done", id=ident)["dest"]
                 for name, ident in idents.items()}
        assert dests == {"any": "rcpt.test", "bulk": "bulk/rcpt.test", "shop": "@shop",
                         "shop-bulk": "@shop"}
        for host in (mx, shop, exact):
            assert host.violations == []


def test_mail_follows_the_file(gateways):
    """What waits for one route takes another when the file says so after a restart."""
    with Mx() as mx:
        kilat = gateways(listener=LISTENERS, tenant={"shop": TENANT},
                         route={"held": {"domain": "*", "tenant": ["shop"], **HOLD},
                                "*": smarthost(mx.port)})
        submit(kilat, "any")
        submit(kilat, "shop")
        assert mx.wait(1)[0].rcpts == ["any@rcpt.test"]
        assert "!held" in kilat.queue("list")
        assert kilat.stop() == 0
        kilat.reconfigure(route={"released": {"domain": "*", "tenant": ["shop"],
                                              **smarthost(mx.port)}, "*": HOLD})
        kilat.start()
        kilat.queue("release", "!held")
        assert mx.wait(2)[1].rcpts == ["shop@rcpt.test"]
        assert mx.violations == []
