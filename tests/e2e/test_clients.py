# SPDX-License-Identifier: Apache-2.0
"""The clients people use whose packages are small; all of them: tests/clients/run."""
import pytest

from clients.scene import MODES, Scene
from clients.table import CLIENTS

each_client = pytest.mark.parametrize("client", [c for c in CLIENTS if c.small],
                                      ids=lambda c: c.name)
each_mode = pytest.mark.parametrize("mode", MODES)


@pytest.fixture(scope="module")
def scene(module_folder):
    with Scene(module_folder) as s:
        yield s


@each_mode
@each_client
def test_client(scene, client, mode):
    scene.send(client, mode)


@each_mode
@each_client
def test_strange_certificate(scene, client, mode):
    scene.refuses_certificate(client, mode)


@each_client
def test_wrong_password(scene, client):
    scene.reports_password(client, "starttls")


@pytest.mark.parametrize("client", [c for c in CLIENTS if c.small and c.sets_fields],
                         ids=lambda c: c.name)
def test_sent_again(scene, client):
    scene.sends_once(client, "starttls")
    scene.sends_once_in_parts(client, "starttls")


def test_each_came_once(scene):
    scene.finish()
