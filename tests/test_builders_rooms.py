"""Composed rooms of a toy catalogue: furnishing, walls, walk, scan, frames and splits."""

import itertools
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from pointzoo.data import open_dataset
from pointzoo.data.builders import build_rooms
from pointzoo.data.builders import rooms_props as props
from pointzoo.data.builders import rooms_textures as textures
from pointzoo.data.builders.rooms import build_room, compose
from pointzoo.data.builders.rooms_mesh import box, hue_rotation, join, plain, quads
from pointzoo.data.builders.rooms_pieces import Furniture, load_furniture
from pointzoo.data.builders.rooms_plan import Item, Plan, footprint
from pointzoo.data.builders.rooms_programs import PROGRAMS
from pointzoo.data.builders.rooms_roles import use_of
from pointzoo.data.builders.rooms_scan import Scene, Sensor, pixel_rays, scan
from pointzoo.data.builders.rooms_shell import build_shell, cut_openings
from pointzoo.data.builders.rooms_walk import walk
from pointzoo.data.builders.sh3d_reader import Model, load_parts, open_archive, read_catalogue
from pointzoo.data.rooms import read_frames, read_rooms_manifest
from pointzoo.data.scene_classes import SCANNET20
from pointzoo.errors import ConfigError, MissingExtraError

# A box of unit size with a ridge from x = FRONT to x = BACK on its upper side; one side is glass.
OBJ = """mtllib box.mtl
v 0 0 0
v 1 0 0
v 1 0 1
v 0 0 1
v 0 1 0
v 1 1 0
v 1 1 1
v 0 1 1
v FRONT 1 0
v BACK 1 1
usemtl plain
f 1 2 3 4
f 1 5 9 6 2
f 2 6 7 3
f 4 8 5 1
f 5 8 10 9
f 9 10 7 6
usemtl glass
f 3 7 10 8 4
"""
MATERIALS = "newmtl plain\nKd 0.8 0.3 0.2\nd 1.0\nnewmtl glass\nKd 0.5 0.5 1.0\nd 0.2\n"
ROOM = "Living room"
# Name, category and size in cm; each is there twice, so that both splits have some.
LOOSE = ("door", "double_door", "window", "rug", "shower_curtain")  # put without asking
CATALOGUE = (
    ("Window", "Doors and windows", (100, 20, 120)),
    ("French window", "Doors and windows", (110, 20, 218)),
    ("Door", "Doors and windows", (90, 15, 205)),
    ("Double door", "Doors and windows", (150, 15, 205)),
    ("Child bed", "Bedroom", (90, 200, 80)),
    ("Bed", "Bedroom", (150, 210, 90)),
    ("Air mattress", "Bedroom", (90, 190, 30)),
    ("Bedside table", "Bedroom", (40, 40, 45)),
    ("Wardrobe", "Bedroom", (120, 60, 200)),
    ("Dresser", ROOM, (120, 50, 80)),
    ("Dressing table", "Bedroom", (90, 45, 130)),
    ("Corner sofa", ROOM, (240, 160, 80)),
    ("Sofa", ROOM, (180, 85, 80)),
    ("Chair", "Office", (60, 60, 90)),
    ("Armchair", ROOM, (80, 80, 80)),
    ("Bar chair", "Kitchen", (45, 45, 105)),
    ("Child chair", ROOM, (35, 35, 55)),
    ("Class seat", "Office", (60, 65, 80)),
    ("Chair", ROOM, (45, 50, 85)),
    ("Stool", "Kitchen", (35, 35, 75)),
    ("Stool", ROOM, (40, 40, 45)),
    ("Children table", ROOM, (60, 50, 45)),
    ("Coffee table", ROOM, (110, 60, 45)),
    ("Round table", ROOM, (60, 60, 70)),
    ("Table", ROOM, (140, 80, 75)),
    ("Bar table", ROOM, (80, 80, 102)),
    ("Pool table", "Miscellaneous", (200, 110, 80)),
    ("Desk", "Office", (130, 65, 75)),
    ("TV stand", ROOM, (120, 45, 50)),
    ("Bookcase", ROOM, (90, 35, 180)),
    ("Filing cabinet", "Office", (40, 50, 60)),
    ("Refrigerator", "Kitchen", (60, 60, 170)),
    ("Large stove", "Kitchen", (60, 60, 85)),
    ("Washing machine", "Kitchen", (60, 60, 85)),
    ("High cabinet", "Kitchen", (60, 60, 200)),
    ("Lower cabinet", "Kitchen", (60, 60, 88)),
    ("Island", "Kitchen", (110, 70, 88)),
    ("Upper cabinet", "Kitchen", (60, 35, 70)),
    ("Hood", "Kitchen", (60, 40, 40)),
    ("Dustbin", "Office", (25, 25, 35)),
    ("Microwave", "Kitchen", (45, 35, 28)),
    ("Plate", "Kitchen", (20, 20, 3)),
    ("Bath", "Bathroom", (170, 70, 60)),
    ("Toilets unit", "Bathroom", (40, 60, 77)),
    ("Washbasin", "Bathroom", (60, 45, 40)),
    ("Washbasin", "Bathroom", (60, 45, 85)),
    ("Vanity", "Bathroom", (90, 50, 85)),
    ("Shower stall", "Bathroom", (80, 80, 200)),
    ("Shower curtain", "Bathroom", (90, 10, 170)),
    ("Towel rack", "Bathroom", (60, 10, 40)),
    ("Toilet brush", "Bathroom", (10, 10, 40)),
    ("Radiator", "Miscellaneous", (100, 12, 60)),
    ("Fireplace", ROOM, (115, 35, 105)),
    ("Wall flat TV", ROOM, (100, 10, 60)),
    ("TV", ROOM, (80, 20, 50)),
    ("Speaker", "Miscellaneous", (20, 20, 35)),
    ("Laptop", "Office", (34, 25, 25)),
    ("Air conditioning - Internal unit", "Miscellaneous", (89, 20, 29)),
    ("Hanging light", "Lights", (40, 40, 60)),
    ("Ceiling lamp", "Lights", (30, 30, 8)),
    ("Lamp", "Lights", (40, 40, 143)),
    ("Desk lamp", "Lights", (20, 20, 40)),
    ("Plant", ROOM, (50, 50, 100)),
    ("Cactus", ROOM, (15, 15, 20)),
    ("Oriental rug", ROOM, (150, 100, 1)),
    ("Slippers", "Bedroom", (24, 28, 6)),
    ("Teddy bear", "Bedroom", (30, 22, 30)),
    ("Suitcase", "Miscellaneous", (60, 30, 50)),
    ("Phone", "Office", (20, 20, 7)),
    ("Cuckoo clock", "Miscellaneous", (27, 18, 70)),
)


