# SPDX-License-Identifier: Apache-2.0
"""
policies - the web host that MTA-STS policies are fetched from: HTTPS at port 443 of the lab's, for
all domains that have one. A policy that is `fleeting` is there for the first who asks, and then it
is not.
"""
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from lab import network

NUMBER = 80
ADDRESS = network.ipv4(NUMBER)


class Policies:
    def __init__(self, authority, cases):
        self.cases = {f"mta-sts.{case.domain}": case for case in cases if case.policy}
        self.asked = []
        self.certificate = authority.issue("policies.test", *self.cases, file="policies")
        self.server = None

    def file(self, host):
        """The text for this host; none when there is none any more."""
        case, before = self.cases.get(host), self.asked.count(host)
        self.asked.append(host)
        return None if not case or case.fleeting and before else case.policy

    def start(self):
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                text = outer.file(self.headers["Host"])
                self.send_response(404 if text is None else 200)
                self.send_header("Content-Type", "text/plain")
                self.send_header("Content-Length", len(text or ""))
                self.end_headers()
                self.wfile.write((text or "").encode())
                self.close_connection = True

            def log_message(self, *_):
                pass

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*map(str, self.certificate))
        network.add("policies", [NUMBER])
        with network.inside("policies"):
            self.server = ThreadingHTTPServer((ADDRESS, 443), Handler)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True,
                                                 do_handshake_on_connect=False)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self):
        if self.server:
            self.server.shutdown()
            self.server.server_close()
