"""The Infinigen driver, against fake workers that speak its protocol."""

import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from pointzoo.data.builders import build_infinigen
from pointzoo.data.builders.infinigen import assemble, generate, plan
from pointzoo.data.builders.infinigen_factories import FACTORIES, Factory
from pointzoo.data.corpus import read_corpus, read_manifest
from pointzoo.errors import ConfigError, FormatError

PYTHON = Path(sys.executable)
TOYS = (Factory("seating.chair", "Chair", 2), Factory("lamp", "Lamp"))

# Without numpy, whose import would be most of the time of these tests.
PREAMBLE = """
import array, json, os, random, sys, time, zipfile

assert "PYTHONHASHSEED" in os.environ and os.environ["OMP_NUM_THREADS"] == "1"
assert sys.argv[1:] == sorted(sys.argv[1:])

def say(**answer):
    print(json.dumps(answer), flush=True)

def npy(kind, shape, data):
    header = str({"descr": kind, "fortran_order": False, "shape": shape}).ljust(117) + chr(10)
    return bytes([147]) + b"NUMPY" + bytes([1, 0, 118, 0]) + header.encode() + data

def mesh(job, scale=1.0):
    numbers = random.Random(job["seed"])
    corners = array.array("f", [numbers.random() * scale for _ in range(180)])
    with zipfile.ZipFile(job["out"], "w") as out:
        out.writestr("triangles.npy", npy("<f4", (20, 3, 3), corners.tobytes()))
        out.writestr("colors.npy", npy("|u1", (20, 3), bytes([job["seed"] % 256] * 60)))
    say(ok=True, seconds=0.1)
"""
READY = 'say(ready=True, bpy="4.2", infinigen="1.15")\n'
LOOP = """for line in sys.stdin:
    job = json.loads(line)
    lamp = job["factory"] == "LampFactory"
"""


def worker(tmp_path, body, ready=READY):
    script = tmp_path / "worker.py"
    script.write_text(PREAMBLE + ready + LOOP + textwrap.indent(body, "    "))
    return script


def build(tmp_path, script, out="out", **options):
    options = {"rounds": 2, "factories": TOYS, "progress": False, "worker": script, **options}
    return build_infinigen(PYTHON, tmp_path / out, **options)


def reasons(path):
    return {skip.name: skip.reason for skip in read_manifest(path).skipped}


def test_every_round_is_balanced_and_seeds_differ():
    jobs = plan(2, TOYS)
    names = [job.name for job in jobs]
    assert names == [
        "Chair/00000",
        "Chair/00001",
        "Lamp/00000",
        "Chair/00002",
        "Chair/00003",
        "Lamp/00001",
    ]
    assert len({job.seed for job in jobs}) == 6
    assert plan(1, TOYS) == jobs[:3]


def test_the_table_of_factories_is_sound():
    names = [factory.name for factory in FACTORIES]
    assert len(names) == len(set(names)) >= 60
    assert all(factory.share in {1, 2} for factory in FACTORIES)


def test_build_makes_every_object_and_says_how(tmp_path):
    out = build(tmp_path, worker(tmp_path, "mesh(job)"), workers=2)
    data, manifest = read_corpus(out), read_manifest(out)
    assert data.names == tuple(sorted(job.name for job in plan(2, TOYS)))
    assert data.class_names == ("Chair", "Lamp")
    assert np.asarray(data.labels).tolist() == [0, 0, 0, 0, 1, 1]
    assert manifest.header.versions == {"infinigen": "infinigen 1.15, bpy 4.2"}
    assert manifest.header.command.endswith("--rounds 2")
    seed = plan(1, TOYS)[0].seed
    assert manifest.records[0].source.endswith(
        f"infinigen.assets.objects.seating.chair.ChairFactory(seed={seed})"
    )
    assert (np.asarray(data.colors[0]) == seed % 256).all()
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["out"]


def test_same_seeds_give_the_same_bytes_whatever_the_order(tmp_path):
    script = worker(tmp_path, "mesh(job)")
    first = build(tmp_path, script, "a", workers=1)
    second = build(tmp_path, script, "b", workers=3)
    for file in first.iterdir():
        assert file.read_bytes() == (second / file.name).read_bytes()


def test_an_object_that_fails_is_skipped_with_its_reason(tmp_path):
    body = "say(ok=False, error='no lamp today') if lamp else mesh(job)"
    out = build(tmp_path, worker(tmp_path, body))
    assert reasons(out) == dict.fromkeys(["Lamp/00000", "Lamp/00001"], "no lamp today")
    assert len(read_corpus(out)) == 4


