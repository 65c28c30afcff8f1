# SPDX-License-Identifier: Apache-2.0
"""
verdict - what has become of each case, from the gateway's log and from the mailboxes, and how that
differs from what must.
"""
import re

from lab.hosts import HOSTS
from lab.mail import bounces, is_whole, message_id

TRIES_MIN = 2       # of what must go on waiting


class Verdict:
    def __init__(self, scene):
        self.scene = scene

    # -- what the log says --------------------------------------------------------------------

    def attempts(self, case, rcpt):
        events = self.scene.kilat.events("relay.done", rcpt=f"{rcpt}@{case.domain}")
        return [e for e in events if e["id"].split("/")[0] == self.scene.idents[case.name]]

    def steps(self, case, rcpt):
        """("deferred 450", "delivered 250"): the same again is the same step."""
        steps = []
        for e in self.attempts(case, rcpt):
            step = f"{e['fate']} {e['code']}"
            if steps[-1:] != [step]:
                steps.append(step)
        return tuple(steps)

    def reason(self, case):
        """What went wrong first for each recipient, or on the way to the host that got it."""
        texts = []
        for rcpt in case.rcpts:
            texts += [e["text"] for e in self.attempts(case, rcpt) if e["fate"] != "delivered"][:1]
        for event, key in (("relay.failed", "text"), ("sts.testing", "error")):
            texts += [] if texts else [
                f"{short(e['host'])}: {e[key]}"
                for e in self.scene.kilat.events(event, dest=case.domain)[:1]]
        return "; ".join(dict.fromkeys(" ".join(text.split()) for text in texts))

    def has_ended(self, case):
        return all(self._has_ended(case, rcpt) for rcpt in case.rcpts) and \
            len(self._bounces(case)) >= self._bounces_due(case)

    def _has_ended(self, case, rcpt):
        steps = self.steps(case, rcpt)
        waits = case.steps(rcpt)[-1].startswith("deferred")
        return steps == case.steps(rcpt) and \
            (not waits or len(self.attempts(case, rcpt)) >= TRIES_MIN)

    def security(self, case):
        """clear, encrypted or verified: the last connection to the host that gets it. That may be
        one that another destination opened; verified ones serve their own only."""
        host = host_of(case)
        there = [e for e in self.scene.kilat.events("relay.tls") if e["host"] == host.fqdn]
        own = [e for e in there if e["dest"] == case.domain]
        if own:
            return "verified" if own[-1]["verified"] else "encrypted"
        return "encrypted" if any(not e["verified"] for e in there) else "clear"

    # -- what is in the mailboxes -------------------------------------------------------------

    def copies(self, case, rcpt):
        """(name of the server, mail)"""
        for server in [*self.scene.servers, self.scene.scripted]:
            for mail in server.messages_for(f"{rcpt}@{case.domain}"):
                if mail["Message-ID"] == message_id(case):
                    yield server.name, mail

    def _bounces(self, case):
        return bounces(self.scene.servers[0].messages(), case) if self._bounces_due(case) else []

    @staticmethod
    def _bounces_due(case):
        return any(case.steps(rcpt)[-1].startswith("bounced") for rcpt in case.rcpts)

    # -- the differences, as sentences --------------------------------------------------------

    def differences(self, case):
        return [*self._in_the_log(case), *self._in_the_mailboxes(case), *self._in_bounces(case)]

    def complaints(self):
        """Of the scripted hosts, which judge their client."""
        return [blame for mx in self.scene.scripted.running for blame in mx.violations]

    def _in_the_log(self, case):
        for rcpt in case.rcpts:
            got, want = self.steps(case, rcpt), case.steps(rcpt)
            if got != want:
                yield f"{rcpt}: {' -> '.join(got) or 'nothing'}, not {' -> '.join(want)}"
        if case.why not in self.reason(case):
            yield f"the log says {self.reason(case)!r}, not {case.why!r}"
        if case.tls and self.security(case) != case.tls:
            yield f"{self.security(case)}, not {case.tls}"
        said = [e["error"] for e in self.scene.kilat.events("sts.testing", dest=case.domain)]
        if bool(case.testing) != bool(said) or not all(case.testing in error for error in said):
            yield f"sts.testing says {said}, not {case.testing!r}"

    def _in_the_mailboxes(self, case):
        for rcpt in case.rcpts:
            copies = list(self.copies(case, rcpt))
            if len(copies) != case.steps(rcpt)[-1].startswith("delivered"):
                yield f"{rcpt}: {len(copies)} copies in the mailboxes"
            for name, mail in copies:
                yield from (f"{rcpt}: {fault}" for fault in self._faults(case, name, mail))

    def _faults(self, case, name, mail):
        if name != host_of(case).server:
            yield f"at {name}, not {host_of(case).server}"
        if not is_whole(mail):
            yield "its content has changed"
        trace = " ".join(mail.get_all("Received")[0].split())
        if case.tls and ("with ESMTPS" in trace.upper().replace("WITH", "with")) != \
                (case.tls != "clear"):
            yield f"{trace!r}, not {case.tls}"

    def _in_bounces(self, case):
        for rcpt in case.rcpts:
            if not case.steps(rcpt)[-1].startswith("bounced"):
                continue
            reports = [text for text in self._bounces(case) if f"{rcpt}@{case.domain}" in text]
            if len(reports) != 1:
                yield f"{rcpt}: {len(reports)} bounces"
            elif not re.search(rf"^Status: {re.escape(case.status)}", reports[0], re.M):
                yield f"{rcpt}: the bounce has no status {case.status}: {reports[0]}"


def short(host):
    return host.removesuffix(".test")


def host_of(case):
    """Who gets it."""
    return next(host for host in HOSTS if host.name == case.at)