def shape(number: int) -> str:
    """An OBJ file; every number below 256 has its own."""
    front, back = 0.1 + 0.05 * (number % 16), 0.1 + 0.05 * (number // 16)
    return OBJ.replace("FRONT", f"{front:.2f}").replace("BACK", f"{back:.2f}")


def library(path: Path, catalogue=CATALOGUE, copies=2, licence="Public domain") -> Path:
    """A furniture library; copies of a model differ in shape."""
    lines, files = [f"license={licence}\n"], {}
    rows = [row for row in catalogue for _ in range(copies)]
    for number, (name, category, (width, depth, height)) in enumerate(rows, start=1):
        fields = {
            "name": name, "category": category, "model": f"/m{number}/box.obj", "width": width,
            "depth": depth, "height": height, "creator": f"Maker {number % 3}",
        }  # fmt: skip
        lines += [f"{key}#{number}={value}\n" for key, value in fields.items()]
        files[f"m{number}/box.obj"] = shape(number)
        files[f"m{number}/box.mtl"] = MATERIALS
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("PluginFurnitureCatalog.properties", "".join(lines))
        for name, text in files.items():
            archive.writestr(name, text)
    return path


@pytest.fixture(scope="module")
def toys(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("furniture")
    library(folder / "notfree.sh3f", CATALOGUE[:1], licence="Free Art License 1.3")
    return library(folder / "toys.sh3f")


@pytest.fixture(scope="module")
def furniture(toys) -> Furniture:
    return load_furniture([toys.parent], progress=False)


@pytest.fixture(scope="module")
def small_frames():
    patch = pytest.MonkeyPatch()
    patch.setattr("pointzoo.data.builders.rooms.FRAME_SENSOR", Sensor(width=80, height=60))
    yield
    patch.undo()


@pytest.fixture(scope="module")
def built(few, tmp_path_factory, small_frames) -> Path:
    out = tmp_path_factory.mktemp("out") / "rooms"
    return build(few.parent, out)


@pytest.fixture(scope="module")
def few(tmp_path_factory) -> Path:
    return library(tmp_path_factory.mktemp("few") / "toys.sh3f", CATALOGUE[::3])


def build(source: Path, out: Path) -> Path:
    sizes = {"train": 2, "test": 1, "seed": 3, "frames": 2}
    return build_rooms([source], out, **sizes, sensor=COARSE, progress=False)


COARSE = Sensor(width=64, height=48, voxel=0.05)


def item(mesh, label=0, instance=0) -> Item:
    return Item(mesh, label, instance)


# -- furniture -------------------------------------------------------------------------------------


def test_only_free_models_are_taken_and_splits_share_none(furniture):
    names = [source.name for source in furniture.sources]
    assert len(names) == 2 * len(CATALOGUE)
    assert {source.licence for source in furniture.sources} == {"CC0-1.0"}
    train = {piece.name for pieces in furniture.train.values() for piece in pieces}
    test = {piece.name for pieces in furniture.test.values() for piece in pieces}
    assert not train & test
    assert train | test == set(names)
    for role in furniture.train:
        assert 1 <= len(furniture.test[role]) <= len(furniture.train[role]), role


def test_pieces_stand_on_the_floor_with_their_back_to_plus_y(furniture):
    wardrobe = furniture.train["wardrobe"][0]
    low, high = wardrobe.mesh.bounds
    np.testing.assert_allclose(high - low, [1.2, 0.6, 2.0], rtol=1e-5)
    np.testing.assert_allclose([low[2], (low + high)[0], (low + high)[1]], 0, atol=1e-5)
    glass = wardrobe.mesh.triangles[wardrobe.mesh.glass]  # the front of the file, its +z
    np.testing.assert_allclose(glass[..., 1], -0.3, atol=1e-5)
    assert len(wardrobe.mesh.without_glass().triangles) < len(wardrobe.mesh.triangles)
    assert wardrobe.top == 2.0
    assert SCANNET20[wardrobe.use.label] == "cabinet"


def test_equal_copies_and_heavy_or_broken_models_are_left_out(tmp_path, monkeypatch):
    path = library(tmp_path / "toys.sh3f", CATALOGUE[:2], copies=2)
    with zipfile.ZipFile(path, "a") as archive:  # the last of two entries of one name counts
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("m2/box.obj", shape(1))
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("m4/box.obj", "v 0 0 0\n")
    assert len(load_furniture([path], progress=False).sources) == 2
    monkeypatch.setattr("pointzoo.data.builders.rooms_pieces.MAX_TRIANGLES", 3)
    with pytest.raises(ConfigError, match="CC0"):
        load_furniture([path], progress=False)


def test_what_is_not_for_rooms_has_no_use():
    def use(name, category, size=(1.0, 1.0, 1.0)):
        return use_of(Model("", name, category, "", size, (), ""))

    assert use("Bench", "Exterior") is None
    assert use("Thing", "Living room") is None
    assert use("Table", "Living room", (1.2, 0.8, 1.4)) is None
    assert use("Table", "Living room", (1.2, 0.8, 0.75)).role == "dining_table"
    assert use("Plant", "Living room", (0.5, 0.5, 1.0)).label == -1


def test_opacity_and_where_things_stand_are_read(tmp_path):
    path = library(tmp_path / "toys.sh3f", CATALOGUE[:1], copies=1)
    with open_archive(path) as archive:
        model = read_catalogue(archive).models[0]
        assert model.top == 1.2
        assert sorted(part.opacity for part in load_parts(archive, model)) == [0.2, 1.0]
    for text, opacity in (("Tr 0.9", 0.1), ("d none", 1.0)):
        other = tmp_path / "other.sh3f"
        with zipfile.ZipFile(path) as old, zipfile.ZipFile(other, "w") as new:
            for name in old.namelist():
                data = old.read(name).decode().replace("d 0.2", text)
                if name.endswith("properties"):
                    data += "dropOnTopElevation#1=-1\n"
                new.writestr(name, data)
        with open_archive(other) as archive:
            model = read_catalogue(archive).models[0]
            assert model.top is None
            parts = load_parts(archive, model)
            assert min(part.opacity for part in parts) == pytest.approx(opacity)


def test_without_libraries_it_says_how_to_get_them(tmp_path):
    with pytest.raises(ConfigError, match="apt-get"):
        build_rooms([tmp_path], tmp_path / "o", progress=False)
    library(tmp_path / "notfree.sh3f", CATALOGUE[:1], licence="Free Art License 1.3")
    with pytest.raises(ConfigError, match="CC-BY"):
        build_rooms([tmp_path], tmp_path / "o", progress=False)


# -- furnishing ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", PROGRAMS)
def test_furniture_keeps_to_the_room_and_its_own_place(furniture, kind):
    found = set()
    for seed in range(2):
        rng = np.random.default_rng(seed)
        plan = compose(furniture, kind, "train" if seed % 2 else "test", rng)
        standing = []
        for entry in plan.items:
            found.add(entry.label)
            if entry.piece is None or entry.piece.use.role in LOOSE:
                continue
            half = footprint(entry.piece.size, entry.yaw)
            low, high = entry.position[:2] - half, entry.position[:2] + half
            assert plan.inside(low, high), entry.piece.title
            if entry.piece.use.label >= 2:
                size = entry.piece.size[2]
                standing.append((low, high, entry.position[2], entry.position[2] + size, entry))
        for a, b in itertools.combinations(standing, 2):
            deep = np.minimum(a[1], b[1]) - np.maximum(a[0], b[0])
            over = min(a[3], b[3]) - max(a[2], b[2])
            seated = {a[4].piece.use.label, b[4].piece.use.label} & {4, 19}
            if over > 0.03 and not seated:  # chairs reach under tables
                assert deep.min() < 0.03, (a[4].piece.title, b[4].piece.title)
        numbers = [entry.instance for entry in plan.items]
        assert min(numbers) == 0
    assert {0, 1, 7} <= found  # wall, floor, door


def test_kitchens_and_bathrooms_have_what_makes_them(furniture):
    kitchens, baths = set(), set()
    for seed in range(6):
        for kind, seen in (("kitchen", kitchens), ("bathroom", baths)):
            plan = compose(furniture, kind, "train", np.random.default_rng(seed))
            seen.update(SCANNET20[entry.label] for entry in plan.items if entry.label >= 0)
    assert {"counter", "cabinet", "refridgerator", "sink"} <= kitchens
    assert {"toilet", "sink", "bathtub", "shower curtain"} <= baths


def test_a_catalogue_of_little_still_gives_rooms():
    empty = Furniture({}, {}, ())
    for kind in ("living", "kitchen", "bathroom", "classroom"):
        plan = compose(empty, kind, "train", np.random.default_rng(1))
        assert {entry.label for entry in plan.items} >= {0, 1}


def plan_of(size=(4.0, 3.0, 2.5), notch=(0.0, 0.0), pieces=None) -> Plan:
    return Plan(np.array(size), np.array(notch), pieces or {}, np.random.default_rng(0))


def test_walls_go_round_the_room_and_know_its_inside():
    plan = plan_of(notch=(1.0, 1.5))
    assert len(plan.walls) == 6
    assert sum(wall.length for wall in plan.walls) == 14.0
    for wall in plan.walls:
        inner = (wall.start + wall.end) / 2 + wall.inward * 0.01
        assert plan.inside(inner, inner)
        assert not plan.inside(inner - wall.inward * 0.1, inner - wall.inward * 0.1)
    assert sum((high - low).prod() for low, high in plan.rectangles) == 4 * 3 - 1.5
    assert not plan.inside(np.array([3.5, 2.0]), np.array([3.6, 2.1]))


def test_a_piece_at_a_wall_has_its_back_to_it(furniture):
    plan = plan_of(pieces=furniture.train)
    wardrobe = plan.pick("wardrobe")
    for index in range(4):
        placed = plan.put_at_wall(wardrobe, wall=index, along=1.5, front=0.3)
        wall = plan.walls[index]
        low, high = placed.mesh.bounds
        out = (np.array([low[:2], high[:2]]) - wall.start) @ wall.inward
        assert out.min() == pytest.approx(0.02, abs=1e-3)
        glass = placed.mesh.triangles[placed.mesh.glass][..., :2]  # its front
        assert ((glass - wall.start) @ wall.inward).min() == pytest.approx(0.62, abs=1e-3)
    assert plan.put_at_wall(wardrobe, wall=0, along=1.5, tries=2) is None
    assert plan.put_at_wall(wardrobe, wall=0, along=1.5, scale=9.0, tries=2) is None
    assert plan.pick("nothing") is None


def test_small_things_stand_on_what_carries_them(furniture):
    plan = plan_of(pieces=furniture.train)
    desk = plan.put(plan.pick("desk"), [2.0, 1.5, 0.0])
    lamp = plan.put_on(plan.pick("table_lamp"), desk, back=True)
    assert lamp.position[2] == pytest.approx(0.752)
    assert plan.put_on(plan.pick("sofa"), desk) is None
    assert plan.put_on(plan.pick("table_lamp"), item(desk.mesh)) is None
    crowded = [plan.put_on(plan.pick("printer") or plan.pick("tv"), desk) for _ in range(4)]
    assert None in crowded


def test_doors_and_windows_leave_holes_in_walls(furniture):
    for seed in range(6):
        plan = Plan(np.array([4.0, 3.0, 2.5]), np.zeros(2), furniture.train,
                    np.random.default_rng(seed))  # fmt: skip
        cut_openings(plan, "living")
        doors = [o for o in plan.openings if o.kind == "door"]
        assert doors
        build_shell(plan, "living")
        walls = [entry for entry in plan.items if entry.label == 0][-len(plan.walls) :]
        for index, wall in enumerate(plan.walls):
            triangles = walls[index].mesh.triangles.astype(np.float64)
            on_wall = np.abs((triangles[..., :2] - wall.start) @ wall.inward).max(axis=1) < 1e-6
            edges = triangles[on_wall, 1:] - triangles[on_wall, :1]
            area = np.linalg.norm(np.cross(edges[:, 0], edges[:, 1]), axis=1).sum() / 2
            holes = sum((o.right - o.left) * (o.high - o.low)
                        for o in plan.openings if o.wall == index)  # fmt: skip
            assert area == pytest.approx(wall.length * 2.5 - holes, rel=1e-5)


# -- meshes and textures ---------------------------------------------------------------------------


def test_textures_are_images_without_seams():
    rng = np.random.default_rng(0)
    for draw in (textures.paint, textures.wallpaper, textures.planks, textures.tiles,
                 textures.carpet, textures.rug, textures.fabric, textures.wood, textures.stone,
                 textures.painting, textures.book_spines):  # fmt: skip
        for _ in range(4):
            image = draw(rng)
            assert image.dtype == np.uint8
            assert image.ndim == 3
            assert image.shape[2] == 3
            assert np.ptp(image) > 0
    noise = textures.smooth_noise(rng, 64, 3.0)
    inner = np.abs(np.diff(noise, axis=0)).mean()
    assert np.abs(noise[0] - noise[-1]).mean() < 3 * inner  # the edges meet


def test_boxes_face_outwards_and_colours_turn():
    mesh = box((1, 2, 3), plain((255, 0, 0)), tile=0.5)
    edges = mesh.triangles[:, 1:] - mesh.triangles[:, :1]
    normal = np.cross(edges[:, 0], edges[:, 1])
    centre = mesh.triangles.mean(axis=1) - [0, 0, 1.5]
    assert ((normal * centre).sum(axis=1) > 0).all()
    assert mesh.uv.max() == 6.0
    np.testing.assert_allclose(hue_rotation(2 * np.pi / 3) @ [255, 0, 0], [0, 255, 0], atol=1e-9)
    dyed = mesh.dyed(hue_rotation(2 * np.pi / 3))
    np.testing.assert_array_equal(dyed.textures[0][0, 0], [0, 255, 0])
    both = join([mesh, mesh.moved((5, 0, 0)), dyed])
    assert len(both.textures) == 2
    assert both.bounds[1][0] == 5.5


def test_a_worktop_has_a_hole_where_the_sink_is():
    rng = np.random.default_rng(0)
    image = plain((10, 10, 10))
    top, sink = props.sink_worktop(rng, 2.0, 0.6, image, 0.2)
    scene = Scene([item(top), item(sink, 17, 1)], np.zeros((0, 3)))
    down = np.array([[0.0, 0.0, -1.0]])
    hits = scene.cast(np.array([[0.2, 0.0, 1.0], [-0.8, 0.0, 1.0]]), np.repeat(down, 2, axis=0))
    np.testing.assert_array_equal(scene.label[hits.triangle], [17, 0])
    assert hits.distance[0] > 1.1
    assert props.sink_worktop(rng, 2.0, 0.6, image, None)[1] is None
    assert len(props.window_frame(rng, 1.0, 1.0, glass=True).triangles) > 20
    assert len(props.books(rng, 0.01, 0.2, 0.3).triangles) == 12  # too narrow: one book


# -- scan ------------------------------------------------------------------------------------------


def chamber() -> list[Item]:
    """A closed room of 4 x 4 x 2.5 m with a red block in it."""
    walls = box((4, 4, 2.5), plain((200, 200, 200)), position=(2, 2, 0))
    block = box((0.6, 0.6, 1.0), plain((200, 20, 20)), position=(2.9, 2, 0))
    return [item(walls, 0, 0), item(block, 2, 1)]


def test_rays_meet_what_is_first_and_its_colour():
    scene = Scene(chamber(), np.array([[2.0, 2.0, 2.3]]))
    origins = np.array([[1.0, 2.0, 0.5], [1.0, 2.0, 0.5]])
    hits = scene.cast(origins, np.array([[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]]))
    np.testing.assert_allclose(hits.distance, [1.6, 1.0], rtol=1e-5)
    np.testing.assert_array_equal(scene.instance[hits.triangle], [1, 0])
    np.testing.assert_array_equal(scene.colors(hits.triangle, hits.bary)[0], [200, 20, 20])
    rng = np.random.default_rng(0)
    below, beside = np.array([[3.9, 2.0, 0.01]]), np.array([[1.0, 2.0, 0.01]])
    up = np.array([[0.0, 0.0, 1.0]])
    shadow = np.mean([scene.light(below, up, rng) for _ in range(20)])
    assert shadow < np.mean([scene.light(beside, up, rng) for _ in range(20)]) - 0.03


def test_a_texture_is_looked_up_with_its_first_row_on_top():
    image = np.zeros((2, 1, 3), np.uint8)
    image[0], image[1] = 10, 99
    mesh = quads([[(0, 0, 0), (1, 0, 0), (1, 0, 1), (0, 0, 1)]], image)
    scene = Scene([item(mesh)], np.zeros((0, 3)))
    hits = scene.cast(np.array([[0.5, -1, 0.9], [0.5, -1, 0.1]]), np.array([[0.0, 1, 0]] * 2))
    np.testing.assert_array_equal(scene.colors(hits.triangle, hits.bary)[:, 0], [10, 99])


def test_a_scan_has_holes_where_nothing_looked_and_noise_that_grows():
    scene = Scene(chamber(), np.array([[2.0, 2.0, 2.3]]))
    pose = np.eye(4)
    pose[:3, :3] = np.array([[0, -1, 0], [0, 0, -1], [1, 0, 0]]).T  # along +x
    pose[:3, 3] = [0.3, 2.0, 1.0]
    sensor = Sensor(width=80, height=60)
    cloud = scan(scene, [pose] * 4, sensor, np.random.default_rng(0))
    front = cloud.coords[cloud.instance == 1]
    assert front[:, 0].max() < 2.75  # the back of the block is hidden
    behind = (cloud.instance == 0) & (cloud.coords[:, 0] > 3.9)
    hidden = behind & (np.abs(cloud.coords[:, 1] - 2) < 0.3) & (cloud.coords[:, 2] < 0.9)
    assert behind.sum() > 50
    assert not hidden.any()
    assert not (cloud.coords[:, 0] < 0.5).any()  # behind the camera, and nearer than it reaches
    assert np.std(cloud.coords[behind, 0]) > np.std(front[:, 0]) * 1.2
    np.testing.assert_allclose(np.linalg.norm(cloud.normals, axis=1), 1, rtol=1e-6)
    assert (cloud.normals[cloud.instance == 1, 0] < -0.7).mean() > 0.9  # towards the camera
    red = cloud.colors[cloud.instance == 1].mean(axis=0)
    assert red[0] > 3 * red[1]
    blind = Sensor(width=80, height=60, reach=(0.35, 0.5))
    assert len(scan(scene, [pose], blind, np.random.default_rng(0)).coords) == 0


def test_the_walk_stays_in_free_places_and_looks_down(furniture):
    plan = compose(furniture, "living", "train", np.random.default_rng(2))
    poses = walk(plan, 40, np.random.default_rng(0))
    assert len(poses) == 40
    for pose in poses:
        np.testing.assert_allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3), atol=1e-12)
        assert np.linalg.det(pose[:3, :3]) == pytest.approx(1)
        assert plan.inside(pose[:2, 3], pose[:2, 3])
        assert 1.0 < pose[2, 3] < 2.0
        assert pose[2, 0] == 0  # the horizon is level
    assert np.mean([pose[2, 2] for pose in poses]) < -0.2
    full = plan_of()
    full.block((0, 0, 0), (4, 3, 2.5))
    assert len(walk(full, 3, np.random.default_rng(0))) == 3


