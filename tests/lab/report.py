# SPDX-License-Identifier: Apache-2.0
"""report - the outcome of a run, for the terminal and as docs/lab.md."""
import platform
import subprocess
import textwrap
import time

TITLE = """# Real servers: what was delivered, deferred, bounced, and why

<!-- Made by `tests/lab/run --write docs/lab.md`; do not edit. -->
"""
TEXT = """
`tests/lab/run` starts {servers} as MX hosts on one machine, each in a network namespace and a
Debian of its own, at port 25 of addresses of its own; {knot} with zones that are signed; and a web
host with MTA-STS policies. Hosts called "scripted" do what no real server can be told to do. Kilat
gets one message for each case, all at once, and finds hosts, keys and policies by DNS. What becomes
of each message is compared with what must, in Kilat's log and in the mailboxes of the servers:
whether it is there once, whole, and came as encrypted as it should; a bounce must be in the
sender's mailbox.

This is from a run in which all was as it must be: {date}, Kilat {kilat}, Linux {linux}, {seconds}
seconds for everything. Retries were a second apart. Where mail waits it is tried again until
`retry.expire`; "deferred → delivered" is mail that waited and then went. "Why" is what the log
says. "Rows" are those of the protocol checklist (P-numbers, as in the sources) that say what must
happen.
"""
TABLE = """
| case | MX hosts | outcome | why | rows |
|---|---|---|---|---|
"""
WIDTH = 140     # of the text


def show(scene):
    """Prints a line for each case, and more for each difference; returns how many have any."""
    failed = 0
    for case in scene.cases:
        wrong = scene.verdict.differences(case)
        failed += bool(wrong)
        print(f"{'FAILED' if wrong else 'ok    '} {case.name:16} {ended(scene, case):44} "
              f"{scene.verdict.reason(case)[:90]}", flush=True)
        for line in wrong:
            print("       | " + line, flush=True)
    for blame in scene.verdict.complaints():
        failed += 1
        print(f"FAILED scripted host: {blame}", flush=True)
    print(f"{len(scene.cases) - failed} passed, {failed} failed")
    return failed


def ended(scene, case):
    """The steps of its recipients; where they differ, whose they are."""
    by_steps = {}
    for rcpt in case.rcpts:
        by_steps.setdefault(" → ".join(scene.verdict.steps(case, rcpt)), []).append(rcpt)
    if len(by_steps) == 1:
        return next(iter(by_steps))
    return "; ".join(f"{', '.join(rcpts)}: {steps}" for steps, rcpts in by_steps.items())


def document(scene):
    *servers, last = (f"{s.title} {s.root.version()}" for s in scene.servers)
    text = TEXT.format(servers=", ".join(servers) + " and " + last,
                       knot=first_line("knotd", "-V").replace("knotd (Knot DNS), version",
                                                              "Knot DNS"),
                       kilat=first_line(scene.kilat.program, "--version").split()[1],
                       date=time.strftime("%-d %B %Y", time.gmtime()),
                       linux=platform.release().split("-")[0],
                       seconds=round(time.monotonic() - scene.began))
    paragraphs = [textwrap.fill(part, WIDTH) + "\n" for part in text.strip().split("\n\n")]
    rows = "".join(row(scene, case) for case in scene.cases)
    return TITLE + "\n" + "\n".join(paragraphs) + TABLE + rows


def first_line(*command):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    return (done.stdout or done.stderr).split("\n")[0]


def row(scene, case):
    rows = ", ".join(f"P-{number}" for number in case.rows)
    cells = (case.what, case.hosts, outcome(scene, case), why(scene, case), rows)
    return "| " + " | ".join(cells) + " |\n"


def outcome(scene, case):
    return ended(scene, case) + (f", {case.tls}" if case.tls else "")


def why(scene, case):
    text = scene.verdict.reason(case).replace("|", "\\|")
    return f"`{text}`" if text else ""
