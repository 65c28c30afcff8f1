#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""
tidy - the house rules that a program can check. Prints TAP: a line for each check, findings below.

    tests/tidy/tidy.py [--build FOLDER] [CHECK ...]

To add a check: a function that returns its findings as lines of text, decorated with @check.
"""
import argparse
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
LAYERS = ["core/base", "core/smtp", "core/relay", "queue", "io"]     # each may use those before it
COLUMNS_MAX = 100
COLUMNS_MAX_OTHER = 110     # of .lua and meson.build
P_ROWS = range(1, 259)      # rows of the protocol checklist
P_ROWS_SUBMISSION = [*range(1, 158), *range(252, 259)]      # ... of the server's side
CHECKS = []


def check(function):
    CHECKS.append(function)
    return function


def files(*patterns):
    """Files of the project by suffix: what git knows or would add; without git, all there is."""
    try:
        out = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard"],
                             cwd=ROOT, capture_output=True, text=True,
                             check=True).stdout.split("\n")
    except (OSError, subprocess.CalledProcessError):
        out = [str(p.relative_to(ROOT)) for p in ROOT.rglob("*")
               if not re.search(r"(^|/)(build[^/]*|\.git|__pycache__)/", str(p.relative_to(ROOT)))]
    return [p for p in sorted(set(out)) if p.endswith(patterns) and (ROOT / p).is_file()]


def read(path):
    return (ROOT / path).read_text(errors="replace")


def code_of(text):
    """C without comments and the insides of strings; line numbers stay."""
    def blank(found):
        s = found[0]
        if s.startswith("/"):
            return re.sub(r"[^\n]", " ", s)
        return s[0] + s[0]
    return re.sub(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', blank, text,
                  flags=re.S)


def line_of(text, at):
    return text.count("\n", 0, at) + 1


def layer_of(path):
    return next((layer for layer in LAYERS if path.startswith(layer + "/")), None)


@check
def layering():
    """Includes go by path from the root and only to the left."""
    bad = []
    for path in files(".c", ".h"):
        mine = layer_of(path)
        for number, line in enumerate(read(path).split("\n"), 1):
            found = re.match(r'\s*#\s*include\s+"([^"]+)"', line)
            if not found:
                continue
            theirs = layer_of(found[1])
            if not (ROOT / found[1]).is_file():
                bad.append(f"{path}:{number}: {found[1]} is no file, as a path from the root")
            elif mine and theirs is None:
                bad.append(f"{path}:{number}: {found[1]} is outside of the layers")
            elif mine and LAYERS.index(theirs) > LAYERS.index(mine):
                bad.append(f"{path}:{number}: {mine} uses {found[1]}, which stands right of it")
            elif mine and found[1].startswith("tests/"):
                bad.append(f"{path}:{number}: product code uses {found[1]}")
    return bad


@check
def dead_files():
    """Every .c is built, every .h included, every helper imported."""
    listed = "\n".join(f"{pathlib.PurePath(p).parent}\n{read(p)}" for p in files("meson.build"))
    includes, imports = set(), ""
    for path in files(".c", ".h"):
        includes.update(re.findall(r'#\s*include\s+"([^"]+)"', read(path)))
    for path in files(".py", "run", "test"):
        imports += read(path)
    bad = []
    for path in files(".c"):
        pure = pathlib.PurePath(path)
        names = (pure.name, pure.stem, pure.stem.removeprefix("fuzz_"))
        if path not in includes and not any(
                re.search(rf"['/]{re.escape(n)}'", listed) for n in names):
            bad.append(f"{path}: in no meson.build")
    bad += [f"{path}: included by nobody" for path in files(".h") if path not in includes]
    for path in files(".py"):
        if path.startswith("tests/lib/") and path != "tests/lib/__init__.py":
            stem = pathlib.PurePath(path).stem
            if not re.search(rf"lib\.{stem}\b|import {stem}\b|{stem}\.py", imports):
                bad.append(f"{path}: used by nobody")
    return bad


BANNED = {name: "unbounded" for name in
          "strcpy strcat sprintf vsprintf gets strtok alloca strncat".split()}
PURE_BANNED = {
    **{name: "a system call" for name in
       "read write readv writev recv recvmsg send sendto sendmsg socket bind listen accept accept4 "
       "connect open openat close fork execve waitpid kill ioctl fcntl poll epoll_wait select mmap "
       "munmap getenv sleep usleep nanosleep syscall getaddrinfo fopen fread fwrite fclose "
       "pthread_create".split()},
    **{name: "a clock" for name in "time gettimeofday clock_gettime localtime gmtime".split()},
    **{name: "chance" for name in "rand random srand getrandom getentropy RAND_bytes".split()},
    **{name: "printing" for name in "printf fprintf puts putchar fputs perror syslog".split()},
}
PURE_EXCEPT = {"core/base/must.c"}      # says why before it aborts


@check
def banned_calls():
    """No unbounded string calls; core/ and queue/ touch neither kernel nor clock nor chance."""
    bad = []
    for path in files(".c", ".h"):
        pure = path.startswith(("core/", "queue/")) and path not in PURE_EXCEPT
        names = {} if path.startswith("tests/") else BANNED
        names = {**names, **PURE_BANNED} if pure else names
        text = code_of(read(path))
        for found in re.finditer(r"(?<![\w.>])([A-Za-z_]\w*)\s*\(", text):
            if found[1] in names:
                bad.append(f"{path}:{line_of(text, found.start())}: {found[1]}() is "
                           f"{names[found[1]]}")
    return bad


@check
def documents():
    """docs/configuration.md and docs/metrics.md are what the tables say."""
    program = ROOT / OPTIONS.build / "tests/tables"
    if not program.is_file():
        return [f"{OPTIONS.build}/tests/tables is not built"]
    bad = []
    for name in ("configuration", "metrics"):
        path = f"docs/{name}.md"
        made = subprocess.run([str(program), name], capture_output=True, text=True, check=True)
        if not (ROOT / path).is_file() or read(path) != made.stdout:
            bad.append(f"{path}: differs; {OPTIONS.build}/tests/tables {name} > {path}")
    return bad


@check
def log_events():
    """docs/logs.md names exactly the events in the code."""
    rows = [line.split("|")[1] for line in read("docs/logs.md").split("\n")
            if line.startswith("| `")]
    documented = {name for row in rows for name in re.findall(r"`([a-z_.]+)`", row)}
    used, bad = {}, []
    for path in files(".c", ".h"):
        if not layer_of(path):
            continue
        for name in re.findall(r'"([a-z]+\.[a-z_]+)"', read(path)):
            if name.split(".")[0] in {d.split(".")[0] for d in documented}:
                used.setdefault(name, path)
    sources = {p for p in files(".c", ".h") if layer_of(p)}
    begun = {name for p in sources
             for name in re.findall(r'log_begin\([^;]*?"([a-z_.]+)"', read(p), re.S)}
    bad += [f"{name}: logged, not in docs/logs.md" for name in sorted(begun - documented)]
    bad += [f"{name}: in docs/logs.md, logged nowhere" for name in
            sorted(documented - begun - set(used))]
    return bad


@check
def format():
    """clang-format would change nothing."""
    paths = files(".c", ".h")
    done = subprocess.run(["clang-format", "--dry-run", "--Werror", *paths], cwd=ROOT,
                          capture_output=True, text=True)
    return sorted({line.split(": error")[0] for line in done.stderr.split("\n")
                   if ": error:" in line})


@check
def protocol_rows():
    """Cited rows of the protocol checklist exist."""
    bad = []
    for path in files(".c", ".h", ".py", ".md", ".txt", ".vtc"):
        text = read(path)
        for found in re.finditer(r"\bP-(\d+)\b", text):
            if int(found[1]) not in P_ROWS:
                bad.append(f"{path}:{line_of(text, found.start())}: {found[0]} is no row")
    return bad


@check
def submission_rows():
    """Every row of the server's side is cited by its number in a test: a range cites its ends."""
    cited = {int(n) for path in files(".c", ".h", ".py", ".txt")
             if path.startswith("tests/") for n in re.findall(r"\bP-(\d+)\b", read(path))}
    return [f"no test cites P-{n}" for n in P_ROWS_SUBMISSION if n not in cited]


