# SPDX-License-Identifier: Apache-2.0
"""The kill test in short; in full: tests/e2e/kill_test.py."""
import os

import kill_test


def test_no_250_is_taken_back(folder):
    build = os.environ.get("KILAT_BUILD", "build-test")
    options = kill_test.parse(["--gateway", "3", "--redis", "3", "--both", "2", "--sessions", "100",
                               "--build", build])
    print(f"seed {options.seed}")
    found = kill_test.run(options, folder)
    print({k: v for k, v in found.items() if k not in ("lost", "unexplained")})
    assert kill_test.verdict(found, 8) is None
