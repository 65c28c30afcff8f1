# SPDX-License-Identifier: Apache-2.0
"""
peers - the systems under test, each a durable relay to one sink, as its own documentation says.

A system has a name, what its 250 promises, start() on the server's core, port, and stop(). "accept"
keeps mail in the queue and delivers nothing; "relay" delivers it to the sink's port.

Packages of mail servers exclude each other, so that Exim and OpenSMTPD are installed in overlays
(tests/lab/roots.py); their spools are folders of the real disk. Haraka comes by npm.

To add one: a class here, and its place in PEERS.
"""
import grp
import os
import pathlib
import pwd
import shutil
import subprocess
import sys

from lab.roots import Root
from lib.kilat import HOLD, Kilat, smarthost
from lib.net import RawSmtp, free_port, wait_until

from . import machine

ROOT = pathlib.Path(__file__).resolve().parents[2]
POSTFIX = ROOT / "build/tools/postfix/usr"
HARAKA = ROOT / "build/bench-peers/haraka"


def answers(port, process=None, log=lambda: ""):
    assert process is None or process.poll() is None, log()
    try:
        with RawSmtp(port) as raw:
            return raw.reply().code == 220
    except (OSError, AssertionError):
        return False


class KilatPeer:
    name, durability = "Kilat", "fsync before 250 (Redis AOF, group commit)"

    def __init__(self, folder, kind, sink_port, build):
        route = HOLD if kind == "accept" else smarthost(sink_port)
        self.kilat = Kilat(folder, build=build, workers=1, route={"*": route},
                           wrap=machine.on_core(machine.SERVER_CORE), queue={"lease": "5s"},
                           limits={"content_memory_max": "256m", "sessions_max": 18000},
                           relay={"per_destination_max": 50, "connections_max": 200},
                           log={"format": "plain"})

    @staticmethod
    def prepare():
        return "this checkout"

    def start(self):
        self.kilat.start()
        self.port = self.kilat.port

    def stop(self):
        self.kilat.stop()


# -- Postfix -----------------------------------------------------------------------------------

MAIN_CF = """
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
command_directory = {usr}/sbin
daemon_directory = {usr}/lib/postfix/sbin
meta_directory = {folder}
shlib_directory = {usr}/lib/postfix
import_environment = MAIL_CONFIG TZ LANG=C LD_LIBRARY_PATH={usr}/lib/postfix
mail_owner = postfix
setgid_group = postdrop
myhostname = postfix.test
mydestination =
alias_maps =
local_recipient_maps =
local_transport = error:none
inet_interfaces = loopback-only
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
relayhost = [127.0.0.1]:{sink}
smtp_dns_support_level = disabled
smtp_host_lookup = native
smtpd_peername_lookup = no
smtputf8_enable = no
default_process_limit = 400
smtpd_client_connection_count_limit = 0
smtpd_client_connection_rate_limit = 0
smtpd_client_message_rate_limit = 0
smtpd_client_recipient_rate_limit = 0
in_flow_delay = 0
default_destination_concurrency_limit = 50
initial_destination_concurrency = 50
qmgr_message_active_limit = 40000
max_use = 10000
max_idle = 600s
message_size_limit = 0
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_recipient_restrictions = {hold}permit_mynetworks, reject
"""

MASTER_CF = """
127.0.0.1:{port} inet n - n - 400 smtpd
cleanup   unix n - n - 0   cleanup
qmgr      unix n - n 300 1 qmgr
rewrite   unix - - n - -   trivial-rewrite
bounce    unix - - n - 0   bounce
defer     unix - - n - 0   bounce
trace     unix - - n - 0   bounce
verify    unix - - n - 1   verify
flush     unix n - n 1000? 0 flush
proxymap  unix - - n - -   proxymap
smtp      unix - - n - 120 smtp
relay     unix - - n - 120 smtp
error     unix - - n - -   error
retry     unix - - n - -   error
discard   unix - - n - -   discard
anvil     unix - - n - 1   anvil
scache    unix - - n - 1   scache
"""