@check
def settings():
    """Every setting is read by somebody: by its whole name, or in a listener, route or tenant."""
    code = "\n".join(read(p) for p in files(".c") if layer_of(p)
                     and ("base/config" not in p or p.endswith("/config_link.c")))
    rows = re.findall(r"\b(TOP|TOP_LIST|IN_\w+|\w+_LIST)\(([\w.]+)[,)]",
                      read("core/base/settings_table.h").split("#define SETTINGS_TABLE", 1)[1])
    return [f"nobody reads {name}" for _, name in rows
            if not re.search(rf"->{re.escape(name)}\b", code)]


SOURCES = (".c", ".h", ".py", ".lua", ".sh", "meson.build", "/run", "/setup.sh", "packages")


@check
def columns():
    """No line of code over 100 columns."""
    bad = []
    for path in files(*SOURCES) + ["run", "test"]:
        most = COLUMNS_MAX_OTHER if path.endswith((".lua", "meson.build")) else COLUMNS_MAX
        bad += [f"{path}:{number}: {len(line)} columns"
                for number, line in enumerate(read(path).split("\n"), 1) if len(line) > most]
    return bad


@check
def licence():
    """Every source names its licence."""
    paths = files(".c", ".h", ".py", ".lua", ".sh", "run", "test")
    return [f"{path}: no SPDX line" for path in paths
            if "SPDX-License-Identifier: Apache-2.0" not in read(path)[:400]
            and (ROOT / path).stat().st_size > 0]


