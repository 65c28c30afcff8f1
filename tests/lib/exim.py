# SPDX-License-Identifier: Apache-2.0
"""
exim - a real mail server: Exim on 127.0.0.1 with TLS and logins, as a cPanel machine runs it.

    with Exim(folder, tls=ca.issue("localhost"), users={"web@site.test": "secret"}) as exim:
        ... exim.submission, exim.submissions (ports) ...
        exim.wait(1)[0]             # octets of the messages it has kept

Who has not logged in may send to the domain "local.test" only, at exim.port.
"""
import os
import pathlib
import shutil
import subprocess
import time

from lib.net import end_with_us, free_port

CONFIG = """
primary_hostname = cpanel.test
exim_path = {exim}
spool_directory = {folder}/spool
log_file_path = {folder}/%slog
pid_file_path = {folder}/pid
exim_user = {uid}
exim_group = {gid}
never_users =
keep_environment = *
daemon_smtp_ports = {port} : {submissions}
local_interfaces = 127.0.0.1
tls_on_connect_ports = {submissions}
tls_advertise_hosts = *
tls_certificate = {certificate}
tls_privatekey = {key}
auth_advertise_hosts = ${{if eq{{$tls_in_cipher}}{{}}{{}}{{*}}}}
chunking_advertise_hosts = *
dsn_advertise_hosts = *
domainlist local = local.test
acl_smtp_rcpt = rcpt
acl_smtp_data = accept_all
begin acl
rcpt:
  accept domains = +local
  accept authenticated = *
  deny message = 550 relay not permitted
accept_all:
  accept
begin routers
{bouncing}
keep:
  driver = accept
  transport = keep
begin transports
keep:
  driver = appendfile
  directory = {folder}/mail
  create_directory
  maildir_format
  user = {uid}
  group = {gid}
  delivery_date_add = false
  envelope_to_add
  return_path_add
back:
  driver = smtp
  port = {returns}
  allow_localhost
begin retry
* * F,1m,1m
begin authenticators
plain:
  driver = plaintext
  public_name = PLAIN
  server_prompts = :
  server_condition = ${{if and {{{{eq{{$auth2}}{{{user}}}}}{{eq{{$auth3}}{{{password}}}}}}}}}
  server_set_id = $auth2
login:
  driver = plaintext
  public_name = LOGIN
  server_prompts = <| Username: | Password:
  server_condition = ${{if and {{{{eq{{$auth1}}{{{user}}}}}{{eq{{$auth2}}{{{password}}}}}}}}}
  server_set_id = $auth1
"""
# Nobody is called "gone", which is found out after the message was taken; bounces go to `returns`.
BOUNCING = """
gone:
  driver = redirect
  local_parts = gone
  allow_fail
  data = :fail: No such person at this address
back:
  driver = manualroute
  domains = bounces.test
  route_list = * 127.0.0.1
  self = send
  transport = back
"""
# Exim insists on the user that its package makes, and its program is unpacked only: in a mount
# namespace of our own there is one.
START = """mount --bind "$FOLDER/passwd" /etc/passwd
mount --bind "$FOLDER/group" /etc/group
exec "$EXIM" -C "$FOLDER/exim.conf" -bdf"""


class Exim:
    def __init__(self, folder, tls, users, returns=None):
        """returns: the port that bounces for bounces.test are sent to."""
        self.folder, self.tls, self.returns = pathlib.Path(folder), tls, returns
        (self.user, self.password), = users.items()
        self.port, self.submissions = free_port(), free_port()
        self.process = None

    def __enter__(self):
        uid, gid = (65534, 65534) if os.getuid() == 0 else (os.getuid(), os.getgid())
        self.folder.mkdir(parents=True)
        # A copy: Exim starts itself anew as that user, who may not look into the checkout.
        program = pathlib.Path(shutil.copy(shutil.which("exim4"), self.folder))
        for path in [self.folder, *self.folder.parents]:
            if str(path).startswith("/tmp/"):
                path.chmod(0o755)
        certificate, key = (shutil.copy(path, self.folder) for path in self.tls)
        for path in (self.folder, certificate, key):
            os.chown(path, uid, gid)
        accounts = pathlib.Path("/etc/passwd").read_text(), pathlib.Path("/etc/group").read_text()
        (self.folder / "passwd").write_text(
            accounts[0] + f"Debian-exim:x:{uid}:{gid}::/:/bin/false\n")
        (self.folder / "group").write_text(accounts[1] + f"Debian-exim:x:{gid}:\n")
        (self.folder / "exim.conf").write_text(CONFIG.format(
            exim=program, folder=self.folder, uid=uid, gid=gid, port=self.port, key=key,
            submissions=self.submissions, certificate=certificate, user=self.user,
            password=self.password, bouncing=BOUNCING if self.returns else "",
            returns=self.returns or 25))
        new_space = ["unshare", "-m"] if os.getuid() == 0 else ["unshare", "-rm"]
        self.process = subprocess.Popen(
            [*new_space, "sh", "-e", "-c", START], preexec_fn=end_with_us,
            env={**os.environ, "FOLDER": str(self.folder), "EXIM": str(program)},
            stdout=open(self.folder / "out", "wb"), stderr=subprocess.STDOUT)
        end = time.monotonic() + 20
        while "listening for SMTP" not in self.log():
            assert self.process.poll() is None and time.monotonic() < end, \
                self.log() + (self.folder / "out").read_text()
            time.sleep(0.05)
        return self

    def log(self):
        path = self.folder / "mainlog"
        return path.read_text() if path.exists() else ""

    def messages(self):
        folder = self.folder / "mail/new"
        return [path.read_bytes() for path in sorted(folder.iterdir())] if folder.exists() else []

    def wait(self, count, timeout=30):
        end = time.monotonic() + timeout
        while len(self.messages()) < count:
            assert time.monotonic() < end, self.log()
            time.sleep(0.05)
        return self.messages()

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(10)
