# SPDX-License-Identifier: Apache-2.0
"""The configurations that the documentation shows, as they stand there: `kilat check` takes them,
and the web host's does what its comments say."""
import pathlib
import re
import subprocess

import pytest

from lib.certs import Authority
from lib.kilat import Kilat, binary, message
from lib.net import RawSmtp, queue_id, wait_until

ROOT = pathlib.Path(__file__).resolve().parents[2]
EXAMPLES = sorted((ROOT / "docs/examples").glob("*.conf"))
PASSWORD = "correct horse battery"


def readme():
    """The block behind its heading "Configuration"."""
    text = (ROOT / "README.md").read_text()
    return re.search(r"## Configuration\n\n```\n(.*?)```", text, re.S)[1]


def placed(text, folder):
    """With its paths below folder, where the files that it names are made."""
    ca = Authority(folder / "ca")
    cert, key = ca.issue("kilat.test")
    (folder / "cert.pem").write_bytes(cert.read_bytes())
    (folder / "key.pem").write_bytes(key.read_bytes())
    (folder / "users").touch(mode=0o600)
    (folder / "data").mkdir(exist_ok=True)
    text = text.replace("/etc/kilat/", f"{folder}/").replace("/var/lib/kilat", f"{folder}/data")
    assert '"/' not in text.replace(f'"{folder}/', "")
    return text, ca


def check(folder, text):
    file = folder / "checked.conf"
    file.write_text(text)
    return subprocess.run([binary(), "check", "-c", file], capture_output=True, text=True,
                          timeout=60)


@pytest.mark.parametrize("text", [readme()] + [e.read_text() for e in EXAMPLES],
                         ids=["README"] + [e.name for e in EXAMPLES])
def test_check(folder, text):
    text, _ = placed(text, folder)
    done = check(folder, text)
    assert done.returncode == 0 and not done.stderr, done.stdout + done.stderr
    assert re.search(r"certificates +1\n +good until +\d{4}-\d\d-\d\d\n", done.stdout), done.stdout
    assert f"{folder}/users" in done.stdout


@pytest.mark.parametrize("change, code, word", [
    (lambda f: (f / "cert.pem").unlink(), 1, "cert.pem"),
    (lambda f: (f / "key.pem").write_bytes((f / "ca/ca.key").read_bytes()), 1, "key.pem"),
    (lambda f: (f / "users").unlink(), 1, "users"),
    (lambda f: (f / "users").write_text("name only\n"), 1, "users:1"),
], ids=["no certificate", "another key", "no users", "bad users"])
def test_check_reads_what_a_start_reads(folder, change, code, word):
    text, _ = placed(readme(), folder)
    change(folder)
    done = check(folder, text)
    assert done.returncode == code and word in done.stderr, done.stdout + done.stderr
    assert len(done.stderr.strip().split("\n")) == 1


def test_check_keeps_the_password_of_redis(folder):
    text, _ = placed(readme(), folder)
    from lib.redis_server import Redis
    with Redis(folder / "redis") as redis:
        url = redis.url.replace("redis://", "redis://default:sesame@")
        done = check(folder, text.replace('mode = "embedded"', f'mode = "external"; url = "{url}"'))
    assert "sesame" not in done.stdout + done.stderr, done.stdout + done.stderr


def test_check_refuses_a_sender_that_is_no_pattern(folder):
    text, _ = placed(readme(), folder)
    done = check(folder, text.replace('"@example.org"', '"example.org"'))
    assert done.returncode == 2 and 'tenant "shop": senders: "example.org"' in done.stderr


class Webhost(Kilat):
    """docs/examples/webhost.conf on free ports, its mail held."""

    def __init__(self, folder):
        super().__init__(folder)
        text, self.ca = placed((ROOT / "docs/examples/webhost.conf").read_text(), self.folder)
        text = re.sub(r'"(0\.0\.0\.0|127\.0\.0\.1):\d+"', '"127.0.0.1:0"', text)
        text = re.sub(r', "\[::\]:\d+"', "", text).replace('relay = "mx"', 'relay = "hold"')
        self.config.write_text(text)


def test_web_host(folder):
    kilat = Webhost(folder / "k")
    kilat.add_user("web@shop.example", PASSWORD, "--tenant", "shop")
    with kilat:
        for listener in ("submission", "submissions"):
            with RawSmtp(kilat.ports[listener]) as c:
                if listener == "submissions":
                    c.tls(kilat.ca.context()).hello()
                else:
                    c.hello()
                    assert c.cmd("MAIL FROM:<web@shop.example>").code == 530
                    c.starttls(kilat.ca.context())
                    assert c.cmd("EHLO client.test").code == 250
                assert c.auth_plain("web@shop.example", PASSWORD).code == 235
                assert c.cmd("MAIL FROM:<web@blog.example>").code == 550
                assert queue_id(c.mail(message(From="web@shop.example"), sender="web@shop.example"))
        with RawSmtp(kilat.ports["trusted"]) as c:
            c.hello()
            assert c.cmd("MAIL FROM:<web@shop.example>").code == 550
            assert queue_id(c.mail(message(From="cron@web1.webhost.example"),
                                   sender="cron@web1.webhost.example"))
        wait_until(lambda: len(kilat.events("msg.accepted")) == 3, 10)
        events = kilat.events("msg.accepted")
        assert [e["tenant"] for e in events] == ["shop", "shop", "system"]
