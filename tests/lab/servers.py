# SPDX-License-Identifier: Apache-2.0
"""
servers - Postfix, Exim and OpenSMTPD as mail hosts: each in a Debian and a network namespace of its
own, at port 25 of all its addresses. They keep what they get in maildirs below /srv/mail.
"""
import email
import socket

from lab import network
from lab.hosts import hosts_of
from lab.roots import Root
from lib.net import wait_until

READY_S = 30
CERTIFICATES = "/srv/tls"


class Server:
    """One kind: its packages, configuration and program."""
    name, title, packages = "", "", []

    def __init__(self, folder):
        self.root = Root(folder, self.name, self.packages)
        self.hosts = hosts_of(self.name)

    def prepare(self, certificates, resolver):
        """Files, certificates, configuration; the machine's network is not needed any more."""
        self.root.write("etc/resolv.conf", f"nameserver {resolver}\n")
        for host in self.hosts:
            if host.certificate:
                for path, end in zip(certificates.pairs[host.name], ("pem", "key")):
                    self.root.write(f"{CERTIFICATES[1:]}/{host.number}.{end}", path.read_text(),
                                    mode=self.key_mode)
        self.configure()

    key_mode = 0o600

    def start(self):
        network.add(self.name, [host.number for host in self.hosts])
        with network.inside(self.name):
            self.run()
        for host in self.hosts:
            wait_until(lambda: self._answers(host.address), READY_S,
                       lambda: f"{self.name} at {host.address}\n{self.root.said()}\n{self.log()}")

    def _answers(self, address):
        try:
            with socket.create_connection((address, 25), 5) as sock:
                return sock.recv(3)
        except OSError:
            return False

    def log(self):
        path = self.root.path / self.log_path
        return path.read_text(errors="replace")[-3000:] if path.exists() else ""

    def messages(self):
        """All that is in its mailboxes."""
        return [email.message_from_bytes(path.read_bytes())
                for path in (self.root.path / "srv/mail").glob("**/new/*")]

    def stop(self):
        self.root.stop()


class Postfix(Server):
    name, title, packages = "postfix", "Postfix", ["postfix", "postgrey"]
    log_path = "var/log/mail.log"

    def configure(self):
        self.root.write("etc/postfix/main.cf", POSTFIX_MAIN)
        master = self.root.path / "etc/postfix/master.cf"
        lines = [line for line in master.read_text().split("\n")
                 if not line.startswith("smtp      inet")]
        self.root.write("etc/postfix/master.cf",
                        "\n".join(lines + [self.service(host) for host in self.hosts]) + "\n")
        self.root.write("etc/postfix/busy", "DOMAIN 421 4.3.2 Too busy, closing\n")
        self.root.run("install", "-d", "-o", "nobody", "-g", "nogroup", "/srv/mail")

    def service(self, host):
        lines = [f"{host.address}:25 inet n - n - - smtpd", f"  -o myhostname={host.fqdn}",
                 *(f"  -o {option}" for option in POSTFIX_DOES.get(host.does, []))]
        if host.certificate:
            path = f"{CERTIFICATES}/{host.number}"
            lines += ["  -o smtpd_tls_security_level=may", f"  -o smtpd_tls_cert_file={path}.pem",
                      f"  -o smtpd_tls_key_file={path}.key"]
        return "\n".join(lines)

    def run(self):
        self.root.start("postgrey", "--inet=127.0.0.1:10023", f"--delay={GREY_S}",
                        "--greylist-text=Greylisted, come back later")
        self.root.start("postfix", "start-fg")


GREY_S = 4
POSTFIX_MAIN = f"""
compatibility_level = 3.6
myhostname = postfix.test
mydestination =
inet_interfaces = all
inet_protocols = all
maillog_file = /{Postfix.log_path}
virtual_mailbox_domains = static:all
virtual_mailbox_base = /srv/mail
virtual_mailbox_maps = static:all/
virtual_uid_maps = static:65534
virtual_gid_maps = static:65534
smtpd_tls_received_header = yes
smtpd_recipient_restrictions =
"""
POSTFIX_DOES = {
    "greylist": ["smtpd_recipient_restrictions=check_policy_service,inet:127.0.0.1:10023"],
}
SERVERS = [Postfix]
