# SPDX-License-Identifier: Apache-2.0
"""What replies mean: categories, actions of rules, and hard bounces that feed suppression lists."""
import signal
import time

import pytest

from lib.kilat import DEFAULTS, message, send, smarthost
from lib.mx import Mx, Reply
from lib.net import queue_id, wait_until

GONE = "550 5.1.1 The email account that you tried to reach does not exist"
TEMP = "421 4.7.0 [TSS04] Messages from 192.0.2.1 temporarily deferred due to user complaints"


@pytest.fixture
def settings(mx):
    """Settings of a gateway whose mail for rcpt.test goes to mx and all else to mx.home."""
    with Mx(name="home.test") as home:
        mx.home = home
        yield {"workers": 1,        # each leaves a destination alone on its own
               "route": {"rcpt.test": smarthost(mx.port), "*": smarthost(home.port)},
               "retry": {"schedule": ["1s"], "jitter": 0},
               "tenant": {"acme": {}, "other": {"suppress_after_bounces": 2}},
               "listener": {"trusted": {**DEFAULTS["listener"]["trusted"], "tenant": "acme"}}}


def submit(kilat, *rcpts):
    return queue_id(send(kilat.port, message(500), "from@sender.test", rcpts or ["to@rcpt.test"]))


def suppressed(kilat, tenant="acme"):
    done = kilat.command("suppress", "list", tenant)
    assert done.returncode == 0, done.stderr
    return dict(line.split("\t") for line in done.stdout.splitlines())


def failures(kilat, category):
    status, text = kilat.get("/metrics")
    assert status == 200
    name = f'kilat_recipient_failures_total{{category="{category}"}} '
    return [int(line[len(name):]) for line in text.splitlines() if line.startswith(name)][0]


def test_categories_are_told(gateways, settings, mx):
    """P-237: in the log, in the bounce, in the metrics."""
    mx.on("rcpt", GONE, match="gone@")
    mx.on("rcpt", "554 5.2.2 user is over quota", match="full@")
    mx.on("rcpt", "550 5.7.1 Client host blocked using zen.spamhaus.org", match="blocked@")
    kilat = gateways(**settings)
    wanted = {"gone@rcpt.test": "invalid-mailbox", "full@rcpt.test": "mailbox-full",
              "blocked@rcpt.test": "blocked"}
    ident = submit(kilat, "good@rcpt.test", *wanted)
    report = mx.home.wait(1)[0].content.decode()
    for rcpt, category in wanted.items():
        event = kilat.wait_event("relay.done", id=ident, rcpt=rcpt)
        assert (event["category"], event["fate"]) == (category, "bounced")
        assert f"({category}: " in report
        assert failures(kilat, category) == 1
    assert "category" not in kilat.wait_event("relay.done", id=ident, rcpt="good@rcpt.test")
    # P-238: only that one, and it is reversible.
    wait_until(lambda: list(suppressed(kilat)) == ["gone@rcpt.test"], 5, "a suppression")
    assert suppressed(kilat)["gone@rcpt.test"] == (
        f"hard bounce: invalid-mailbox, 550 5.1.1, {ident}")
    assert suppressed(kilat, "other") == {}
    with pytest.raises(AssertionError, match="550.*hard bounce: invalid-mailbox"):
        submit(kilat, "gone@rcpt.test")
    assert kilat.command("suppress", "remove", "acme", "gone@rcpt.test").returncode == 0
    mx.clear()
    submit(kilat, "gone@rcpt.test")
    mx.wait(2)


def test_bounces_are_counted(gateways, settings, mx):
    """The second one does it; a retried delivery counts once, and 0 means never."""
    mx.on("rcpt", GONE, match="gone@")
    settings["listener"]["trusted"]["tenant"] = "other"
    kilat = gateways(**settings)
    submit(kilat, "gone@rcpt.test")
    mx.home.wait(1)
    kilat.wait_metric("hard_bounces_total", 1)
    assert suppressed(kilat, "other") == {}
    submit(kilat, "gone@rcpt.test")
    wait_until(lambda: "gone@rcpt.test" in suppressed(kilat, "other"), 5, "a suppression")
    never = gateways("never", **{**settings, "tenant": {"other": {"suppress_after_bounces": 0}}})
    submit(never, "gone@rcpt.test")
    mx.home.wait(3)
    assert never.metrics()["hard_bounces_total"] == 0
    assert suppressed(never, "other") == {}


def test_a_reason_of_an_operator_stays(gateways, settings, mx):
    mx.on("rcpt", GONE)
    kilat = gateways(**settings)
    ident = submit(kilat)
    wait_until(lambda: suppressed(kilat), 5, "a suppression")
    kilat.command("suppress", "add", "acme", "to@rcpt.test", "--reason", "asked for it")
    assert suppressed(kilat) == {"to@rcpt.test": "asked for it"}
    assert ident


