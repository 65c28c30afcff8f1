# SPDX-License-Identifier: Apache-2.0
"""
suites - runs the test suites one by one, shows progress, keeps a log of each in build/logs, and
ends in "N passed, N failed". What it counts are single tests: TAP lines, pytest cases.

To add a suite: a row in SUITES.
"""
import json
import os
import pathlib
import re
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from concurrent.futures import ThreadPoolExecutor

ROOT = pathlib.Path(__file__).resolve().parents[2]
LOGS = ROOT / "build" / "logs"
PYTHON = "/usr/bin/python3"
SUITE_S = 900       # no suite may take longer


class Result:
    def __init__(self):
        self.passed = self.failed = self.skipped = 0
        self.failures = []      # (name, text)

    def add(self, name, verdict, text=""):
        if verdict == "passed":
            self.passed += 1
        elif verdict == "skipped":
            self.skipped += 1
        else:
            self.failed += 1
            self.failures.append((name, text))


def run(command, log, env=None, show=None):
    """Output to the log, lines that `show` matches to the terminal too; returns the exit code."""
    with open(log, "w") as out:
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True,
                                   stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                                   errors="replace", env=dict(os.environ, **(env or {})))
        end = time.monotonic() + SUITE_S
        for line in process.stdout:
            out.write(line)
            out.flush()
            if show and re.search(show, line):
                print("    " + line.rstrip(), flush=True)
            if time.monotonic() > end:
                process.terminate()
        return process.wait()


def tap_suite(name, command, log):
    result = Result()
    code = run(command, log, show=r"^(ok|not ok) ")
    last = None
    for line in log.read_text().split("\n"):
        found = re.match(r"(ok|not ok) \d+ - (.*)", line)
        if found:
            last = found[2]
            verdict = "skipped" if "# SKIP" in line else \
                "passed" if found[1] == "ok" else "failed"
            result.add(last, verdict)
        elif line.startswith("#   ") and result.failures and result.failures[-1][0] == last:
            result.failures[-1] = (last, result.failures[-1][1] + line[1:] + "\n")
    if code != 0 and not result.failed or result.passed + result.failed == 0:
        result.add(name, "failed", f"exit code {code}, see {log}")
    return result


def junit_cases(path):
    """(suite, case, verdict, text) of a JUnit file."""
    for suite in ElementTree.parse(path).getroot().iter("testsuite"):
        for case in suite.findall("testcase"):
            bad = case.find("failure")
            bad = case.find("error") if bad is None else bad
            verdict = "failed" if bad is not None else \
                "skipped" if case.find("skipped") is not None else "passed"
            where = case.get("classname", suite.get("name", ""))
            text = "" if bad is None else (bad.get("message") or "") + "\n" + (bad.text or "")
            yield where, case.get("name"), verdict, text


def meson_suite(name, build, log):
    """Unit tests, transcripts and fuzz seeds: the single tests of each program."""
    result = Result()
    base = "kilat-" + name
    logs = ROOT / build / "meson-logs"
    for old in logs.glob(base + ".*"):
        old.unlink()
    code = run(["meson", "test", "-C", build, "--logbase", base, "--print-errorlogs"], log,
               show=r"^ *\d+/\d+ ")
    programs, cases = {}, {}
    try:
        for line in (logs / (base + ".json")).read_text().split("\n"):
            if line:
                program = json.loads(line)
                programs[program["name"].split(" / ")[-1]] = program
        for where, case, verdict, text in junit_cases(logs / (base + ".junit.xml")):
            cases.setdefault(where.split(".")[-1].split(" / ")[-1], []).append(
                (case, verdict, text))
    except (OSError, ValueError, ElementTree.ParseError) as error:
        result.add(name, "failed", f"no results: {error}, see {log}")
        return result
    for program, report in programs.items():
        mine = cases.get(program) or [(program, "passed", "")]
        good = report["result"] in ("OK", "SKIP")
        text = (report.get("stdout") or "")[-3000:] + (report.get("stderr") or "")[-3000:]
        for case, verdict, _ in mine:
            result.add(f"{program}: {case}", verdict, text)
        if not good and all(v != "failed" for _, v, _ in mine):
            result.add(program, "failed", f"{report['result']}\n{text}")
    if code != 0 and not result.failed:
        result.add(name, "failed", f"exit code {code}, see {log}")
    return result


NOTHING_SELECTED = 5        # pytest's exit code


def pytest_file(name, path, build, args):
    """One file of tests in a process of its own: its result."""
    result = Result()
    log, junit = (LOGS / f"{name}-{path.stem}.{end}" for end in ("log", "xml"))
    junit.unlink(missing_ok=True)
    code = run([PYTHON, "-m", "pytest", "-v", "--tb=short", "-p", "no:cacheprovider",
                f"--junitxml={junit}", "--durations=5", *args, str(path)], log,
               env={"KILAT_BUILD": build, "PYTHONDONTWRITEBYTECODE": "1"},
               show=r"::\S+ (PASSED|FAILED|ERROR|SKIPPED)")
    if code == NOTHING_SELECTED:
        return result
    try:
        for where, case, verdict, text in junit_cases(junit):
            result.add(f"{where.split('.')[-1]}::{case}", verdict, text)
    except (OSError, ElementTree.ParseError) as error:
        result.add(path.stem, "failed", f"no results: {error}, see {log}")
    if code != 0 and not result.failed:
        result.add(path.stem, "failed", f"exit code {code}, see {log}")
    return result


def pytest_suite(name, build, args):
    """As many files at once as there are cores, the longest first. Tests mostly wait."""
    result = Result()
    paths = sorted((ROOT / "tests/e2e").glob("test_*.py"), key=lambda p: -p.stat().st_size)
    with ThreadPoolExecutor(os.cpu_count() or 2) as pool:
        for one in pool.map(lambda path: pytest_file(name, path, build, args), paths):
            result.passed += one.passed
            result.failed += one.failed
            result.skipped += one.skipped
            result.failures += one.failures
    return result


SUITES = {
    "tidy": lambda name, log: tap_suite(name, [PYTHON, "tests/tidy/tidy.py"], log),
    "gate": lambda name, log: tap_suite(name, [PYTHON, "tests/gate/gate.py"], log),
    "unit": lambda name, log: meson_suite(name, "build-test", log),
    "unit-release": lambda name, log: meson_suite(name, "build", log),
    "e2e": lambda name, _: pytest_suite(name, "build-test", ["-m", "not release"]),
    "e2e-release": lambda name, _: pytest_suite(name, "build", ["-m", "not sanitized"]),
}


def main():
    names = sys.argv[1:] or list(SUITES)
    if names == ["-l"]:
        print("\n".join(SUITES))
        return 0
    unknown = [name for name in names if name not in SUITES]
    if unknown:
        print(f"no such suite: {' '.join(unknown)}; ./test -l lists them", file=sys.stderr)
        return 2
    LOGS.mkdir(parents=True, exist_ok=True)
    results, started = {}, time.monotonic()
    for name in names:
        began = time.monotonic()
        print(f"== {name}", flush=True)
        results[name] = result = SUITES[name](name, LOGS / f"{name}.log")
        print(f"== {name}: {result.passed} passed, {result.failed} failed, {result.skipped} "
              f"skipped in {time.monotonic() - began:.0f} s", flush=True)
    for name, result in results.items():
        for test, text in result.failures:
            print(f"\nFAILED {name} {test}\n" + "\n".join(text.strip().split("\n")[-40:]))
    passed = sum(r.passed for r in results.values())
    failed = sum(r.failed for r in results.values())
    print(f"\n{time.monotonic() - started:.0f} s, logs in build/logs")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