class Postfix:
    name, durability = "Postfix", "fsync before 250"

    def __init__(self, folder, kind, sink_port, build):
        self.folder, self.port = folder, free_port()
        owner, drop = pwd.getpwnam("postfix").pw_uid, grp.getgrnam("postdrop").gr_gid
        hold = "check_client_access static:HOLD, " if kind == "accept" else ""
        for name in ("data", "queue"):
            (folder / name).mkdir(parents=True)
        os.chown(folder / "data", owner, -1)
        for name in ("active bounce corrupt defer deferred flush hold incoming private saved "
                     "trace maildrop public pid").split():
            (folder / "queue" / name).mkdir(mode=0o700)
            os.chown(folder / "queue" / name, 0 if name == "pid" else owner, -1)
        for name, mode in (("maildrop", 0o730), ("public", 0o710), ("pid", 0o755)):
            os.chown(folder / "queue" / name, -1, 0 if name == "pid" else drop)
            (folder / "queue" / name).chmod(mode)
        (folder / "main.cf").write_text(MAIN_CF.format(folder=folder, usr=POSTFIX, sink=sink_port,
                                                       hold=hold))
        (folder / "master.cf").write_text(MASTER_CF.format(port=self.port))

    @staticmethod
    def prepare():
        """The accounts that its package makes."""
        for kind, name, look, command in (
                ("group", "postdrop", grp.getgrnam, ["groupadd", "--system", "postdrop"]),
                ("user", "postfix", pwd.getpwnam,
                 ["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin",
                  "--user-group", "postfix"])):
            try:
                look(name)
            except KeyError:
                print(f"making the system {kind} {name}", file=sys.stderr)
                subprocess.run(command, check=True)
        done = subprocess.run([POSTFIX / "sbin/postconf", "-dh", "mail_version"], text=True,
                              env={"LD_LIBRARY_PATH": f"{POSTFIX}/lib/postfix"},
                              capture_output=True, check=False)
        return done.stdout.strip() or "3.7"

    def start(self):
        env = dict(os.environ, LD_LIBRARY_PATH=f"{POSTFIX}/lib/postfix", MAIL_CONFIG=self.folder)
        with open(self.folder / "master.log", "w", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                machine.on_core(machine.SERVER_CORE, f"{POSTFIX}/lib/postfix/sbin/master", "-c",
                                self.folder, "-d"),
                env=env, stdout=log, stderr=log, start_new_session=True)
        wait_until(lambda: answers(self.port, self.process,
                                   (self.folder / "master.log").read_text), 30, "Postfix")

    def stop(self):
        self.process.terminate()
        self.process.wait(30)


# -- in overlays -------------------------------------------------------------------------------

class Server:
    """A peer that stays in the foreground and answers at self.port."""

    def launch(self, *command):
        with open(self.folder / "out", "wb") as out:
            self.process = subprocess.Popen(
                machine.on_core(machine.SERVER_CORE, *command), stdin=subprocess.DEVNULL,
                stdout=out, stderr=out, start_new_session=True)
        wait_until(lambda: answers(self.port, self.process, self.said), 30, self.said)

    def said(self):
        return (self.folder / "out").read_text(errors="replace")[-3000:]

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Packaged(Server):
    """One that is installed as a package, in an overlay; its spool is bound into it."""
    packages, spool = (), ""
    root = None

    def __init__(self, folder, kind, sink_port, build):
        self.folder, self.kind, self.sink_port = folder, kind, sink_port
        self.port = free_port()
        folder.mkdir(parents=True, exist_ok=True)
        where = self.root.path / self.spool
        where.mkdir(mode=0o711, exist_ok=True)
        self.made = self.folder / "spool"
        subprocess.run(["cp", "-a", where, self.made], check=True)
        subprocess.run(["mount", "--bind", self.made, where], check=True)
        self.configure()

    @classmethod
    def prepare(cls):
        cls.root = Root(OVERLAYS, cls.name.lower(), list(cls.packages))
        cls.root.mount()
        cls.root.install()
        cls.root.write("etc/resolv.conf", f"nameserver {RESOLVER}\n")
        return cls.root.version()

    def stop(self):
        super().stop()
        subprocess.run(["umount", "-l", self.root.path / self.spool], check=True)


OVERLAYS = pathlib.Path("/nowhere")     # set before prepare()
RESOLVER = "127.0.53.9"     # answers at once that there is no such name: peers look up clients

EXIM = """
primary_hostname = exim.test
exim_user = Debian-exim
exim_group = Debian-exim
never_users =
keep_environment =
log_selector = -all
daemon_smtp_ports = {port}
local_interfaces = 127.0.0.1
host_lookup =
rfc1413_hosts =
rfc1413_query_timeout = 0s
smtp_accept_max = 0
smtp_accept_queue_per_connection = 0
smtp_accept_max_per_connection = 0
smtp_accept_reserve = 0
smtp_enforce_sync = true
queue_run_max = 0
remote_max_parallel = 10
message_size_limit = 0
split_spool_directory = true
smtp_receive_timeout = 5m
{queue_only}
acl_smtp_rcpt = accept_all
acl_smtp_data = accept_all
begin acl
accept_all:
  accept
begin routers
sink:
  driver = manualroute
  domains = *
  route_list = * 127.0.0.1
  self = send
  transport = sink
begin transports
sink:
  driver = smtp
  port = {sink}
  allow_localhost
  hosts_try_prdr =
  connection_max_messages = 500
begin retry
* * F,1h,1m
"""


