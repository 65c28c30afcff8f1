# SPDX-License-Identifier: Apache-2.0
"""The clients people use whose packages are small; all of them: tests/clients/run."""
import pytest

from clients.scene import Scene
from clients.table import CLIENTS


@pytest.fixture(scope="module")
def scene(module_folder):
    with Scene(module_folder) as s:
        yield s


@pytest.mark.parametrize("mode", ["starttls", "implicit"])
@pytest.mark.parametrize("client", [c for c in CLIENTS if c.small], ids=lambda c: c.name)
def test_client(scene, client, mode):
    scene.send(client, mode)
