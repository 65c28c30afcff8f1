# SPDX-License-Identifier: Apache-2.0
"""Webhooks: events are posted, signed, at least once, and mail waits for none of it."""
import hashlib
import hmac
import json
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from lib.certs import Authority
from lib.kilat import HOLD, message, send, smarthost
from lib.mx import Mx
from lib.net import free_port, queue_id, wait_until
from lib.redis_server import Redis

SECRET = "a secret of the application"


class App:
    """An application that takes posts: HTTPS on 127.0.0.1, in a thread."""

    def __init__(self, certificate, port=0):
        self.posts, self.statuses = [], []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status = outer.statuses.pop(0) if outer.statuses else 204
                outer.posts.append((self.path, dict(self.headers), body, status))
                self.send_response(status)
                self.end_headers()

            def log_message(self, *_):
                pass
        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True,
                                                 do_handshake_on_connect=False)
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(5)

    def events(self):
        """Of the posts that were taken."""
        return [e for _, _, body, status in self.posts if status // 100 == 2
                for e in json.loads(body)["events"]]

    def wait(self, count, timeout=30):
        wait_until(lambda: len(self.events()) >= count, timeout, "events at the webhook")
        return self.events()


@pytest.fixture(scope="module")
def ca(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def app(ca):
    with App(ca.issue("127.0.0.1")) as found:
        yield found


def hooked(port, ca, folder, **changes):
    (folder / "secret").write_text(SECRET + "\n")
    return {"events": {"size_max": "16m", "webhook": f"https://127.0.0.1:{port}/kilat?x=1",
                       "webhook_secret": str(folder / "secret"), "webhook_ca": str(ca.cert),
                       **changes}}


def test_signed_batches(gateways, mx, app, ca, folder):
    kilat = gateways(route={"*": smarthost(mx.port)}, **hooked(app.port, ca, folder))
    idents = [queue_id(send(kilat.port, message())) for _ in range(20)]
    mx.wait(20)
    told = app.wait(40)
    assert len({e["seq"] for e in told}) == 40 == len(told)
    for kind in ("accepted", "delivered"):
        assert {e["id"] for e in told if e["event"] == kind} == set(idents)
    for path, headers, body, _ in app.posts:
        assert path == "/kilat?x=1" and headers["Content-Type"] == "application/json"
        stamp, mac = (part.split("=", 1)[1] for part in headers["Kilat-Signature"].split(","))
        good = hmac.new(SECRET.encode(), f"{stamp}.".encode() + body, hashlib.sha256).hexdigest()
        assert hmac.compare_digest(mac, good) and abs(time.time() - int(stamp)) < 60
    wait_until(lambda: kilat.metrics()["webhook_events_total"] == 40, 5, "the counter")


def test_what_is_refused_comes_again(gateways, app, ca, folder):
    """The same batch, after a pause; then the rest."""
    app.statuses = [500, 302]
    kilat = gateways(route={"*": HOLD}, queue={"shards": 1}, **hooked(app.port, ca, folder))
    ident = queue_id(send(kilat.port, message()))
    told = app.wait(1)
    assert [e["id"] for e in told] == [ident]
    assert [status for *_, status in app.posts] == [500, 302, 204]
    assert len({body for _, _, body, _ in app.posts}) == 1
    failures = kilat.events("webhook.failed")
    assert ["500" in failures[0]["error"], "302" in failures[1]["error"]] == [True, True]
    assert failures[1]["again_ms"] == 2 * failures[0]["again_ms"]
    assert kilat.metrics()["webhook_failures_total"] == 2


def test_nobody_there_harms_no_mail(gateways, ca, folder):
    """Mail goes; what was told meanwhile is posted when the application is back, also after a
    restart of the gateway."""
    port = free_port()
    with Mx() as mx:
        kilat = gateways(route={"*": smarthost(mx.port)}, **hooked(port, ca, folder))
        idents = {queue_id(send(kilat.port, message())) for _ in range(10)}
        mx.wait(10)
        kilat.wait_event("webhook.failed")
        wait_until(lambda: kilat.metrics()["webhook_behind_milliseconds"] > 0, 20, "the gauge")
        assert kilat.stop() == 0
        with App(ca.issue("127.0.0.1"), port) as app:
            kilat.start()
            told = app.wait(20, 90)
            assert {e["id"] for e in told} == idents
            more = queue_id(send(kilat.port, message()))
            wait_until(lambda: more in {e["id"] for e in app.events()}, 30, "the next event")
            wait_until(lambda: kilat.metrics()["webhook_behind_milliseconds"] == 0, 20,
                       "none waits")


def test_two_nodes_post_once(gateways, app, ca, folder):
    with Redis(folder / "redis") as server, Mx() as mx:
        redis = {"mode": "external", "url": server.url}
        nodes = [gateways(name, route={"*": smarthost(mx.port)}, redis=redis,
                          **hooked(app.port, ca, folder)) for name in ("one", "two")]
        idents = {queue_id(send(nodes[i % 2].port, message())) for i in range(20)}
        told = app.wait(40)
        time.sleep(1)
        assert len(app.events()) == 40 and {e["id"] for e in told} == idents


@pytest.mark.parametrize("url, words", [("http://a.test/", "is no address"), ("x", "is no address"),
                                        ("https://a.test/ b", "is no address"),
                                        ("https://a.test/", "needs webhook_secret")])
def test_bad_settings(gateways, url, words):
    kilat = gateways(start=False, events={"size_max": "1m", "webhook": url})
    check = kilat.command("check")
    assert check.returncode != 0 and words in check.stderr, check.stderr
