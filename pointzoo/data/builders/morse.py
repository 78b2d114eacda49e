"""Builds five rooms that others composed, to see how features carry over.

Source: the environments of the robot simulator MORSE (Debian package ``morse-simulator-data``,
BSD-3-Clause), Blender files that Blender's Python package reads. They are scanned as the composed
rooms are. Classes follow from the names of the objects; what a name does not tell is unlabelled.

Blender 4 no longer reads how files of its first versions place their textures. Surfaces that are
left white or light grey by that get a finish drawn by rule; others keep the colour of the file.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pointzoo.data.builders import rooms_textures as textures
from pointzoo.data.builders.rooms_mesh import Image, Mesh, join, plain
from pointzoo.data.builders.rooms_plan import Item
from pointzoo.data.builders.rooms_scan import Scene, Sensor, scan
from pointzoo.data.builders.rooms_walk import walk_among
from pointzoo.data.builders.sampling import named_generator
from pointzoo.data.corpus import sha256_of
from pointzoo.data.rooms import ModelSource, Room, RoomRecord, RoomsHeader, write_rooms
from pointzoo.data.scene_classes import SCANNET20
from pointzoo.errors import ConfigError

Floats = NDArray[np.float64]
_WORKER = Path(__file__).with_name("morse_worker.py")
_AUTHOR = "LAAS-CNRS, ONERA, ISAE-SUPAERO"
_LIMIT_S = 300.0
_DROP = "drop"
_SPREAD = 3.5
_MARGIN = 0.3


@dataclass(frozen=True)
class _Place:
    """A file, what its objects are, and its scale to metres.

    Attributes:
        file: Below ``environments``.
        kind: Kind of room.
        rules: (pattern of the object's name, class or "" or "drop"); the first match decides.
        scale: Factor on the coordinates.
        area: Lowest and highest x and y to keep, None: everything.
    """

    file: str
    kind: str
    rules: tuple[tuple[str, str], ...]
    scale: float = 1.0
    area: tuple[float, float, float, float] | None = None


_PLACES = (
    _Place("apartment.blend", "living", (
        (r"C6_", "wall"), (r"^Plane|carpet", "floor"), (r"Shelf|cupboard_BILLY", "bookshelf"),
        (r"chair", "chair"), (r"_bed_", "bed"), (r"chest|drawer", "cabinet"), (r"sofa", "sofa"),
        (r"table|console", "table"), (r"desk", "desk"), (r"", ""),
    ), area=(-6.0, -3.4, 3.0, 6.4)),
    _Place("human_tut/tutorial_scene.blend", "living", (
        (r"Trail|restarter", _DROP), (r"Walls", "wall"), (r"Ground", "floor"),
        (r"Chair", "chair"), (r"Table", "table"), (r"Desk", "desk"), (r"Drawers", "cabinet"),
        (r"Shelf2", "bookshelf"), (r"Shelf", "cabinet"), (r"", ""),
    )),
    _Place("indoors-1/indoor-1.blend", "office", (
        (r"Plane", "wall"), (r"Ground", "floor"), (r"Desk", "desk"), (r"Chair|red_heat", "chair"),
        (r"Shelf", "bookshelf"), (r"Stool", "otherfurniture"), (r"", ""),
    ), scale=0.75, area=(-14.0, 0.5, 1.5, 14.3)),
    _Place("laas/grande_salle.blend", "office", (
        (r"Solid", _DROP), (r"Walls|Pillar", "wall"), (r"Floor", "floor"), (r"Desk", "desk"),
        (r"Chair", "chair"), (r"Shelf", "bookshelf"), (r"Sofa|sofa|Couch", "sofa"),
        (r"[Tt]able", "table"), (r"", ""),
    )),
    _Place("tum_kitchen/tum_kitchen.blend", "kitchen", (
        (r"Compass", _DROP), (r"ground", "floor"), (r"node5[01]|Pillar", "wall"),
        (r"Door_Frame|Door\.[LR]$", "door"), (r"Chair", "chair"), (r"Desk", "desk"),
        (r"Table_Small", "table"), (r"Radiator", "otherfurniture"), (r"tap|node92", "sink"),
        (r"node17|node73", "counter"), (r"node46|node64|node10\.|node3\.", ""),
        (r"Board|Cabinet|v1\.node", "cabinet"), (r"", ""),
    )),
)  # fmt: skip


def build_morse(python: Path, source: Path, out: Path) -> Path:
    """Write the folder of the MORSE rooms.

    Args:
        python: Interpreter of an environment with Blender's package (``bpy``).
        source: The folder ``environments`` of the package, or one above it.
        out: The folder to write.

    Returns:
        The folder.

    Raises:
        ConfigError: The files are not there, or the interpreter cannot read them.
        MissingExtraError: embreex is not installed.
    """
    found = sorted(source.rglob(_PLACES[0].file))
    if not found:
        raise ConfigError(
            expected=f"a folder with {_PLACES[0].file} in it",
            got=str(source),
            fix="Get it with `apt-get download morse-simulator-data`, then `dpkg -x`.",
        )
    root = found[0].parent
    models = [_source_of(root, place) for place in _PLACES]

    def make() -> Iterator[Room]:
        for place, model in zip(_PLACES, models, strict=True):
            yield _scan_place(place, _items(python, root, place), model)

    header = RoomsHeader(
        name="morse",
        description="Five rooms of the robot simulator MORSE, scanned as composed rooms are.",
        command="pointzoo corpus morse PYTHON_WITH_BPY environments",
        licence="BSD-3-Clause",
        pretraining=False,
    )
    return write_rooms(out, header, make(), models)


def _source_of(root: Path, place: _Place) -> ModelSource:
    digest = sha256_of((root / place.file).read_bytes())
    return ModelSource(place.file, f"environments/{place.file}", digest, _AUTHOR, "BSD-3-Clause")


def _items(python: Path, root: Path, place: _Place) -> list[Item]:
    """What stands in a place, by objects of the file."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "out.npz")
        command = [str(python), str(_WORKER), str(root / place.file), str(target)]
        result = subprocess.run(  # noqa: S603 - the interpreter the caller names
            command, capture_output=True, text=True, timeout=_LIMIT_S, check=False
        )
        if result.returncode != 0 or not target.is_file():
            raise ConfigError(
                expected="a Python with the package bpy 4.2",
                got=f"{python}: {result.stderr.strip()[-300:] or 'no output'}",
                fix="Make one as docs/corpora.md says, and pass its interpreter.",
            )
        with np.load(target) as arrays:
            triangles, colors = arrays["triangles"], arrays["colors"]
            owner, names = arrays["owner"], [str(name) for name in arrays["names"]]
    items = []
    for index, name in enumerate(names):
        label = next(label for pattern, label in place.rules if re.search(pattern, name))
        if label == _DROP:
            continue
        rows = owner == index
        mesh = _mesh(triangles[rows] * place.scale, colors[rows], label, name)
        items.append(Item(mesh, SCANNET20.index(label) if label else -1, index))
    return items


def _mesh(triangles: NDArray[np.float32], colors: Image, label: str, name: str) -> Mesh:
    """Triangles of one object; colour by colour, the lost textures drawn."""
    parts = []
    palette, index = np.unique(colors, axis=0, return_inverse=True)
    for number, color in enumerate(palette):
        rows = np.flatnonzero(index.reshape(-1) == number)
        image = _finish(color, label, name)
        corners = triangles[rows].astype(np.float32)
        parts.append(
            Mesh(
                corners,
                _flat_uv(corners),
                np.zeros(len(rows), dtype=np.int64),
                (image,),
                np.zeros(len(rows), dtype=np.bool_),
            )
        )
    return join(parts)


def _finish(color: NDArray[np.uint8], label: str, name: str) -> Image:
    """The colour of the file, or a drawn texture where the file's own is lost."""
    lost = int(color.min()) > 180 and int(color.max()) - int(color.min()) < 12
    rng = named_generator("morse/" + re.sub(r"[\d_.]+.*$", "", name))
    if not lost:
        return plain(color)
    if label == "floor":
        return textures.planks(rng) if rng.random() < 0.5 else textures.tiles(rng)
    if label == "wall":
        return textures.paint(rng)
    return textures.wood(rng) if label else plain(color)


def _flat_uv(triangles: NDArray[np.float32]) -> NDArray[np.float32]:
    """Texture coordinates (T, 3, 2) along the two axes that a triangle faces least."""
    edges = triangles[:, 1:] - triangles[:, :1]
    axis = np.abs(np.cross(edges[:, 0], edges[:, 1])).argmax(axis=1)
    others = np.array([[1, 2], [0, 2], [0, 1]])[axis]
    picked = np.take_along_axis(triangles, others[:, None, :], axis=2)
    return (picked / textures.TILE).astype(np.float32)


def _scan_place(place: _Place, items: list[Item], model: ModelSource) -> Room:
    name = place.file.rpartition("/")[2].removesuffix(".blend").replace("-", "_")
    rng = named_generator(f"morse/{name}")
    sensor = Sensor()
    bounds = _area(place, items)
    middle = np.array([(bounds[0] + bounds[2]) / 2, (bounds[1] + bounds[3]) / 2])
    lamps = np.array([[*middle, 2.3], [bounds[0] + 1.5, bounds[1] + 1.5, 2.3]])
    scene = Scene(items, lamps)
    free = _standing_room(scene, bounds)
    count = int(np.clip(len(free) * 0.09 * sensor.views + 10, 20, 100))

    def ahead(at: Floats, angle: float) -> float:
        return float(_reach(scene, np.array([*at, 1.4])[None], np.array([angle]))[0, 0])

    cloud = scan(scene, walk_among(free, ahead, 3.0, count, rng), sensor, rng)
    shift = np.array([*middle, 0.0])
    level = cloud.coords[:, :2]
    kept = ((level > bounds[:2] - _MARGIN) & (level < bounds[2:] + _MARGIN)).all(axis=1)
    return Room(
        RoomRecord(name, "test", place.kind, (model.name,)),
        (cloud.coords - shift).astype(np.float32)[kept],
        cloud.colors[kept],
        cloud.normals[kept],
        cloud.labels[kept],
        cloud.instance[kept],
    )


def _area(place: _Place, items: list[Item]) -> Floats:
    """Lowest x and y, highest x and y."""
    if place.area is not None:
        return np.array(place.area) * place.scale
    floor = SCANNET20.index("floor")
    bounds = [item.mesh.bounds for item in items if item.label == floor]
    low = np.min([low[:2] for low, _ in bounds], axis=0)
    high = np.max([high[:2] for _, high in bounds], axis=0)
    return np.array([*low, *high], dtype=np.float64)


def _standing_room(scene: Scene, bounds: Floats) -> Floats:
    """Places (F, 2) with free floor below a head at 1.6 m and nothing within 0.3 m around."""
    xs = np.arange(bounds[0] + 0.3, bounds[2] - 0.3, 0.3)
    ys = np.arange(bounds[1] + 0.3, bounds[3] - 0.3, 0.3)
    cells = np.stack(np.meshgrid(xs, ys, indexing="ij"), axis=-1).reshape(-1, 2)
    heads = np.concatenate([cells, np.full((len(cells), 1), 1.6)], axis=1)
    down = scene.cast(heads, np.broadcast_to([0.0, 0.0, -1.0], heads.shape))
    on_floor = np.zeros(len(cells), dtype=bool)
    on_floor[down.ray] = np.abs(down.distance - 1.6) < 0.15
    near = _reach(scene, heads - [0, 0, 0.6], np.arange(8) * np.pi / 4).min(axis=1)
    good = on_floor & (near > 0.3)
    return cells[good] if good.any() else cells


def _reach(scene: Scene, origins: Floats, angles: Floats) -> Floats:
    """Distance (P, A) from places (P, 3) to the next surface in level directions (A,)."""
    directions = np.stack([np.cos(angles), np.sin(angles), np.zeros_like(angles)], axis=1)
    starts = np.repeat(origins, len(angles), axis=0)
    hits = scene.cast(starts, np.tile(directions, (len(origins), 1)))
    reach = np.full(len(starts), _SPREAD)
    reach[hits.ray] = np.minimum(hits.distance, _SPREAD)
    return reach.reshape(len(origins), len(angles))
