"""A process that uses bundled weights alone never asks for the network."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import socket, sys
asked = []

def refuse(*words, **_):
    asked.append(words)
    raise OSError("there is no network")

class Blocked(socket.socket):
    def __new__(cls, *words, **options):
        refuse("socket", words)

for name in ("create_connection", "getaddrinfo", "gethostbyname", "create_server", "socketpair"):
    setattr(socket, name, refuse)
socket.socket = Blocked

import numpy as np
import pointzoo as pz

names = pz.list_encoders(pretrained=True, runs_here=True)
assert len(names) >= 4, names
assert pz.list_encoders(commercial=True)
rng = np.random.default_rng(0)
cloud = pz.PointCloud(rng.normal(size=(300, 3)), colors=rng.random((300, 3)))
for name in names:
    encoder = pz.load_encoder(name)
    assert pz.encoder_info(name).card is not None
    assert pz.extract(encoder, cloud).point.shape[0] == 300
    made = pz.few_shot(name, cloud, [0, 1, 2, 3], ["a", "b", "a", "b"])
    folder = made.save(f"{sys.argv[1]}/{name}")
    assert (pz.load_model(folder).predict(cloud).labels == made.labels).all()
    pz.save_encoder(encoder, f"{sys.argv[1]}/encoder")
    pz.load_encoder(f"{sys.argv[1]}/encoder")
assert not asked, asked
for package in ("huggingface_hub", "httpx", "httpx2", "requests"):
    assert package not in sys.modules, package
"""


def test_bundled_weights_need_no_network(tmp_path: Path):
    env = {**os.environ, "OMP_NUM_THREADS": "1", "HF_ENDPOINT": "http://127.0.0.1:9"}
    env["HF_HOME"] = str(tmp_path / "home")
    command = [sys.executable, "-W", "error", "-c", SCRIPT, str(tmp_path)]
    result = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert not (tmp_path / "home").exists()
