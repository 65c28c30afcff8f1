# SPDX-License-Identifier: Apache-2.0
"""Events: what happens to mail is told at least once, can be read again, and harms nothing."""
import json
import threading

from lib import postfix_tools
from lib.kilat import HOLD, message, send, smarthost
from lib.mx import Mx
from lib.net import queue_id, wait_until

ON = {"size_max": "64m"}


def events(kilat, *options):
    done = kilat.command("events", *map(str, options))
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def wait_events(kilat, count, *options):
    """At least so many."""
    wait_until(lambda: len(events(kilat, *options)) >= count, 20, "events")
    return events(kilat, *options)


def test_the_life_of_a_message(gateways, mx):
    """Each recipient's outcome of each attempt, and the bounce; in order, with numbers."""
    mx.on("rcpt", "451 4.2.0 Later", match="later@", times=1)
    mx.on("rcpt", "550 5.1.1 No such user", match="gone@")
    with Mx(name="home.test") as home:
        kilat = gateways(route={"rcpt.test": smarthost(mx.port), "*": smarthost(home.port)},
                         events=ON)
        ident = queue_id(send(kilat.port, message(), "from@sender.test",
                              ["good@rcpt.test", "later@rcpt.test", "gone@rcpt.test"]))
        home.wait(1)
        mx.wait(2)
        kilat.wait_event("relay.done", count=5)
        told = wait_events(kilat, 7)
    own = [e for e in told if e["id"] == ident]
    assert own[0]["event"] == "accepted"
    assert own[0]["to"] == ["good@rcpt.test", "later@rcpt.test", "gone@rcpt.test"]
    assert own[0]["from"] == "from@sender.test" and own[0]["size"] > 1024
    outcomes = {(e["to"], e["event"]): e for e in own[1:]}
    assert set(outcomes) == {("good@rcpt.test", "delivered"), ("later@rcpt.test", "deferred"),
                             ("gone@rcpt.test", "bounced"), ("later@rcpt.test", "delivered")}
    gone = outcomes["gone@rcpt.test", "bounced"]
    assert (gone["code"], gone["enhanced"], gone["text"]) == (550, "5.1.1", "No such user")
    assert gone["category"] == "invalid-mailbox" and gone["stage"] == "rcpt"
    assert outcomes["later@rcpt.test", "delivered"]["attempt"] == 2
    bounce, = (e for e in told if e["event"] == "bounce")
    assert bounce["from"] == "" and bounce["to"] == ["from@sender.test"]
    assert len({e["seq"] for e in told}) == len(told)
    assert kilat.metrics()["events_total"] == len(told)


def test_read_on_and_again(gateways, folder):
    """A cursor goes on where it stopped; without one all is there again."""
    kilat = gateways(route={"*": HOLD}, events=ON)
    cursor = folder / "cursor"
    for number in range(30):
        send(kilat.port, message(subject=str(number)))
    first = events(kilat, "--cursor", cursor, "--count", 10)
    assert len(first) == 10
    rest = events(kilat, "--cursor", cursor)
    assert len({e["id"] for e in first + rest}) == 30 == len(first + rest)
    assert events(kilat, "--cursor", cursor) == []
    assert len(events(kilat)) == 30
    assert events(kilat, "--from", "end") == []
    assert len(events(kilat, "--from", min(e["time_ms"] for e in first + rest) - 5000)) == 30
    ident = queue_id(send(kilat.port, message()))
    assert [e["id"] for e in events(kilat, "--cursor", cursor)] == [ident]
    kilat.queue("delete", ident)
    ended, = events(kilat, "--cursor", cursor)
    assert ended["event"] == "deleted" and ended["id"] == ident
    cursor.write_text("77 x-y\n")
    bad = kilat.command("events", "--cursor", str(cursor))
    assert bad.returncode == 1 and "is no cursor" in bad.stderr


def test_without_events(gateways):
    kilat = gateways(route={"*": HOLD})
    send(kilat.port, message())
    done = kilat.command("events")
    assert done.stdout == "" and "has no events" in done.stderr
    assert kilat.redis("EXISTS", *(f"{{q{i}}}e" for i in range(16))) == ["0"]


def test_the_budget_is_kept(gateways):
    """Nobody reads: the oldest go, mail does not notice."""
    budget = 200_000    # octets
    with Mx(keep_content=False) as mx:
        kilat = gateways(route={"*": smarthost(mx.port)}, queue={"shards": 2},
                         events={"size_max": budget})
        postfix_tools.smtp_source(kilat.port, "-s", 10, "-m", 3000, "-l", 500, "-d", "-t",
                                  "to@rcpt.test", "-f", "a@sender.test")
        mx.wait(3000, 60)
        wait_until(lambda: kilat.metrics()["recipients_delivered_total"] == 3000, 20, "the end")
        left = events(kilat)
        size = sum(len(json.dumps(e)) for e in left)
        assert 0.5 * budget < size < 1.2 * budget
        assert left[-1]["event"] == "delivered"
        used = sum(int(kilat.redis("MEMORY", "USAGE", f"{{q{i}}}e")[0]) for i in range(2))
        assert used < 2 * budget
        stats = dict(line.split() for line in kilat.queue("stats").splitlines())
        assert int(stats["total_events"]) == 6000
        assert int(stats["total_events_trimmed"]) == 6000 - len(left)
        assert kilat.queue("fsck").endswith(" 0 findings\n")


def test_nothing_is_forgotten_by_a_kill(gateways):
    """SIGKILL under load: what was answered 250 was told, and what was delivered and ended too."""
    with Mx(keep_content=False) as mx:
        kilat = gateways(route={"*": smarthost(mx.port)}, events=ON, queue={"lease": "2s"})
        accepted, stop = [], threading.Event()

        def client():
            while not stop.is_set():
                try:
                    accepted.append(queue_id(send(kilat.port, message(600))))
                except (OSError, AssertionError, ConnectionError):
                    if stop.wait(0.05):
                        return
                except Exception:       # smtplib's own kinds
                    if stop.wait(0.05):
                        return
        clients = [threading.Thread(target=client) for _ in range(4)]
        for thread in clients:
            thread.start()
        wait_until(lambda: len(accepted) > 200, 30, "mail")
        kilat.kill()
        kilat.start()
        before = len(accepted)
        wait_until(lambda: len(accepted) > before + 100, 30, "mail again")
        stop.set()
        for thread in clients:
            thread.join(20)
        idents = set(accepted)

        def ended():
            return {e["id"] for e in events(kilat) if e["event"] == "delivered"}
        wait_until(lambda: idents <= ended(), 30, "every outcome to be told")
        assert idents <= {e["id"] for e in events(kilat) if e["event"] == "accepted"}
