#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""
compare_tls - Kilat and Postfix side by side over TLS: the same clients (tls-source), the same
P-256 certificate, the same disk, one core for the server's processes and the other for the clients.

    ./test tidy; bench/compare_tls.py [--repeat 3] [--json FILE]

Needs what bench/compare_postfix.py needs, and the packages gcc, libssl-dev and openssl: the
clients are a program on OpenSSL, built here, whose side of a handshake is cheaper than the
server's.

    full        connect, EHLO, STARTTLS, full handshake, EHLO, QUIT
    resumed     the same with the session ticket of the client's last connection
    one         a 10 KiB message on each connection, STARTTLS, session resumed: 250 after an fsync
    kept        100 messages on each connection
TLS 1.3, but for "1.2", where no key exchange is left to be done in a resumed handshake. For bare
handshakes Kilat gets a share of its core only (SCENARIOS), since one core of clients could not
keep a whole one busy; its rate is given as of a whole core, divided by that share. Beside them
the limit: what BoringSSL's server side reaches in memory on one core, for full and for resumed
handshakes (bench/handshake_limit.c).
"""
import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import time

import compare_postfix as base
from compare_postfix import KilatSystem, PostfixSystem, ROOT

sys.path.insert(0, str(ROOT / "tests"))
from lib.kilat import HOLD, Kilat  # noqa: E402

TOOLS = ROOT / "build/tools/bin"
CLIENTS = 100
# name: connections for Kilat and for Postfix, messages on each, share of a core, more options
SCENARIOS = {
    "full": ((10_000, 3_000), 0, 0.4, []),
    "resumed": ((20_000, 3_000), 0, 0.4, ["-r"]),
    "resumed 1.2": ((30_000, 5_000), 0, 0.4, ["-r", "-2"]),
    "one": ((30_000, 5_000), 1, 1, ["-r"]),
    "one 1.2": ((30_000, 5_000), 1, 1, ["-r", "-2"]),
    "kept": ((500, 100), 100, 1, []),
}


def build_tools():
    TOOLS.mkdir(parents=True, exist_ok=True)
    android = "/usr/lib/x86_64-linux-gnu/android"
    for name, flags in (
            ("tls_source", ["-lssl", "-lcrypto"]),
            ("handshake_limit", ["-isystem", "/usr/include/android", f"-L{android}",
                                 f"-Wl,-rpath,{android}", "-lssl", "-lcrypto"])):
        subprocess.run(["gcc", "-O2", "-D_GNU_SOURCE", str(ROOT / f"bench/{name}.c"), "-o",
                        str(TOOLS / name), *flags], check=True)


def make_certificate(folder):
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                    "ec_paramgen_curve:P-256", "-nodes", "-keyout", str(folder / "key.pem"),
                    "-out", str(folder / "cert.pem"), "-days", "30", "-subj", "/CN=bench.test",
                    "-addext", "subjectAltName=DNS:bench.test"], check=True, capture_output=True)
    return folder / "cert.pem", folder / "key.pem"


class KilatTls(KilatSystem):
    def __init__(self, folder, certificate, key):
        self.kilat = Kilat(folder, build=base.OPTIONS.build, workers=1, route={"*": HOLD},
                           wrap=["taskset", "-c", "0"], queue={"lease": "5s"},
                           listener={"trusted": {"bind": ["127.0.0.1:0"], "tls": "starttls",
                                                 "auth": "off", "networks": ["127.0.0.0/8"]}},
                           tls={"certificate": str(certificate), "private_key": str(key)},
                           log={"format": "plain"})


TLS_CF = """
smtpd_tls_security_level = may
smtpd_tls_cert_file = {certificate}
smtpd_tls_key_file = {key}
smtpd_tls_session_cache_database = btree:$data_directory/smtpd_scache
tls_random_source = dev:/dev/urandom
smtpd_client_new_tls_session_rate_limit = 0
"""


class PostfixTls(PostfixSystem):
    def __init__(self, folder, certificate, key):
        super().__init__(folder, "accept", 9)
        with open(folder / "main.cf", "a") as main:
            main.write(TLS_CF.format(certificate=certificate, key=key))
        with open(folder / "master.cf", "a") as master:
            master.write("tlsmgr unix - - n 1000? 1 tlsmgr\n")


SYSTEMS = [KilatTls, PostfixTls]


def drive(port, connections, messages, options):
    run = subprocess.run(["taskset", "-c", "1", str(TOOLS / "tls_source"), "-s", str(CLIENTS),
                          "-c", str(connections), "-m", str(messages), "-l", "10240", *options,
                          f"127.0.0.1:{port}"], capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def measure(system_class, scenario, folder, certificate, key):
    counts, messages, share, options = SCENARIOS[scenario]
    share = share if system_class is KilatTls else 1
    connections = counts[SYSTEMS.index(system_class)]
    group = base.Cgroup(system_class.name.lower())
    os.sync()       # what the last one left to the disk is not this one's
    time.sleep(1)
    system = system_class(folder, certificate, key)
    if share < 1:
        assert group and group.limit(share), "this needs cgroups with CPU quotas"
    try:
        if group:
            base.start_inside(group, system)
        else:
            system.start()
        drive(system.port, max(200, connections // 10), messages, options)
        spent = group.seconds() if group else base.tree_seconds(system.pid)
        found = drive(system.port, connections, messages, options)
        spent = (group.seconds() if group else base.tree_seconds(system.pid)) - spent
        if "-r" in options:
            assert found["resumed"] >= connections - CLIENTS, found
        else:
            assert found["resumed"] == 0, found
        done = found["messages"] or found["connections"]
        return {"rate": done / found["seconds"] / share, "cpu": spent / done * 1000,
                "busy": spent / found["seconds"] / share}
    finally:
        system.stop()
        if group:
            group.remove()


def parse():
    parser = argparse.ArgumentParser(
        description="Kilat and Postfix over TLS; see the top of this file.")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--only", help="scenarios such as \"full,kept\"")
    parser.add_argument("--build", default="build")
    parser.add_argument("--dir", type=pathlib.Path, default=ROOT / "build/bench")
    parser.add_argument("--json", type=pathlib.Path, help="every single measurement")
    return parser.parse_args()


def main():
    options = base.OPTIONS = parse()
    folder = options.dir / time.strftime("tls-%Y%m%d-%H%M%S")
    folder.mkdir(parents=True)
    where = base.folders(folder)
    wanted = options.only.split(",") if options.only else list(SCENARIOS)
    results = {}
    try:
        build_tools()
        PostfixSystem.prepare()
        certificate, key = make_certificate(folder)
        limit = json.loads(subprocess.run(["taskset", "-c", "0", str(TOOLS / "handshake_limit"),
                                           str(certificate), str(key)], check=True,
                                          capture_output=True, text=True).stdout)
        for number in range(options.repeat):
            for scenario in wanted:
                for system in (SYSTEMS if number % 2 == 0 else SYSTEMS[::-1]):
                    found = measure(system, scenario, next(where), certificate, key)
                    results.setdefault(scenario, {}).setdefault(system.name, []).append(found)
                    print(f"{number + 1}/{options.repeat} {scenario:11} {system.name:8} "
                          f"{found['rate']:9,.0f}/s  {found['cpu']:.3f} CPU s per 1,000  "
                          f"busy {found['busy']:.0%}", file=sys.stderr, flush=True)
        print(table(results, limit))
        if options.json:
            options.json.write_text(json.dumps({"limit": limit, "results": results}, indent=1))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


def table(results, limit):
    rows = ["| scenario | Kilat/s | Postfix/s | ratio | Kilat CPU s per 1,000 | "
            "Postfix CPU s per 1,000 | ratio | busy K/P |", "|---|---|---|---|---|---|---|---|"]
    for scenario, found in results.items():
        k, p = ({name: statistics.median(f[name] for f in found[s.name])
                 for name in ("rate", "cpu", "busy")} for s in SYSTEMS)
        rows.append(f"| {scenario} | {k['rate']:,.0f} | {p['rate']:,.0f} | "
                    f"{k['rate'] / p['rate']:.1f} | {k['cpu']:.3f} | {p['cpu']:.3f} | "
                    f"{p['cpu'] / k['cpu']:.1f} | {k['busy']:.0%} / {p['busy']:.0%} |")
    rows.append("")
    for scenario, key in (("full", "full_per_core"), ("resumed", "resumed_per_core")):
        if scenario in results:
            k = statistics.median(f["rate"] for f in results[scenario]["Kilat"])
            rows.append(f"BoringSSL's server side alone, {scenario}: {limit[key]:,}/s a core; the "
                        f"whole gateway reaches {k / limit[key]:.0%} of it.")
    return "\n".join(rows)


if __name__ == "__main__":
    sys.exit(main())
