# SPDX-License-Identifier: Apache-2.0
"""
policy_host - where MTA-STS policies are fetched from: HTTPS on 127.0.0.1, in a thread.

    with PolicyHost(ca.issue("mta-sts.rcpt.test")) as host:
        host.text = policy("enforce", "*.rcpt.test")
        host.status, host.type, host.chunked = 200, "text/plain", False
        ... host.port, host.requests ...
"""
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def policy(mode, *mx, max_age=86400):
    lines = ["version: STSv1", f"mode: {mode}", f"max_age: {max_age}", *(f"mx: {m}" for m in mx)]
    return "\r\n".join(lines) + "\r\n"


class PolicyHost:
    def __init__(self, certificate):
        self.text, self.status, self.type, self.chunked = "", 200, "text/plain", False
        self.delay, self.cut, self.requests = 0, False, []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                outer.requests.append((self.headers["Host"], self.path))
                time.sleep(outer.delay)
                body = outer.text.encode()
                self.send_response(outer.status)
                self.send_header("Content-Type", outer.type)
                if outer.status in (301, 302):
                    self.send_header("Location", f"https://elsewhere.test{self.path}")
                if outer.chunked:
                    self.send_header("Transfer-Encoding", "chunked")
                    body = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in
                                    (body[:7], body[7:]) if part) + b"0\r\n\r\n"
                else:
                    self.send_header("Content-Length", len(body))
                self.end_headers()
                self.wfile.write(body[:len(body) // 2] if outer.cut else body)
                self.close_connection = True

            def log_message(self, *_):
                pass

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*map(str, certificate))
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.handle_error = lambda *_: None
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True,
                                                 do_handshake_on_connect=False)
        self.port = self.server.server_address[1]

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()