def test_pixels_point_where_the_intrinsics_say():
    sensor = Sensor(width=4, height=2, field=90.0)
    rays = pixel_rays(sensor, np.eye(4)).reshape(2, 4, 3)
    np.testing.assert_allclose(rays[0, 0], [-0.75, -0.25, 1])
    back = rays.reshape(-1, 3) @ sensor.intrinsics.T
    np.testing.assert_allclose(back[:, 0].reshape(2, 4), [[0, 1, 2, 3]] * 2, atol=1e-12)


# -- whole folders ---------------------------------------------------------------------------------


def test_a_folder_of_rooms_holds_scans_with_classes(built):
    data = open_dataset(built)
    assert data.names == ("train_0000", "train_0001", "test_0000")
    assert data.splits == ("train", "train", "test")
    for index in range(3):
        cloud = data[index]
        assert 2_000 < len(cloud) < 60_000
        labels = np.unique(cloud.labels)
        assert {0, 1} <= set(labels.tolist())
        assert labels.max() < 20
        assert np.ptp(cloud.coords[:, 2]) < 3.2
        assert abs(np.median(cloud.coords[cloud.labels == 1, 2])) < 0.1
        np.testing.assert_allclose(np.linalg.norm(cloud.normals, axis=1), 1, atol=2e-3)
        pairs = np.unique(np.stack([cloud.fields["instance"], cloud.labels]), axis=1)
        assert len(np.unique(pairs[0])) == pairs.shape[1]  # an object has one class