def test_a_destination_is_suspended(gateways, settings, folder, mx):
    """One message hears "too much"; what waits and what comes is not even tried."""
    rules = folder / "my.rules"
    rules.write_text('text "[tss04]" code 4xx -> rate-limited suspend 4s\n')
    mx.on("mail", TEMP, times=1)
    kilat = gateways(relay={"rules": str(rules)}, **settings)
    first = submit(kilat)
    event = kilat.wait_event("relay.suspended")
    assert (event["dest"], str(event["ms"])) == ("@rcpt.test", "4000")
    began = time.monotonic()
    second = submit(kilat, "two@rcpt.test")
    event = kilat.wait_event("relay.done", id=second)
    assert (event["fate"], event["stage"], event["category"]) == ("deferred", "local",
                                                                  "rate-limited")
    assert "asked for less mail: 421 4.7.0 [TSS04]" in event["text"]
    got = mx.wait(2, timeout=15)
    assert min(m.time for m in got) - began > 3.0
    assert sorted(m.rcpts[0] for m in got) == ["to@rcpt.test", "two@rcpt.test"]
    assert len(kilat.events("relay.suspended")) == 1 and first
    assert kilat.metrics()["destinations_suspended_total"] == 1


def test_a_greeting_has_a_host(gateways, settings, folder, mx):
    """What waits for a connection hears who refused it, in the log and in the bounce."""
    rules = folder / "my.rules"
    rules.write_text("host 127.0.* stage greeting code 5xx -> blocked\n")
    mx.on("greeting", Reply("554 5.3.2 No", close=True))
    kilat = gateways(relay={"rules": str(rules)}, **settings)
    done = kilat.wait_event("relay.done", id=submit(kilat))
    assert (done["host"], done["stage"], done["category"], done["fate"]) == (
        "127.0.0.1", "greeting", "blocked", "bounced")
    assert "Remote-MTA: dns; 127.0.0.1" in mx.home.wait(1)[0].content.decode()


def test_rules_retry_and_bounce(gateways, settings, folder, mx):
    rules = folder / "my.rules"
    rules.write_text('text "come back" -> policy retry\n'
                     'text "never ever" code 4xx -> inactive-mailbox bounce\n')
    mx.on("rcpt", "550 5.3.2 Come back later", match="later@", times=2)
    mx.on("rcpt", "450 4.2.1 Never ever", match="never@")
    kilat = gateways(relay={"rules": str(rules)}, **settings)
    ident = submit(kilat, "later@rcpt.test", "never@rcpt.test")
    report = mx.home.wait(1)[0].content.decode()
    assert "in time" not in report and "Status: 4.2.1" in report and "Action: failed" in report
    assert kilat.wait_event("relay.done", rcpt="never@rcpt.test")["fate"] == "bounced"
    mx.wait(1)
    deferred = kilat.events("relay.done", id=ident, rcpt="later@rcpt.test", fate="deferred")
    assert len(deferred) == 2 and deferred[0]["code"] in (550, "550")
    assert suppressed(kilat) == {}


def test_rules_reroute(gateways, settings, folder, mx):
    """The fallback is asked at once; without it, what the first said counts."""
    rules = folder / "my.rules"
    rules.write_text('text "not from you" -> blocked reroute\n')
    mx.on("mail", "550 5.7.1 Not from you")
    with Mx(host="127.0.0.2") as other:
        settings["route"]["rcpt.test"]["fallback"] = [f"127.0.0.2:{other.port}"]
        kilat = gateways(relay={"rules": str(rules)}, **settings)
        ident = submit(kilat)
        other.wait(1)
        assert kilat.wait_event("relay.done", id=ident)["fate"] == "delivered"
        assert len(kilat.events("relay.done", id=ident)) == 1
        other.on("rcpt", "550 5.7.1 Not from you either, not from you")
        ident = submit(kilat)
        done = kilat.wait_event("relay.done", id=ident)
        assert (done["fate"], done["category"]) == ("bounced", "blocked")
        assert "either" in done["text"]
        assert other.violations == []


def test_rules_are_read_again(gateways, settings, folder, mx):
    rules = folder / "my.rules"
    rules.write_text("code 450 -> greylisted\n")
    mx.on("rcpt", "450 4.9.9 Hm")
    kilat = gateways(relay={"rules": str(rules)}, **settings)
    assert kilat.wait_event("relay.done", id=submit(kilat))["category"] == "greylisted"
    rules.write_text("code 450 -> nonsense\n")
    kilat.process.send_signal(signal.SIGHUP)
    assert f'{rules}:1: "nonsense": is no category' in kilat.wait_event("rules.bad")["error"]
    assert kilat.wait_event("relay.done", id=submit(kilat))["category"] == "greylisted"
    rules.write_text("# better\ncode 450 -> policy bounce\n")
    kilat.wait_event("rules.reloaded", timeout=10)
    done = kilat.wait_event("relay.done", id=submit(kilat))
    assert (done["category"], done["fate"]) == ("policy", "bounced")


def test_bad_rules_are_refused_at_start(gateways, settings, folder):
    rules = folder / "my.rules"
    rules.write_text("host *.example.net ->\n")
    kilat = gateways(start=False, relay={"rules": str(rules)}, **settings)
    done = kilat.command("check")
    assert done.returncode == 1 and f"{rules}:1: " in done.stderr, done.stderr
