#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""
gate - instructions per message, against what record.json says: a change that makes a message dearer
is seen without a clock. As TAP.

    tests/gate/gate.py [--write]

`cost` (cost.c) runs under callgrind, which counts exactly: twice, and the difference of the two is
that of the messages between. A few per cent are left for compilers and libraries. --write makes the
record anew; say in the commit what became dearer, or cheaper, and why.
"""
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
RECORD = pathlib.Path(__file__).parent / "record.json"
COST = ROOT / os.environ.get("KILAT_BUILD", "build") / "tests/cost"
FEW, MANY = 320, 1600
DEARER, CHEAPER = 1.03, 0.95


def instructions(scenario, messages):
    with tempfile.NamedTemporaryFile() as out:
        done = subprocess.run(["valgrind", "--tool=callgrind", f"--callgrind-out-file={out.name}",
                               COST, scenario, str(messages)], capture_output=True, text=True,
                              check=False)
    found = re.search(r"refs:\s+([\d,]+)", done.stderr)
    if done.returncode != 0 or not found:
        raise SystemExit(f"Bail out! {COST.name} {scenario}: {done.stderr[-2000:]}")
    return int(found[1].replace(",", ""))


def per_message(scenario):
    return (instructions(scenario, MANY) - instructions(scenario, FEW)) // (MANY - FEW)


def verdict(scenario, now, before):
    ratio = now / before
    if ratio > DEARER:
        return f"a message costs {now} instructions, {before} on record: {ratio - 1:.1%} more"
    if ratio < CHEAPER:
        return (f"a message costs {now} instructions, {before} on record: {1 - ratio:.1%} less: "
                "write it down (tests/gate/gate.py --write)")
    return ""


def main():
    record = json.loads(RECORD.read_text())
    found = {scenario: per_message(scenario) for scenario in record}
    if sys.argv[1:] == ["--write"]:
        RECORD.write_text(json.dumps(found, indent=1) + "\n")
        return 0
    print(f"1..{len(record)}")
    failed = 0
    for number, (scenario, before) in enumerate(record.items(), 1):
        trouble = verdict(scenario, found[scenario], before)
        failed += bool(trouble)
        print(f"{'not ok' if trouble else 'ok'} {number} - {scenario}: {found[scenario]} "
              "instructions a message")
        if trouble:
            print(f"#   {trouble}")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