@check
def machine_paths():
    """Nothing names a place on somebody's machine."""
    where = re.compile(r"(?<![\w.])/(?:work|root|home/\w+)/|(?<!\w)\.\./shared\b")
    bad = []
    for path in files(".c", ".h", ".py", ".md", ".lua", ".sh", "meson.build", "run", "test"):
        if path == "tests/tidy/tidy.py":
            continue
        text = read(path)
        bad += [f"{path}:{line_of(text, f.start())}: {f[0]}" for f in where.finditer(text)]
    return bad


@check
def unfinished():
    """No notes to self."""
    note = re.compile(r"\b(TO" r"DO|FIX" r"ME|X" r"XX|HACK" r"ME)\b")
    return [f"{path}:{line_of(text, f.start())}: {f[0]}"
            for path in files(".c", ".h", ".py", ".lua", ".md", "meson.build")
            for text in [read(path)] for f in note.finditer(text)]


def main():
    print(f"1..{len(CHECKS)}")
    failed = 0
    for number, function in enumerate(CHECKS, 1):
        name = function.__name__
        if OPTIONS.checks and name not in OPTIONS.checks:
            print(f"ok {number} - {name} # SKIP not asked for")
            continue
        findings = function()
        failed += bool(findings)
        print(f"{'not ok' if findings else 'ok'} {number} - {name}: {function.__doc__}")
        for line in findings[:50]:
            print(f"#   {line}")
        if len(findings) > 50:
            print(f"#   and {len(findings) - 50} more")
    return 1 if failed else 0


PARSER = argparse.ArgumentParser(description="Checks the house rules.")
PARSER.add_argument("--build", default="build-test", help="where tests/tables was built")
PARSER.add_argument("checks", nargs="*", metavar="CHECK")
OPTIONS = PARSER.parse_args()

if __name__ == "__main__":
    sys.exit(main())