def test_a_worker_that_dies_is_replaced(tmp_path):
    out = build(tmp_path, worker(tmp_path, "os._exit(1) if lamp else mesh(job)"))
    assert set(reasons(out).values()) == {"the worker process died"}
    assert len(read_corpus(out)) == 4


def test_a_worker_that_hangs_is_killed_with_its_children(tmp_path):
    # The child that hangs holds the answers open, as a forked Blender would.
    body = """
    if not lamp:
        mesh(job)
    elif os.fork() == 0:
        time.sleep(600)
    else:
        time.sleep(600)
    """
    start = time.monotonic()
    out = build(tmp_path, worker(tmp_path, textwrap.dedent(body)), limit_s=3.0, rounds=1)
    assert time.monotonic() - start < 60
    assert reasons(out) == {"Lamp/00000": "took longer than the time limit"}
    assert threading.active_count() < 10


def test_a_worker_that_babbles_is_replaced(tmp_path):
    out = build(
        tmp_path, worker(tmp_path, "print('Blender quit', flush=True) if lamp else mesh(job)")
    )
    assert set(reasons(out).values()) == {"the worker process died"}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("mesh(job, 1e4) if lamp else mesh(job)", "m across"),
        ("mesh(job, 0.0) if lamp else mesh(job)", "area"),
    ],
)
def test_meshes_that_are_not_fit_are_skipped(tmp_path, body, reason):
    found = reasons(build(tmp_path, worker(tmp_path, body)))
    assert set(found) == {"Lamp/00000", "Lamp/00001"}
    assert all(reason in text for text in found.values())


def test_a_stopped_build_goes_on_where_it_was(tmp_path):
    work = tmp_path / "work"
    body = "open(os.path.join(WHERE, 'log'), 'a').write(job['factory'] + ' '); mesh(job)"
    script = worker(tmp_path, body.replace("WHERE", repr(str(tmp_path))))
    jobs = plan(2, TOYS)
    generate(PYTHON, jobs[:3], work, progress=False, worker=script)
    out = build(tmp_path, script, work=work)
    assert len((tmp_path / "log").read_text().split()) == 6
    assert len(read_corpus(out)) == 6
    build(tmp_path, script, work=work, progress=True)
    assert len((tmp_path / "log").read_text().split()) == 6


def test_a_damaged_kept_object_is_a_typed_error(tmp_path):
    script, jobs, work = worker(tmp_path, "mesh(job)"), plan(1, TOYS), tmp_path / "work"
    generate(PYTHON, jobs, work, progress=False, worker=script)
    jobs[0].path(work).write_bytes(b"PK")
    with pytest.raises(FormatError, match=r"00000\.npz"):
        assemble(jobs, work, tmp_path / "out", command="x")


def test_nothing_made_is_a_typed_error(tmp_path):
    with pytest.raises(ConfigError, match="none"):
        build(tmp_path, worker(tmp_path, "say(ok=False, error='no')"))


def test_an_interpreter_that_cannot_run_it_is_a_typed_error(tmp_path):
    with pytest.raises(ConfigError, match="bpy"):
        build(tmp_path, worker(tmp_path, "mesh(job)", ready="sys.exit('no module named bpy')\n"))
    with pytest.raises(ConfigError, match=r"corpora\.md"):
        build_infinigen(
            tmp_path / "no-python", tmp_path / "out", rounds=1, factories=TOYS, progress=False
        )


def test_a_hang_that_does_not_come_again_costs_nothing(tmp_path):
    body = """
    mark = os.path.join(WHERE, "hung")
    if lamp and not os.path.exists(mark):
        open(mark, "w").close()
        time.sleep(600)
    mesh(job)
    """.replace("WHERE", repr(str(tmp_path)))
    out = build(tmp_path, worker(tmp_path, textwrap.dedent(body)), limit_s=3.0)
    assert len(read_corpus(out)) == 6


def test_every_process_finds_an_empty_home_of_the_same_name(tmp_path):
    body = """
    fresh = not os.listdir(os.environ["HOME"]) and os.environ["HOME"] == "."
    open("settings", "w").close()
    if lamp:
        os._exit(1)
    mesh(job) if fresh else say(ok=False, error="used home")
    """
    jobs = (TOYS[1], TOYS[0]._replace(share=1))
    out = build(tmp_path, worker(tmp_path, textwrap.dedent(body)), factories=jobs)
    assert read_corpus(out).names == ("Chair/00000", "Chair/00001")


def test_library_path_is_handed_on(tmp_path, monkeypatch):
    monkeypatch.setenv("LD_LIBRARY_PATH", "/opt/somewhere")
    body = "mesh(job) if os.environ.get('LD_LIBRARY_PATH') == '/opt/somewhere' else os._exit(1)"
    assert len(read_corpus(build(tmp_path, worker(tmp_path, body)))) == 6
