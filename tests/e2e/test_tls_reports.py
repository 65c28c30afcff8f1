# SPDX-License-Identifier: Apache-2.0
"""TLS reports (RFC 8460, P-205): counted over a day, told to the domains that ask for it."""
import base64
import contextlib
import datetime
import email
import email.policy
import gzip
import json

import pytest

import test_promises
from lib.certs import Authority
from lib.dkim_keys import make_key, name_of
from lib.dns import Dns
from lib.kilat import message, smarthost
from lib.mx import Mx
from lib.net import free_port, wait_until
from lib.policy_host import PolicyHost, policy
from test_dkim import verify

FROM = "tls-reports@reporter.test"


def key_of(days_ago):
    day = datetime.datetime.now(datetime.timezone.utc).date() - datetime.timedelta(days=days_ago)
    return "{cfg}tlsrpt:" + str(day)


def table():
    """Four domains: a policy and a wrong certificate; TLS; no TLS; TLS, and no wish for reports."""
    rows = {}
    for i, name in enumerate(("sts.test", "good.test", "clear.test", "silent.test")):
        rows[(name, "MX")] = [(10, f"mx.{name}")]
        rows[(f"mx.{name}", "A")] = [f"127.0.0.{2 + i}"]
        if name != "silent.test":
            rows[(f"_smtp._tls.{name}", "TXT")] = [
                f"v=TLSRPTv1; rua=mailto:tls@{name[:-5]}.reports.test,https://x.test/y"]
    rows[("_mta-sts.sts.test", "TXT")] = ["v=STSv1; id=1;"]
    rows[("mta-sts.sts.test", "A")] = ["127.0.0.1"]
    return rows


@pytest.fixture
def net(gateways, folder):
    """The gateway, and the host that takes the reports."""
    ca = Authority(folder / "ca")
    port = free_port()
    key = make_key(folder / "key.pem")
    with contextlib.ExitStack() as stack:
        certificates = {"127.0.0.2": ca.issue("mx.other.test"), "127.0.0.3": ca.issue("x.test"),
                        "127.0.0.4": None, "127.0.0.5": ca.issue("y.test")}
        for address, certificate in certificates.items():
            stack.enter_context(Mx(host=address, port=port, tls=certificate))
        reports = stack.enter_context(Mx(name="reports.test"))
        web = stack.enter_context(PolicyHost(ca.issue("mta-sts.sts.test")))
        web.text = policy("testing", "mx.sts.test")
        dns = stack.enter_context(Dns(table()))
        kilat = gateways(route={"*": {"relay": "mx"}, "*.reports.test": smarthost(reports.port)},
                         dns={"servers": [dns.address]}, log={"level": "debug"},
                         relay={"mx_port": port, "allow_private": True, "ca_file": str(ca.cert),
                                "mta_sts_port": web.port, "tls_report_from": FROM,
                                "tls_report_delay": 0},
                         dkim={"reporter.test": {"selector": "s",
                                                 "private_key": str(folder / "key.pem")}})
        yield kilat, reports, {name_of("s", "reporter.test"): key}
        assert reports.violations == []


def report_in(content):
    """(header, JSON) of a mail with a report."""
    mail = email.message_from_bytes(content, policy=email.policy.default)
    text, attachment = mail.iter_parts()
    assert mail.get_content_type() == "multipart/report"
    assert mail.get_param("report-type") == "tlsrpt"
    assert text.get_content_type() == "text/plain"
    assert attachment.get_content_type() == "application/tlsrpt+gzip"
    assert attachment.get_filename().endswith(".json.gz")
    return mail, json.loads(gzip.decompress(base64.b64decode(attachment.get_payload())))


def test_reports(net):
    kilat, reports, records = net
    domains = ["sts.test", "good.test", "clear.test", "silent.test"]
    for domain in domains:
        test_promises.submit(kilat, message(), f"<to@{domain}>")
    kilat.wait_event("relay.done", count=4, fate="delivered")

    # only who wants reports is in Redis, and today's are not sent today
    today, yesterday = key_of(0), key_of(1)
    wait_until(lambda: len(kilat.redis("SMEMBERS", today)) >= 3, 40, "counts")
    assert sorted(kilat.redis("SMEMBERS", today)) == sorted(domains[:3])
    assert kilat.events("tlsrpt.sent") == []

    # a day later
    for domain in domains[:3]:
        kilat.redis("RENAME", f"{today}:{domain}", f"{yesterday}:{domain}")
    kilat.redis("RENAME", today, yesterday)
    mails = {m.rcpts[0]: m for m in reports.wait(3, timeout=40)}
    assert set(mails) == {f"tls@{d[:-5]}.reports.test" for d in domains[:3]}
    kilat.wait_event("tlsrpt.failed", count=3, to="https://x.test/y")

    found = {}
    for m in mails.values():
        assert m.sender == FROM
        verify(m.content, records, count=1)
        mail, found_here = report_in(m.content)
        domain = mail["TLS-Report-Domain"]
        assert mail["TLS-Report-Submitter"] == "kilat.test" and mail["TLS-Required"] == "No"
        assert f"Report Domain: {domain} Submitter: kilat.test Report-ID: <" in mail["Subject"]
        assert found_here["organization-name"] == "kilat.test"
        assert found_here["contact-info"] == FROM
        assert found_here["date-range"]["start-datetime"].endswith("T00:00:00Z")
        found[domain], = found_here["policies"]

    sts, good, clear = (found[d] for d in domains[:3])
    assert sts["policy"]["policy-type"] == "sts" and sts["policy"]["mx-host"] == ["mx.sts.test"]
    assert "mode: testing" in sts["policy"]["policy-string"]
    assert sts["failure-details"] == [{"result-type": "certificate-host-mismatch",
                                       "receiving-mx-hostname": "mx.sts.test",
                                       "receiving-ip": "127.0.0.2", "failed-session-count": 1}]
    assert good["policy"] == {"policy-type": "no-policy-found", "policy-domain": "good.test"}
    assert good["summary"] == {"total-successful-session-count": 1,
                               "total-failure-session-count": 0}
    assert clear["failure-details"][0]["result-type"] == "starttls-not-supported"
    assert kilat.metrics()["tls_reports_total"] == 3

    # each is told once, and reports are not reported on
    assert kilat.redis("SMEMBERS", yesterday) == []
    assert kilat.redis("SMEMBERS", today) == []


@pytest.mark.parametrize("value", ["nobody", "a@[127.0.0.1]", "a b@c.test"])
def test_a_sender_that_is_none(gateways, value):
    kilat = gateways(start=False, relay={"tls_report_from": value})
    check = kilat.command("check")
    assert check.returncode != 0 and "tls_report_from" in check.stderr
