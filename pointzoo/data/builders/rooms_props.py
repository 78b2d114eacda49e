"""Things drawn by rule: curtains, cushions, heaps of cloth, books, pictures, boxes, worktops.

Every function takes its randomness and gives a mesh that stands on z = 0, its back towards +y.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pointzoo.data.builders import rooms_textures as textures
from pointzoo.data.builders.rooms_mesh import Image, Mesh, box, join, plain, quads

Floats = NDArray[np.float64]


def surface(points: Floats, image: Image, repeat: tuple[float, float] = (1.0, 1.0)) -> Mesh:
    """A curved surface from a grid of points (R, C, 3)."""
    rows, columns = points.shape[:2]
    corners = np.stack(
        [points[:-1, :-1], points[:-1, 1:], points[1:, 1:], points[1:, :-1]], axis=2
    ).reshape(-1, 4, 3)
    v, u = np.mgrid[0:rows, 0:columns]
    uv = np.stack([u / (columns - 1) * repeat[0], v / (rows - 1) * repeat[1]], axis=-1)
    uvs = np.stack([uv[:-1, :-1], uv[:-1, 1:], uv[1:, 1:], uv[1:, :-1]], axis=2).reshape(-1, 4, 2)
    return quads(corners, image, uvs)


def curtain(rng: np.random.Generator, width: float, height: float, image: Image) -> Mesh:
    """Hanging cloth in folds."""
    folds = max(2.0, width / rng.uniform(0.09, 0.16))
    columns = int(folds * 8) + 2
    x = np.linspace(-width / 2, width / 2, columns)
    phase = rng.random() * 6.28
    depth = rng.uniform(0.02, 0.045)
    rows = 5
    points = np.zeros((rows, columns, 3))
    for row, z in enumerate(np.linspace(0.0, height, rows)):
        gather = 1.0 - 0.12 * np.sin(np.pi * z / height)
        wave = np.sin(x / width * folds * 2 * np.pi + phase + 0.3 * z)
        points[row] = np.stack([x * gather, depth * (1 + wave), np.full(columns, z)], axis=1)
    return surface(points, image, (width / 1.5, height / 1.5))


def cushion(rng: np.random.Generator, size: tuple[float, float, float], image: Image) -> Mesh:
    """A pillow: a flattened sphere with corners."""
    u = np.linspace(0, 2 * np.pi, 17)
    v = np.linspace(-np.pi / 2, np.pi / 2, 9)

    def power(value: Floats) -> Floats:
        return np.sign(value) * np.abs(value) ** 0.55

    x = power(np.cos(u))[None] * np.cos(v)[:, None] ** 0.6
    y = power(np.sin(u))[None] * np.cos(v)[:, None] ** 0.6
    z = np.repeat(np.sin(v)[:, None], 17, axis=1)
    points = np.stack([x, y, z], axis=-1) * np.asarray(size) / 2
    points[..., 2] += size[2] / 2 + rng.normal(0, 0.004, (9, 1))
    return surface(points, image)


def cover(
    rng: np.random.Generator, size: tuple[float, float], thickness: float, image: Image
) -> Mesh:
    """A blanket or a heap of cloth: a wrinkled hill over a rectangle."""
    count = 14
    y, x = np.mgrid[-1 : 1 : count * 1j, -1 : 1 : count * 1j]
    edge = np.clip((1 - np.maximum(abs(x), abs(y))) * 4, 0, 1)
    wrinkles = textures.smooth_noise(rng, 16, 3.0)[:count, :count]
    z = edge * np.clip(thickness * (1 + 0.35 * wrinkles), 0.005, None)
    points = np.stack([x * size[0] / 2, y * size[1] / 2, z], axis=-1)
    return surface(points, image, (size[0], size[1]))


def picture(rng: np.random.Generator, width: float, height: float) -> Mesh:
    """A framed picture; hangs with its back on y = 0."""
    rim, depth = rng.uniform(0.01, 0.06), rng.uniform(0.015, 0.04)
    frame = plain(textures.pick_color(rng, (0.0, 0.5), (0.05, 0.95)))
    back = box((width, depth, height), frame, position=(0, -depth / 2, 0))
    left, right, low, high = -width / 2 + rim, width / 2 - rim, rim, height - rim
    y = -depth - 0.002
    corners = [[(left, y, low), (right, y, low), (right, y, high), (left, y, high)]]
    return join([back, quads(corners, textures.painting(rng))])


def books(rng: np.random.Generator, width: float, depth: float, height: float) -> Mesh:
    """A row of books with gaps."""
    parts: list[Mesh] = []
    left = -width / 2
    while left < width / 2 - 0.06:
        length = min(float(rng.uniform(0.08, 0.35)), width / 2 - left)
        tall = float(rng.uniform(0.6, 0.92)) * height
        deep = depth * float(rng.uniform(0.6, 0.9))
        if rng.random() < 0.8:
            middle = (left + length / 2, (depth - deep) / 2 * 0.9, 0.0)
            parts.append(box((length, deep, tall), textures.book_spines(rng), position=middle))
        left += length + (0.0 if rng.random() < 0.7 else float(rng.uniform(0.03, 0.2)))
    if not parts:
        parts.append(box((width * 0.5, depth * 0.6, height * 0.5), textures.book_spines(rng)))
    return join(parts)


def carton(rng: np.random.Generator) -> Mesh:
    """A box of cardboard or plastic."""
    size = rng.uniform((0.2, 0.18, 0.12), (0.6, 0.45, 0.45))
    if rng.random() < 0.6:
        color = np.array([178, 140, 98]) + rng.uniform(-20, 20, 3)
    else:
        color = textures.pick_color(rng, (0.0, 0.7), (0.2, 0.9))
    grain = color + textures.smooth_noise(rng, 32)[..., None] * 6
    return box(size, np.clip(grain, 0, 255).astype(np.uint8))


def stack_of_paper(rng: np.random.Generator) -> Mesh:
    """Books or sheets lying on each other."""
    parts = []
    height = 0.0
    for _ in range(int(rng.integers(1, 5))):
        thick = float(rng.uniform(0.008, 0.04))
        white = rng.random() < 0.4
        color = (235, 235, 230) if white else textures.pick_color(rng, (0.1, 0.8), (0.15, 0.95))
        size = (float(rng.uniform(0.14, 0.24)), float(rng.uniform(0.2, 0.3)), thick)
        parts.append(box(size, plain(color)).moved((0, 0, height), float(rng.normal(0, 0.2))))
        height += thick
    return join(parts)


def shelf_unit(rng: np.random.Generator, size: tuple[float, float, float]) -> tuple[Mesh, Mesh]:
    """An open bookshelf and what stands in it."""
    width, depth, height = size
    image = textures.wood(rng)
    board = 0.022
    count = int(np.clip(round(height / rng.uniform(0.28, 0.4)), 1, 7))
    sides = [
        box((board, depth, height), image, position=(x, 0, 0))
        for x in (-width / 2 + board / 2, width / 2 - board / 2)
    ]
    step = (height - board) / count
    boards = [
        box((width - 2 * board, depth, board), image, position=(0, 0, k * step))
        for k in range(count + 1)
    ]
    back = box((width, 0.01, height), image, position=(0, depth / 2 - 0.005, 0))
    rows = [
        books(rng, width - 0.06, depth - 0.03, step - 0.04).moved((0, 0, k * step + board))
        for k in range(count)
        if rng.random() < 0.85
    ]
    rows = rows or [books(rng, width - 0.06, depth - 0.03, 0.2).moved((0, 0, board))]
    return join([*sides, *boards, back]), join(rows)


def sink_worktop(
    rng: np.random.Generator, length: float, depth: float, image: Image, at: float | None
) -> tuple[Mesh, Mesh | None]:
    """A worktop, and the basin let into it ``at`` that distance from its middle.

    Returns:
        The worktop on z = 0, and the basin with its tap.
    """
    thick = 0.04
    if at is None:
        return box((length, depth, thick), image, tile=textures.TILE / 2), None
    half_w, half_d, deep = 0.27, 0.2, 0.17
    left, right = length / 2 + at - half_w, length / 2 - at - half_w
    strips = [
        box((left, depth, thick), image, position=(-length / 2 + left / 2, 0, 0), tile=1.0),
        box((right, depth, thick), image, position=(length / 2 - right / 2, 0, 0), tile=1.0),
    ]
    rim = depth / 2 - half_d
    strips += [
        box((2 * half_w, rim, thick), image, position=(at, side * (depth / 2 - rim / 2), 0))
        for side in (-1, 1)
    ]
    steel = plain(textures.pick_color(rng, (0.0, 0.06), (0.55, 0.9)))
    low = thick - deep
    x0, x1, y0, y1 = at - half_w, at + half_w, -half_d, half_d
    faces = [
        [(x0, y0, low), (x1, y0, low), (x1, y1, low), (x0, y1, low)],
        [(x0, y0, low), (x1, y0, low), (x1, y0, thick), (x0, y0, thick)],
        [(x0, y1, low), (x1, y1, low), (x1, y1, thick), (x0, y1, thick)],
        [(x0, y0, low), (x0, y1, low), (x0, y1, thick), (x0, y0, thick)],
        [(x1, y0, low), (x1, y1, low), (x1, y1, thick), (x1, y0, thick)],
    ]
    tap = [
        box((0.03, 0.03, 0.25), steel, position=(at, half_d + 0.03, thick)),
        box((0.025, 0.18, 0.025), steel, position=(at, half_d - 0.05, thick + 0.23)),
        box((2 * half_w + 0.04, 0.02, 0.006), steel, position=(at, -half_d, thick)),
        box((2 * half_w + 0.04, 0.02, 0.006), steel, position=(at, half_d, thick)),
    ]
    return join(strips), join([quads(faces, steel), *tap])


def door_leaf(rng: np.random.Generator, width: float, height: float) -> Mesh:
    """A door leaf that hangs on x = 0 and reaches to +x."""
    image = textures.wood(rng)
    parts = [box((width, 0.04, height), image, position=(width / 2, 0, 0))]
    trim = plain(image.reshape(-1, 3).mean(axis=0) * rng.uniform(0.75, 0.92))
    if rng.random() < 0.6:
        for low, high in ((0.15, 0.45), (0.52, 0.92)):
            size = (width * 0.6, 0.05, height * (high - low))
            parts.append(box(size, trim, position=(width / 2, 0, height * low)))
    knob = plain(textures.pick_color(rng, (0.0, 0.3), (0.3, 0.8)))
    parts.append(box((0.12, 0.14, 0.03), knob, position=(width - 0.1, 0, height * 0.48)))
    return join(parts)


def window_frame(rng: np.random.Generator, width: float, height: float, *, glass: bool) -> Mesh:
    """A window with panes; hangs with its back on y = 0."""
    image = textures.wood(rng)
    bar, depth = float(rng.uniform(0.045, 0.08)), float(rng.uniform(0.06, 0.1))
    y = -depth / 2
    panes = int(rng.integers(1, 4))
    posts = [
        box((bar, depth, height), image, position=(x, y, 0))
        for x in np.linspace(-width / 2 + bar / 2, width / 2 - bar / 2, panes + 1)
    ]
    levels = [0.0, height - bar]
    if rng.random() < 0.4:
        levels.append(height * float(rng.uniform(0.3, 0.7)))
    rails = [box((width, depth, bar), image, position=(0, y, z)) for z in levels]
    board = [box((width + 0.1, 0.2, 0.03), image, position=(0, -0.1 - depth / 2, -0.03))]
    parts = [*posts, *rails, *board]
    if glass:
        sky = plain(textures.pick_color(rng, (0.0, 0.25), (0.6, 1.0)))
        low, high = -width / 2, width / 2
        corners = [[(low, y, 0), (high, y, 0), (high, y, height), (low, y, height)]]
        parts.append(quads(corners, sky))
    return join(parts)
