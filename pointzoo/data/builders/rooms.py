"""Builds labelled rooms: composed of free furniture, scanned from a walk inside.

Furniture comes from the libraries of Sweet Home 3D under CC0 and CC-BY (Debian package
``sweethome3d-furniture``), walls, floors, cloth, books and pictures are drawn by rule. A room
depends on the seed, its name and the furniture, on nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from pointzoo.data.builders.rooms_pieces import Furniture, load_furniture
from pointzoo.data.builders.rooms_plan import Plan
from pointzoo.data.builders.rooms_programs import furnish
from pointzoo.data.builders.rooms_scan import Scene, Sensor, pixel_rays, scan
from pointzoo.data.builders.rooms_shell import build_shell, cut_openings
from pointzoo.data.builders.rooms_walk import walk
from pointzoo.data.builders.sampling import named_generator
from pointzoo.data.rooms import Frames, Room, RoomRecord, RoomsHeader, write_rooms

Floats = NDArray[np.float64]

_KINDS = (
    ("living", 0.22), ("bedroom", 0.2), ("kitchen", 0.14), ("bathroom", 0.14), ("office", 0.11),
    ("dining", 0.05), ("children", 0.04), ("classroom", 0.04), ("lounge", 0.04), ("store", 0.02),
)  # fmt: skip
_SIDES = {
    "bathroom": (1.7, 3.0), "kitchen": (2.2, 3.8), "classroom": (3.8, 5.6), "store": (2.0, 3.4),
    "bedroom": (2.5, 3.9), "children": (2.4, 3.7),
}  # fmt: skip
FRAME_SENSOR = Sensor(width=240, height=180, noise=(0.001, 0.0014))
"""The camera of the RGB-D frames."""
FRAMES_A_TURN = 18
"""So that frames that follow each other overlap."""


def build_rooms(
    sources: Sequence[Path],
    out: Path,
    *,
    train: int = 300,
    test: int = 60,
    seed: int = 0,
    frames: int = 0,
    sensor: Sensor | None = None,
    progress: bool = True,
) -> Path:
    """Write a folder of composed rooms.

    Args:
        sources: ``.sh3f`` files, or folders that hold some at any depth.
        out: The folder to write.
        train: Rooms of the training furniture.
        test: Rooms of furniture that no training room holds.
        seed: Another seed gives other rooms.
        frames: RGB-D frames to keep of each room; 0: none.
        sensor: The scanner; None: the usual one.
        progress: Show a progress bar on standard error.

    Returns:
        The folder.

    Raises:
        ConfigError: No library under a free licence is in ``sources``, or no room is asked for.
        FormatError: A library is malformed.
        MissingExtraError: trimesh, Pillow or embreex is not installed.
    """
    furniture = load_furniture(sources, progress=progress)
    kept: dict[str, Frames] = {}
    names = [f"train_{i:04d}" for i in range(train)] + [f"test_{i:04d}" for i in range(test)]

    def make() -> Iterator[Room]:
        for name in track(names, "rooms", disable=not progress):
            room, images = build_room(furniture, name, seed=seed, frames=frames, sensor=sensor)
            if images is not None:
                kept.clear()
                kept[name] = images
            yield room

    command = f"pointzoo corpus rooms sweethome3d --train {train} --test {test} --seed {seed}"
    header = RoomsHeader(
        name="rooms",
        description="Composed rooms, scanned from a walk inside, with ScanNet-20 classes.",
        command=command + (f" --frames {frames}" if frames else ""),
        licence="CC0-1.0 and CC-BY-3.0, per model",
        pretraining=True,
        versions={name: metadata.version(name) for name in ("embreex", "trimesh", "numpy")},
    )
    return write_rooms(out, header, make(), furniture.sources, frames=kept)


def build_room(
    furniture: Furniture, name: str, *, seed: int = 0, frames: int = 0, sensor: Sensor | None = None
) -> tuple[Room, Frames | None]:
    """Compose and scan one room.

    Args:
        furniture: The pieces.
        name: ``"train_..."`` takes the training furniture, any other name the other.
        seed: Together with the name it fixes the room.
        frames: RGB-D frames to make; 0: none.
        sensor: The scanner; None: the usual one.
    """
    rng = named_generator(f"rooms/{seed}/{name}")
    split = "train" if name.startswith("train") else "test"
    kinds, weights = zip(*_KINDS, strict=True)
    kind = str(rng.choice(kinds, p=np.array(weights) / sum(weights)))
    plan = compose(furniture, kind, split, rng)
    lamps = _lamps(plan)
    scene = Scene(plan.items, lamps)
    camera = sensor or Sensor()
    count = int(np.clip(plan.size[:2].prod() * camera.views + 8, 14, 40))
    path = walk(plan, count, rng)
    cloud = scan(scene, path, camera, rng)
    turn, shift = _frame(plan, rng)
    models = {item.piece.name for item in plan.items if item.piece and item.piece.name}
    room = Room(
        RoomRecord(name, split, kind, tuple(sorted(models))),
        (cloud.coords @ turn.T + shift).astype(np.float32),
        cloud.colors,
        cloud.normals @ turn.T,
        cloud.labels,
        cloud.instance,
    )
    if not frames:
        return room, None
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = turn, shift
    places = walk(plan, frames, rng, steps=FRAMES_A_TURN)
    return room, render(scene, places, FRAME_SENSOR, rng, pose)


def compose(furniture: Furniture, kind: str, split: str, rng: np.random.Generator) -> Plan:
    """Furnish a room of a kind."""
    low, high = _SIDES.get(kind, (2.7, 4.3))
    size = np.array([rng.uniform(low, high), rng.uniform(low, high), rng.uniform(2.35, 2.9)])
    notch = np.zeros(2)
    if rng.random() < 0.25 and size[:2].min() > 3.1:
        notch = size[:2] * rng.uniform(0.2, 0.42, 2)
    pieces = furniture.train if split == "train" else furniture.test
    plan = Plan(size, notch, pieces, rng)
    cut_openings(plan, kind)
    furnish(plan, kind)
    build_shell(plan, kind)
    return plan


def render(
    scene: Scene, poses: Sequence[Floats], sensor: Sensor, rng: np.random.Generator, frame: Floats
) -> Frames:
    """RGB-D frames from poses (4, 4), which ``frame`` (4, 4) takes into the room's coordinates."""
    depths, colors = [], []
    shape = (sensor.height, sensor.width)
    for pose in poses:
        rays = pixel_rays(sensor, pose)
        length = np.linalg.norm(rays, axis=1)
        origin = pose[:3, 3]
        hits = scene.cast(np.broadcast_to(origin, rays.shape), rays / length[:, None])
        z = hits.distance / length[hits.ray]
        normal = scene.normals[hits.triangle]
        facing = -(normal * rays[hits.ray]).sum(axis=1)
        normal = normal * np.where(facing < 0, -1.0, 1.0)[:, None]
        points = origin + rays[hits.ray] * z[:, None]
        bright = scene.light(points, normal, rng)
        shaded = scene.colors(hits.triangle, hits.bary) * bright[:, None] * rng.normal(1, 0.04)
        color = np.zeros((len(rays), 3))
        color[hits.ray] = shaded + rng.normal(0, 4, shaded.shape)
        noisy = z + rng.normal(0, 1, len(z)) * (sensor.noise[0] + sensor.noise[1] * z**2)
        seen = (z > sensor.reach[0]) & (z < sensor.reach[1])
        seen &= np.abs(facing) / length[hits.ray] > sensor.grazing
        depth = np.zeros(len(rays))
        depth[hits.ray] = np.where(seen, noisy * 1000, 0)
        depths.append(np.clip(np.round(depth), 0, 65535).astype(np.uint16).reshape(shape))
        colors.append(np.clip(color, 0, 255).astype(np.uint8).reshape(*shape, 3))
    placed = np.stack([frame @ pose for pose in poses])
    return Frames(np.stack(depths), np.stack(colors), placed, sensor.intrinsics)


def _lamps(plan: Plan) -> Floats:
    """A lamp below the ceiling, and light from one window."""
    low, high = plan.rectangles[0]
    middle = (low + high) / 2 + plan.rng.normal(0, 0.3, 2)
    lamps = [[*np.clip(middle, 0.3, high - 0.3), plan.size[2] - 0.35]]
    for opening in plan.openings[::-1]:
        if opening.kind == "window":
            wall = plan.walls[opening.wall]
            at = wall.start + wall.along * (opening.left + opening.right) / 2 + wall.inward * 0.35
            lamps.append([*at, (opening.low + opening.high) / 2])
            break
    return np.array(lamps)


def _frame(plan: Plan, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Rotation (3, 3) about z and shift (3,): scans are not aligned with walls."""
    angle = rng.random() * 2 * np.pi
    cos, sin = np.cos(angle), np.sin(angle)
    turn = np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])
    middle = np.array([*plan.size[:2] / 2, 0.0])
    shift = -(turn @ middle) + np.array([*rng.normal(0, 0.5, 2), rng.normal(0, 0.02)])
    return turn, shift
