# SPDX-License-Identifier: Apache-2.0
"""
DKIM (P-240 to P-246, P-249): what Kilat signs is verified by dkimpy and by libopendkim, neither of
which shares code with it, with keys that openssl made.
"""
import email.generator
import email.message
import email.policy
import io
import random
import smtplib
import time

import dkim
import pytest

from lib.dkim_keys import make_key, name_of
from lib.kilat import HOLD, send, smarthost
from lib.mx import Mx
from lib.net import wait_until
from lib.opendkim import OpenDkim

SIGNED = "signed.test"


@pytest.fixture
def keys(folder):
    """The section of SIGNED, and the records of its keys."""
    records = {name_of("rsa1", SIGNED): make_key(folder / "rsa1.pem"),
               name_of("ed1", SIGNED): make_key(folder / "ed1.pem", "ed25519")}
    section = {"selector": ["rsa1", "ed1"],
               "private_key": [str(folder / "rsa1.pem"), str(folder / "ed1.pem")]}
    return section, records


def resolver(records):
    def look_up(name, timeout=5):
        return records.get(name.decode().rstrip("."), "").encode()
    return look_up


def verify(content, records, count=2):
    """Every signature of the message passes dkimpy's verification."""
    verifier = dkim.DKIM(content)
    results = [verifier.verify(idx=i, dnsfunc=resolver(records)) for i in range(count)]
    assert results == [True] * count, content.decode("latin-1")
    assert content.count(b"\r\nDKIM-Signature:") + content.startswith(b"DKIM-Signature:") == count


def signature_lines(content):
    head = content.split(b"\r\nReceived:")[0]
    assert head.startswith(b"DKIM-Signature:")
    return head.split(b"\r\n")


def mail(sender=f"a@{SIGNED}", body=b"hello\r\n", **fields):
    """Octets of a small message."""
    names = {"From": sender, "To": "b@rcpt.test", "Subject": "test", **fields}
    head = "".join(f"{k.replace('_', '-')}: {v}\r\n" for k, v in names.items())
    return head.encode() + b"\r\n" + body


def test_both_kinds_of_signature(gateways, mx, keys, folder):
    section, records = keys
    kilat = gateways(route={"*": smarthost(mx.port)}, dkim={SIGNED: section})
    send(kilat.port, mail(), sender=f"a@{SIGNED}", rcpts=["b@rcpt.test"])
    content = mx.wait(1)[0].content
    verify(content, records)
    with OpenDkim(records, folder) as other:
        assert other.passes(content)
        assert not other.passes(content.replace(b"hello", b"hallo"))
    lines = signature_lines(content)
    assert all(len(line.expandtabs(8)) <= 78 for line in lines), lines
    assert b"a=rsa-sha256" in lines[0] and b"l=" not in b"".join(lines)
    assert kilat.metrics()["dkim_signed_total"] == 1
