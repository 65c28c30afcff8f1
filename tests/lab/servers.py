# SPDX-License-Identifier: Apache-2.0
"""
servers - Postfix, Exim and OpenSMTPD as mail hosts: each in a Debian and a network namespace of its
own, at port 25 of all its addresses. They keep what they get in maildirs below /srv/mail.
"""
import email
import socket

from lab import network
from lab.hosts import hosts_of
from lab.mail import is_for
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
        for address in [address for host in self.hosts for address in host.addresses]:
            wait_until(lambda: self._answers(address), READY_S,
                       lambda: f"{self.name} at {address}\n{self.root.said()}\n{self.log()}")

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

    def messages_for(self, address):
        return [mail for mail in self.messages() if is_for(mail, address)]

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
        self.root.write("etc/postfix/busy", "two@busy.test 421 4.3.2 Too busy, closing\n")
        self.root.run("install", "-d", "-o", "nobody", "-g", "nogroup", "/srv/mail")

    def service(self, host):
        """Lines of master.cf: a smtpd for each address."""
        lines = [line for address in host.addresses for line in
                 [f"{literal(address)}:25 inet n - n - - smtpd", *self.options(host)]]
        return "\n".join(lines)

    def options(self, host):
        lines = [f"  -o myhostname={host.fqdn}",
                 *(f"  -o {option}" for option in POSTFIX_DOES.get(host.does, []))]
        if host.certificate:
            path = f"{CERTIFICATES}/{host.number}"
            lines += ["  -o smtpd_tls_security_level=may", f"  -o smtpd_tls_cert_file={path}.pem",
                      f"  -o smtpd_tls_key_file={path}.key"]
        return lines

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
    "old": ["smtpd_discard_ehlo_keywords=pipelining,8bitmime,chunking,size,dsn"],
    "small": ["message_size_limit=20000"],
    "busy": ["smtpd_recipient_restrictions=check_recipient_access,texthash:/etc/postfix/busy"],
}


class Exim(Server):
    name, title, packages = "exim", "Exim", ["exim4-daemon-light"]
    log_path = "var/log/exim4/mainlog"
    key_mode = 0o644            # Exim reads them as the user that it becomes

    def configure(self):
        self.root.write("etc/exim4/exim4.conf", EXIM.format(
            certificate=self.by_address("pem"), key=self.by_address("key"),
            crowded=self.addresses_that("552"), closed=self.addresses_that("554")))
        self.root.run("install", "-d", "-o", "Debian-exim", "-g", "Debian-exim", "/srv/mail")

    def by_address(self, end):
        """The file of the host that was connected to."""
        text = ""
        for host in self.hosts:
            for address in host.addresses:
                text = (f"${{if eq{{$received_ip_address}}{{{address}}}"
                        f"{{{CERTIFICATES}/{host.number}.{end}}}{{{text}}}}}")
        return text

    def addresses_that(self, does):
        return " : ".join(a for host in self.hosts if host.does == does for a in host.addresses)

    def run(self):
        self.root.start("exim4", "-bdf", "-oX", "25", "-q1m")


EXIM = """
primary_hostname = exim.test
log_file_path = /var/log/exim4/%slog
exim_user = Debian-exim
never_users =
keep_environment =
local_interfaces = <; 0.0.0.0 ; ::0
tls_advertise_hosts = *
tls_certificate = {certificate}
tls_privatekey = {key}
chunking_advertise_hosts = *
dsn_advertise_hosts = *
recipients_max = 3
smtp_accept_max = 100
queue_only = false
acl_smtp_connect = connect
acl_smtp_rcpt = rcpt
acl_smtp_data = accept_all
begin acl
connect:
  drop condition = ${{if inlist{{$received_ip_address}}{{{closed}}}}}
       message = 554 No service here
  accept
rcpt:
  deny condition = ${{if inlist{{$received_ip_address}}{{{crowded}}}}}
       condition = ${{if >{{$rcpt_count}}{{2}}}}
       message = 552 5.5.3 Too many recipients
  accept
accept_all:
  accept
begin routers
keep:
  driver = accept
  transport = keep
begin transports
keep:
  driver = appendfile
  directory = /srv/mail
  create_directory
  maildir_format
  user = Debian-exim
  group = Debian-exim
  delivery_date_add = false
  envelope_to_add
"""


class OpenSmtpd(Server):
    name, title, packages = "opensmtpd", "OpenSMTPD", ["opensmtpd"]
    log_path = "srv/log"

    def configure(self):
        lines = [OPENSMTPD_HEAD]
        for host in self.hosts:
            path = f"{CERTIFICATES}/{host.number}"
            lines += [f'pki h{host.number} cert "{path}.pem"',
                      f'pki h{host.number} key "{path}.key"']
            lines += [f"listen on {address} port 25 tls pki h{host.number} hostname {host.fqdn} "
                      "filter full" for address in host.addresses]
        self.root.write("etc/smtpd.conf", "\n".join(lines + [OPENSMTPD_TAIL]))
        self.root.run("useradd", "-m", "-d", "/srv/mail", "keeper")

    def run(self):
        self.root.start("smtpd", "-d")

    def log(self):
        return self.root.said()[-3000:]


OPENSMTPD_HEAD = """
table everybody { "@" = "keeper" }
filter gone phase rcpt-to match rcpt-to { "gone@full.test" } reject "550 5.1.1 Nobody of that name"
filter over phase rcpt-to match rcpt-to { "over@full.test" } reject "552 5.2.2 Mailbox full"
filter busy phase rcpt-to match rcpt-to { "busy@full.test" } reject "452 4.2.2 Mailbox full for now"
filter full chain { gone, over, busy }
"""
OPENSMTPD_TAIL = """
action keep maildir "/srv/mail" virtual <everybody>
match from any for any action keep
"""
SERVERS = [Postfix, Exim, OpenSmtpd]


def literal(address):
    return f"[{address}]" if ":" in address else address