def test_the_manifest_keeps_splits_apart_and_names_makers(built):
    manifest = read_rooms_manifest(built)
    train = {name for room in manifest.rooms if room.split == "train" for name in room.models}
    test = {name for room in manifest.rooms if room.split == "test" for name in room.models}
    assert train
    assert test
    assert not train & test
    assert {model.name for model in manifest.models} == train | test
    assert all(m.author.startswith("Maker") and len(m.sha256) == 64 for m in manifest.models)
    command = "pointzoo corpus rooms sweethome3d --train 2 --test 1 --seed 3 --frames 2"
    assert manifest.header.command == command


def test_the_same_command_gives_the_same_bytes(built, few, tmp_path):
    again = build(few, tmp_path / "rooms")
    files = sorted(p.relative_to(built) for p in built.rglob("*") if p.is_file())
    assert len(files) == 10
    for file in files:
        assert (again / file).read_bytes() == (built / file).read_bytes(), file


def test_a_room_depends_on_its_name_alone(built, few):
    furniture = load_furniture([few], progress=False)
    room, images = build_room(furniture, "train_0001", seed=3, sensor=COARSE)
    assert images is None
    np.testing.assert_array_equal(open_dataset(built)[1].coords, room.coords)
    other, _ = build_room(furniture, "train_0001", seed=4, sensor=COARSE)
    assert len(other.coords) != len(room.coords)


def test_frames_lie_on_the_room(built):
    frames = read_frames(built, "train_0000")
    assert frames.depth.shape == (2, 60, 80)
    rows, columns = np.nonzero(frames.depth[0])
    assert len(rows) > 0.3 * frames.depth[0].size
    depth = frames.depth[0][rows, columns] / 1000
    pixels = np.stack([columns, rows, np.ones(len(rows))]) * depth
    camera = np.linalg.inv(frames.intrinsics) @ pixels
    world = (frames.pose[0][:3, :3] @ camera).T + frames.pose[0][:3, 3]
    coords = open_dataset(built)[0].coords
    low, high = coords.min(axis=0) - 0.1, coords.max(axis=0) + 0.1
    assert ((world > low) & (world < high)).all(axis=1).mean() > 0.98
    sample = world[:: max(1, len(world) // 200)]
    gap = np.linalg.norm(sample[:, None] - coords[None], axis=2).min(axis=1)
    assert np.median(gap) < 0.08
    assert frames.color.max() > 100


def test_without_embreex_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "embreex", None)
    with pytest.raises(MissingExtraError, match=r"pointzoo\[rooms\]"):
        Scene(chamber(), np.zeros((1, 3)))
