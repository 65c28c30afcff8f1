# SPDX-License-Identifier: Apache-2.0
"""
scripted - hosts that do what no real server can be told to do: the tests' scripted MX, in a
namespace of the lab.
"""
import email

from lab import network
from lab.hosts import hosts_of
from lib.mx import Close, Mx, Reply


class LabMx(Mx):
    def _run(self, ready):
        with network.inside("scripted"):
            super()._run(ready)


def deaf(mx):
    """Greets, and says nothing more."""
    mx.on("ehlo", Close())
    mx.on("helo", Close())


def content_421(mx):
    mx.on("body", "421 4.3.2 Going down", times=1)


def later_421(mx):
    """Takes a recipient, and then wants to be left alone."""
    mx.on("rcpt", Reply("421 4.3.2 Enough for now", close=True), match="two@", times=1)


def drip(mx):
    mx.on("ehlo", Reply([f"250-{mx.name}", "250-PIPELINING", "250 8BITMIME"], drip=0.03))
    mx.on("mail", Reply("250 2.1.0 Ok", drip=0.1))
    mx.on("dot", Reply("250 2.0.0 Ok", drip=0.1))


def drip_without_end(mx):
    mx.on("mail", Reply("250 2.1.0 " + "Ok " * 100, drip=0.2))


def cut(mx):
    """Ends the connection in the middle of the content, once."""
    mx.on("body", Close(after=1000, reset=True), times=1)


DOES = {"deaf": deaf, "421 in the content": content_421, "421 at the second recipient": later_421,
        "drip": drip, "drip without end": drip_without_end, "cut": cut}


class Scripted:
    name = "scripted"

    def __init__(self):
        self.hosts, self.running = hosts_of(self.name), []

    def start(self):
        network.add(self.name, [host.number for host in self.hosts])
        for host in self.hosts:
            mx = LabMx(host=host.addresses[0], port=25, name=host.fqdn)
            DOES[host.does](mx)
            self.running.append(mx.start())

    def messages_for(self, address):
        return [email.message_from_bytes(message.content) for mx in self.running
                for message in mx.messages if address in message.rcpts]

    def stop(self):
        for mx in self.running:
            mx.stop()
