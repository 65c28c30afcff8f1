# SPDX-License-Identifier: Apache-2.0
"""
conftest - what every end-to-end test gets: a folder of its own with a short path (Unix sockets have
107 octets), and a gateway that is stopped and judged at the end (lib/kilat.py).
"""
import pathlib
import shutil
import signal
import sys
import tempfile

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from lib.kilat import Kilat, smarthost  # noqa: E402
from lib.mx import Mx  # noqa: E402

TEST_S = 240


def pytest_configure(config):
    config.addinivalue_line("markers", "release: measures; only on the build that ships")
    config.addinivalue_line("markers", "sanitized: only on the build with sanitizers")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call(item):
    """No test may hang: after TEST_S seconds it fails where it stands."""
    def too_long(*_):
        raise AssertionError(f"the test took more than {TEST_S} s")
    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(TEST_S)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    item.failed_at = getattr(item, "failed_at", None) or (call.when if outcome.get_result().failed
                                                          else None)


@pytest.fixture
def folder(request):
    """Removed when the test has passed."""
    path = pathlib.Path(tempfile.mkdtemp(prefix="kilat-e2e."))
    yield path
    if getattr(request.node, "failed_at", None):
        print(f"kept: {path}")
    else:
        shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="module")
def module_folder():
    path = pathlib.Path(tempfile.mkdtemp(prefix="kilat-e2e."))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def gateways(folder):
    """Makes started gateways: gateways(route={...}); each is stopped and judged at the end."""
    made = []

    def make(name="k", start=True, **changes):
        kilat = Kilat(folder / name, **changes)
        made.append(kilat)
        return kilat.start() if start else kilat
    yield make
    error = None
    for kilat in made:
        if kilat.process is None:
            continue
        try:
            kilat.__exit__(None, None, None)
        except AssertionError as failure:
            print(f"--- {kilat.log_path}\n{kilat.tail()}")
            error = error or failure
    if error:
        raise error


@pytest.fixture
def mx():
    with Mx() as host:
        yield host
        assert host.violations == []


@pytest.fixture
def relaying(gateways, mx):
    """A gateway whose mail for rcpt.test goes to mx, and everything else (bounces) to mx.home."""
    with Mx(name="home.test") as home:
        mx.home = home
        yield gateways(route={"rcpt.test": smarthost(mx.port), "*": smarthost(home.port)},
                       relay={"reply_timeout": "2s"})
        assert home.violations == []
