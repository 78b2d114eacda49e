"""Damaged files give a typed error or a cloud: no crash, no hang, no flood of memory."""

import io as streams
import re
import signal
import struct
import tracemalloc
import warnings
from functools import cache

import numpy as np
import pytest
import trimesh
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from plyfile import PlyData

from pointzoo import io
from pointzoo.cloud import PointCloud
from pointzoo.errors import PointzooError

SECONDS = 30  # generous: the machine may be busy, a hang lasts longer
LARGEST = 64 << 20  # bytes; every seed is smaller than 8 kB

SEEDS = (
    *("a.csv", "a.las", "a.laz", "a.npy", "a.npz", "a.pcd", "a.ply", "a.pts", "a.xyz"),
    *("ascii.pcd", "ascii.ply", "big.ply", "compressed.pcd", "table.npy"),
    *("mesh.glb", "mesh.obj", "mesh.off", "mesh.stl", "ascii.stl"),
)
NUMBERS = (b"1152921504606846976", b"4294967295", b"999999999", b"-1", b"0", b"nan", b"1e400")
WORDS = tuple(struct.pack("<Q", n) for n in (2**60, 2**40, 2**32 - 1, 2**31, 2**64 - 1, 0))


def small_cloud():
    rng = np.random.default_rng(0)
    return PointCloud(
        coords=rng.normal(size=(20, 3)).round(3),
        colors=rng.integers(0, 256, (20, 3)).astype(np.uint8),
        normals=rng.normal(size=(20, 3)),
        labels=rng.integers(1, 9, 20),
        fields={"intensity": rng.integers(0, 99, 20).astype(np.uint16)},
    )


@cache
def seed(name, folder):
    """Bytes of a valid file."""
    cloud, path = small_cloud(), folder / name
    kind = path.suffix
    if path.stem in ("mesh", "ascii") and kind in io.MESH_ENDINGS:
        mesh = trimesh.creation.box()
        mesh.visual.vertex_colors = np.arange(32, dtype=np.uint8).reshape(8, 4)
        ascii_stl = {"file_type": "stl_ascii"} if name == "ascii.stl" else {}
        mesh.export(path, **ascii_stl)
    elif name == "a.npy":
        io.write(path, PointCloud(cloud.coords))
    elif name == "table.npy":
        np.save(path, np.column_stack([cloud.coords, cloud.colors]))
    elif name == "a.pts":
        rows = [" ".join(map(str, [*row, 7, 1, 2, 255])) for row in cloud.coords]
        path.write_text("20\n" + "\n".join(rows))
    elif name in ("ascii.ply", "big.ply"):
        io.write(path, cloud)
        layout = {"text": True} if name == "ascii.ply" else {"byte_order": ">"}
        PlyData(PlyData.read(str(path), mmap=False).elements, **layout).write(str(path))
    elif name in ("ascii.pcd", "compressed.pcd"):
        path.write_bytes(pcd(cloud, name.removesuffix(".pcd")))
    else:
        wide = {"pair": np.ones((20, 2), np.float32)} if kind in (".ply", ".pcd", ".las") else {}
        io.write(path, cloud.replace(fields={**cloud.fields, **wide}))
    return path.read_bytes()


def pcd(cloud, layout):
    data = "ascii" if layout == "ascii" else "binary_compressed"
    head = (
        "VERSION .7\nFIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nCOUNT 1 1 1\nWIDTH 20\nHEIGHT 1\n"
        f"VIEWPOINT 0 0 0 1 0 0 0\nPOINTS 20\nDATA {data}\n"
    ).encode()
    if layout == "ascii":
        text = streams.StringIO()
        np.savetxt(text, cloud.coords)
        return head + text.getvalue().encode()
    column = cloud.coords[:, 0].astype("<f4").tobytes()  # 80 bytes: literals; then twice itself
    runs = b"\x1f" + column[:32] + b"\x1f" + column[32:64] + b"\x0f" + column[64:]
    back = bytes([7 << 5, 80 - 9, 79])
    return head + struct.pack("<II", len(runs) + 6, 240) + runs + back + back


@st.composite
def damage(draw):
    """A function that damages bytes."""
    place = st.floats(0, 1, exclude_max=True)
    steps = draw(
        st.lists(
            st.one_of(
                st.tuples(st.just("cut"), place, st.none()),
                st.tuples(st.just("set"), place, st.binary(min_size=1, max_size=4)),
                st.tuples(st.just("add"), place, st.binary(min_size=1, max_size=9)),
                st.tuples(st.just("drop"), place, st.integers(1, 20)),
                st.tuples(st.just("number"), place, st.sampled_from(NUMBERS)),
                st.tuples(st.just("word"), place, st.sampled_from(WORDS)),
            ),
            min_size=1,
            max_size=4,
        )
    )

    def apply(data, near_start):
        for step, where, what in steps:
            span = min(len(data), 400) if near_start and step != "cut" else len(data)
            i = int(where * span)
            if step == "cut":
                data = data[:i]
            elif step == "add":
                data = data[:i] + what + data[i:]
            elif step == "drop":
                data = data[:i] + data[i + what :]
            elif step == "number":
                found = list(re.finditer(rb"\d+", data[:500]))
                if found:
                    match = found[int(where * len(found))]
                    data = data[: match.start()] + what + data[match.end() :]
            else:
                data = data[:i] + what + data[i + len(what) :]
        return data

    return apply


class HangError(BaseException):
    """Raised by the alarm; no handler of errors may swallow it."""


def ring(_signal, _frame):
    raise HangError


@pytest.mark.parametrize("name", SEEDS)
def test_seeds_are_valid(tmp_path, name):
    (tmp_path / "work").mkdir()
    path = tmp_path / name
    path.write_bytes(seed(name, tmp_path / "work"))
    assert len(io.read(path, points=20)) == 20


@pytest.mark.parametrize("name", SEEDS)
def test_damaged_files(tmp_path_factory, name):
    folder = tmp_path_factory.mktemp("fuzz")
    data = seed(name, folder)
    path = folder / f"damaged{name[name.rindex('.') :]}"

    @settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
    @given(damage(), st.booleans())
    def run(apply, near_start):
        path.write_bytes(apply(data, near_start))
        tracemalloc.reset_peak()
        signal.alarm(SECONDS)
        try:
            assert isinstance(io.read(path, points=20), PointCloud)
        except (PointzooError, OSError):
            pass
        finally:
            signal.alarm(0)
        assert tracemalloc.get_traced_memory()[1] < LARGEST

    previous = signal.signal(signal.SIGALRM, ring)
    tracemalloc.start()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # a parser's half-open file
            run()
    finally:
        tracemalloc.stop()
        signal.signal(signal.SIGALRM, previous)
