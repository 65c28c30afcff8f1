# SPDX-License-Identifier: Apache-2.0
"""kilat suppress: a tenant's list, kept from the command line beside a running gateway."""
import json

import pytest

TENANTS = {"acme": {}, "other": {}}


@pytest.fixture
def kilat(gateways):
    return gateways(tenant=TENANTS)


def run(kilat, *words):
    """What a command printed; it must succeed."""
    done = kilat.command("suppress", *words)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def refused(kilat, *words, code=1):
    """What a command complained; it must fail and print nothing else."""
    done = kilat.command("suppress", *words)
    assert done.returncode == code, (done.stdout, done.stderr)
    assert done.stdout == ""
    return done.stderr


def rows(kilat, tenant="acme"):
    return [tuple(line.split("\t")) for line in run(kilat, "list", tenant).splitlines()]


def test_add_list_remove(kilat):
    assert rows(kilat) == []
    assert "added Bob@rcpt.test" in run(kilat, "add", "acme", "Bob@RCPT.Test", "--reason",
                                        "hard bounce: 550 5.1.1")
    assert "added ann@rcpt.test" in run(kilat, "add", "acme", "ann@rcpt.test")
    assert rows(kilat) == [("Bob@rcpt.test", "hard bounce: 550 5.1.1"),
                           ("ann@rcpt.test", "suppressed")]
    assert rows(kilat, "other") == []                   # P-238: each tenant has its own
    assert "changed the reason" in run(kilat, "add", "acme", "Bob@rcpt.test", "--reason", "asked")
    listed = [json.loads(line) for line in run(kilat, "list", "acme", "--json").splitlines()]
    assert listed[0] == {"address": "Bob@rcpt.test", "reason": "asked"}
    run(kilat, "remove", "acme", "Bob@RCPT.test")
    assert "not on the list: Bob@rcpt.test" in refused(kilat, "remove", "acme", "Bob@rcpt.test")
    assert "not on the list: bob@rcpt.test" in refused(kilat, "remove", "acme", "bob@rcpt.test")
    assert rows(kilat) == [("ann@rcpt.test", "suppressed")]


def test_one_form(kilat):
    """P-44: quotes that say nothing are not part of an address."""
    run(kilat, "add", "acme", '"ann"@rcpt.test')
    run(kilat, "add", "acme", '"a b"@rcpt.test')
    run(kilat, "add", "acme", "dörte@müller.test")
    assert [row[0] for row in rows(kilat)] == ['"a b"@rcpt.test', "ann@rcpt.test",
                                               "d??rte@m??ller.test"]       # P-121
    shown = [json.loads(line)["address"] for line in
             run(kilat, "list", "acme", "--json").splitlines()]
    assert shown == ['"a b"@rcpt.test', "ann@rcpt.test", "dörte@müller.test"]
    run(kilat, "remove", "acme", '"a\\ b"@rcpt.test')
    run(kilat, "remove", "acme", "dörte@müller.test")
    assert rows(kilat) == [("ann@rcpt.test", "suppressed")]


def test_import(kilat, folder):
    path = folder / "bounced.txt"
    path.write_text("# who bounced\n"
                    "\n"
                    "one@rcpt.test\n"
                    "  two@Rcpt.test\tmailbox is gone\r\n"
                    "three@rcpt.test, asked, twice\n"
                    '"four, or 4"@rcpt.test no such user\n'
                    "one@rcpt.test said again\n"
                    + "".join(f"many{i}@rcpt.test\n" for i in range(2000)))
    assert run(kilat, "import", "acme", str(path)) == "2005 addresses read, 2004 of them new\n"
    listed = dict(rows(kilat))
    assert len(listed) == 2004
    assert listed["one@rcpt.test"] == "said again"
    assert listed["two@rcpt.test"] == "mailbox is gone"
    assert listed["three@rcpt.test"] == "asked, twice"
    assert listed['"four, or 4"@rcpt.test'] == "no such user"
    assert run(kilat, "import", "acme", str(path)) == "2005 addresses read, 0 of them new\n"


@pytest.mark.parametrize("line, fault", [
    ("two@@rcpt.test", "not an address: two@@rcpt.test"),
    ("nobody", "without a domain: nobody"),
    ("x" * 65 + "@rcpt.test", "too long"),
    ("two@rcpt.test na\u00efve", "printable ASCII"),
    ("two@rcpt.test " + "x" * 201, "1 to 200"),
    ("x" * 2000, "longer than 1024 octets"),
])
def test_import_is_whole_or_not(kilat, folder, line, fault):
    path = folder / "bad.txt"
    path.write_text(f"one@rcpt.test\n{line}\nthree@rcpt.test\n")
    complaint = refused(kilat, "import", "acme", str(path))
    assert f"{path}:2: " in complaint and fault in complaint
    assert rows(kilat) == []


def test_misuse(kilat, folder):
    assert "no tenant \"nobody\"" in refused(kilat, "add", "nobody", "a@b.test")
    assert "not an address: a@" in refused(kilat, "add", "acme", "a@")
    assert "control characters" in refused(kilat, "add", "acme", "a@b.test\r\nx")
    assert "printable" in refused(kilat, "add", "acme", "a@b.test", "--reason", "no\r\n250 ok")
    assert "No such file" in refused(kilat, "import", "acme", str(folder / "none.txt"))
    for words in ([], ["add"], ["add", "acme"], ["add", "acme", "a@b.test", "reason"],
                  ["list", "acme", "--xml"], ["nonsense", "acme"], ["remove", "acme"]):
        assert "usage: kilat suppress" in refused(kilat, *words, code=2)


def test_without_redis(kilat):
    """The embedded Redis ends with the gateway: the error says so."""
    assert kilat.stop() == 0
    assert "embedded Redis runs while the gateway does" in refused(kilat, "list", "acme")