class Exim(Packaged):
    name, durability = "Exim", "fsync before 250"
    relay_most = 500
    packages, spool = ["exim4-daemon-light"], "var/spool/exim4"

    def configure(self):
        self.root.write("etc/exim4/bench.conf", EXIM.format(
            port=self.port, sink=self.sink_port,
            queue_only="queue_only = true" if self.kind == "accept" else ""))

    def start(self):
        self.launch(*self.root.command("exim4", "-C", "/etc/exim4/bench.conf", "-bdf",
                                       "-oP", "/tmp/exim.pid"))


# The delays that it keeps between connections are for strangers' hosts.
OPENSMTPD = """
mta limit conn-delay-host 0
mta limit conn-delay-route 0
mta limit conn-delay-source 0
mta limit conn-delay-connector 0
mta limit conn-delay-relay 0
mta limit conn-delay-domain 0
mta limit reconn-delay-route 0
mta limit session-transaction-delay 0
mta limit max-conn-per-host 50
mta limit max-conn-per-route 50
mta limit max-conn-per-source 100
mta limit max-conn-per-connector 50
mta limit max-conn-per-relay 100
mta limit max-conn-per-domain 100
smtp limit max-mails 100000
smtp max-message-size 200M
listen on 127.0.0.1 port {port} hostname smtpd.test
action "sink" relay host smtp://127.0.0.1:{sink}
match from any for any action "sink"
"""


class OpenSmtpd(Packaged):
    name, durability = "OpenSMTPD", "none: the queue is not synced"
    relay_warm_up = False       # it rests for seconds after the last message of a burst
    packages, spool = ["opensmtpd"], "var/spool/smtpd"

    def configure(self):
        self.root.write("etc/bench-smtpd.conf",
                        OPENSMTPD.format(port=self.port, sink=self.sink_port))

    def start(self):
        pause = ["-P", "mta"] if self.kind == "accept" else []
        self.launch(*self.root.command("smtpd", "-F", *pause, "-f", "/etc/bench-smtpd.conf"))


# -- Haraka ------------------------------------------------------------------------------------

HARAKA_PLUGIN = """
'use strict'
exports.hook_rcpt = function (next, connection) { connection.relaying = true; next(OK) }
exports.hook_get_mx = function (next) {
  next(OK, { priority: 0, exchange: '127.0.0.1', port: SINK })
}
"""


class Haraka(Server):
    name, durability = "Haraka", "fsync before 250"

    def __init__(self, folder, kind, sink_port, build):
        self.folder, self.port = folder, free_port()
        for name in ("config", "plugins", "queue"):
            (folder / name).mkdir(parents=True)
        files = {
            "smtp.ini": f"listen=127.0.0.1:{self.port}\nnodes=0\n[headers]\n",
            "plugins": "bench\n",
            "me": "haraka.test",
            "log.ini": "[main]\nlevel=ERROR\nformat=DEFAULT\n",
            "outbound.ini": f"disabled={'true' if kind == 'accept' else 'false'}\n"
                            "concurrency_max=100\nenable_tls=false\nlocal_mx_ok=true\n"
                            "received_header=haraka.test\n",
        }
        for name, text in files.items():
            (folder / "config" / name).write_text(text)
        shutil.copy(HARAKA / "node_modules/Haraka/config/connection.ini", folder / "config")
        (folder / "plugins/bench.js").write_text(HARAKA_PLUGIN.replace("SINK", str(sink_port)))

    @staticmethod
    def prepare():
        if not (HARAKA / "node_modules/Haraka").exists():
            subprocess.run(["npm", "install", "--prefix", HARAKA, "Haraka@3", "--no-audit",
                            "--no-fund", "--omit=dev", "--loglevel", "error"], check=True,
                           stdout=subprocess.DEVNULL)
        text = (HARAKA / "node_modules/Haraka/package.json").read_text()
        return text.split('"version": "', 1)[1].split('"', 1)[0]

    def start(self):
        self.launch("node", HARAKA / "node_modules/Haraka/bin/haraka", "-c", self.folder)


PEERS = {peer.name.lower(): peer for peer in (KilatPeer, Postfix, Exim, OpenSmtpd, Haraka)}
