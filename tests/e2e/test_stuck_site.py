# SPDX-License-Identifier: Apache-2.0
"""One site that accepts connections and never answers, among others that work."""
import contextlib

from lib import postfix_tools
from lib.kilat import smarthost
from lib.mx import Mx, Stall

SITES = 10


def fill(kilat, site, count):
    postfix_tools.smtp_source(kilat.port, "-s", 10, "-m", count, "-l", 1000, "-d", "-t",
                              f"to@site{site}.test", "-f", "a@sender.test")


def test_others_do_not_wait_for_it(gateways):
    """The mail for the stuck site is many times what fits in memory, and comes before that of the
    others: they get theirs all the same."""
    with contextlib.ExitStack() as stack:
        hosts = [stack.enter_context(Mx()) for _ in range(SITES)]
        hosts[0].on("connect", Stall())
        routes = {f"site{i}.test": smarthost(host.port) for i, host in enumerate(hosts)}
        kilat = gateways(workers=1, route={"*": smarthost(hosts[1].port), **routes},
                         queue={"deliveries_max": 200}, relay={"per_destination_max": 4})
        fill(kilat, 0, 2000)
        for site in range(1, SITES):
            fill(kilat, site, 100)
            fill(kilat, 0, 100)
        for host in hosts[1:]:
            host.wait(100, 60)
        assert hosts[0].messages == []
        metrics = kilat.metrics()
        assert metrics["recipients_delivered_total"] == 100 * (SITES - 1)
        assert metrics["recipients_deferred_total"] == 0


def test_a_site_that_is_alone_has_all(gateways):
    """Nothing is held back from one that works: all that comes for it goes."""
    with Mx(keep_content=False) as host:
        kilat = gateways(workers=1, route={"*": smarthost(host.port)},
                         queue={"deliveries_max": 200})
        fill(kilat, 0, 5000)
        host.wait(5000, 60)
