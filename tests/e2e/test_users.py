# SPDX-License-Identifier: Apache-2.0
"""`kilat user` as an operator meets it: pipes, terminals, a running gateway. AUTH: test_auth."""
import json
import os
import pty
import select
import signal
import subprocess
import time

import pytest

from lib.kilat import Kilat

PASSWORD = "correct horse battery"


@pytest.fixture
def kilat(folder):
    """A configuration with a users file; no gateway runs."""
    users = folder / "users"
    return Kilat(folder / "k", tenant={"acme": {"senders": ["@sender.test"]}},
                 auth={"users_file": str(users), "failure_delay": "10ms"})


def listed(kilat):
    done = kilat.command("user", "list", "--json")
    assert done.returncode == 0, done.stderr
    return {user["name"]: user for user in json.loads(done.stdout)}


def test_users_in_a_file(kilat, folder):
    kilat.add_user("alice@sender.test", PASSWORD, "--tenant", "acme", "--sender", "@sender.test",
                   "--recipients-per-day", 5000)
    kilat.add_user("bob", PASSWORD, "--lane", "bulk")
    assert kilat.command("user", "add", "carol", "--lane", "slow").returncode == 2
    users = folder / "users"
    assert users.stat().st_mode & 0o777 == 0o600
    assert PASSWORD not in users.read_text()
    assert kilat.command("user", "disable", "bob").returncode == 0
    assert listed(kilat) == {
        "alice@sender.test": {"name": "alice@sender.test", "tenant": "acme", "disabled": False,
                              "password": "argon2id+scram", "senders": ["@sender.test"],
                              "recipients_per_minute": 0, "recipients_per_day": 5000, "lane": ""},
        "bob": {"name": "bob", "tenant": "", "disabled": True, "password": "argon2id+scram",
                "senders": [], "recipients_per_minute": 0, "recipients_per_day": 0,
                "lane": "bulk"}}
    before = users.read_text()
    assert kilat.command("user", "add", "carol", "--tenant", "nobody").returncode == 2
    assert users.read_text() == before
    assert kilat.command("user", "remove", "bob").returncode == 0
    assert list(listed(kilat)) == ["alice@sender.test"]
    assert sorted(p.name for p in folder.iterdir()) == ["k", "users"]     # no litter


def test_a_password_from_a_file(kilat, folder):
    secret = folder / "secret"
    secret.write_text(PASSWORD + "\n")
    done = kilat.command("user", "add", "alice", "--password-file", secret)
    assert done.returncode == 0, done.stderr
    assert PASSWORD not in done.stdout + done.stderr


def test_no_password_in_arguments(kilat):
    for words in (["alice", PASSWORD], ["alice", "--password", PASSWORD]):
        done = kilat.command("user", "add", *words)
        assert done.returncode == 2 and "usage" in done.stderr


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, kilat, *args):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execv(kilat.program, [str(kilat.program), "user", "-c", str(kilat.config), *args])
        self.seen = ""

    def expect(self, text):
        until = time.monotonic() + 20
        while text not in self.seen:
            assert time.monotonic() < until, self.seen
            if select.select([self.fd], [], [], 0.2)[0]:
                try:
                    self.seen += os.read(self.fd, 4096).decode()
                except OSError:         # the other end is closed
                    assert text in self.seen, self.seen
        seen, self.seen = self.seen, self.seen.split(text, 1)[1]
        return seen

    def type(self, text):
        os.write(self.fd, text.encode())

    def echoes(self):
        import termios
        return bool(termios.tcgetattr(self.fd)[3] & termios.ECHO)

    def end(self):
        _, status = os.waitpid(self.pid, 0)
        os.close(self.fd)
        return os.waitstatus_to_exitcode(status)


def test_a_terminal_asks_twice_without_echo(kilat):
    t = Terminal(kilat, "add", "alice")
    t.expect("Password: ")
    assert not t.echoes()
    t.type(PASSWORD + "\n")
    shown = t.expect("Once more: ")
    t.type(PASSWORD + "\n")
    shown += t.expect("added alice")
    assert PASSWORD not in shown
    assert t.end() == 0
    assert "alice" in listed(kilat)


def test_two_passwords_are_none(kilat, folder):
    t = Terminal(kilat, "add", "alice")
    t.expect("Password: ")
    t.type("one\n")
    t.expect("Once more: ")
    t.type("another\n")
    t.expect("two passwords")
    assert t.end() == 1
    assert not (folder / "users").exists()


def test_an_interrupted_question(kilat, folder):
    """The terminal gets its echo back."""
    t = Terminal(kilat, "add", "alice")
    t.expect("Password: ")
    assert not t.echoes()
    os.kill(t.pid, signal.SIGINT)
    t.expect("cannot read the password")
    assert t.echoes()
    assert t.end() == 1
    assert not (folder / "users").exists()


def test_many_commands_at_once(kilat):
    """Each change is whole, none is lost."""
    running = [subprocess.Popen([str(kilat.program), "user", "-c", str(kilat.config), "add",
                                 f"user{i}", "--no-argon2", "--no-scram"],
                                stdout=subprocess.DEVNULL) for i in range(12)]
    assert [p.wait(60) for p in running] == [0] * 12
    assert sorted(listed(kilat)) == sorted(f"user{i}" for i in range(12))


def test_a_running_gateway_notices(gateways, folder):
    """By itself within a second, and on SIGHUP; a bad file is told and changes nothing."""
    users = folder / "users"
    users.touch(mode=0o600)
    listener = {"submission": {"bind": ["127.0.0.1:0"], "tls": "off", "auth": "optional",
                               "auth_without_tls": True, "networks": ["127.0.0.0/8"]}}
    kilat = gateways(listener=listener, auth={"users_file": str(users)})
    kilat.add_user("alice", PASSWORD)
    kilat.wait_event("users.reloaded")
    users.write_text(users.read_text() + "bob colour=red\n")
    event = kilat.wait_event("users.bad")
    assert f"{users}:2" in event["error"] and "colour=red" in event["error"]
    done = kilat.command("user", "add", "carol", "--no-argon2", "--no-scram")
    assert done.returncode == 1 and "colour=red" in done.stderr


def test_users_in_redis(gateways):
    """The same commands; without a gateway there is no embedded Redis to ask."""
    kilat = gateways(tenant={"acme": {}})
    kilat.add_user("alice@sender.test", PASSWORD, "--tenant", "acme")
    assert listed(kilat)["alice@sender.test"]["tenant"] == "acme"
    assert kilat.command("user", "disable", "alice@sender.test").returncode == 0
    assert listed(kilat)["alice@sender.test"]["disabled"]
    assert kilat.command("user", "remove", "alice@sender.test").returncode == 0
    assert listed(kilat) == {}
