"""The plan of a room: its walls and what stands where, without collisions.

The room is an axis-parallel rectangle, maybe less a corner; its floor is z = 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pointzoo.data.builders.rooms_mesh import Mesh, Numbers, hue_rotation
from pointzoo.data.builders.rooms_pieces import Piece, Pieces

Floats = NDArray[np.float64]
_SLACK = 0.012
_DYED = frozenset({"sofa", "sofa_corner", "sofa_bed", "armchair", "chair", "office_chair", "stool",
                   "bed_double", "bed_single", "bed_child", "floor_thing", "tableware",
                   "shower_curtain", "bed_thing", "towel_rack"})  # fmt: skip


@dataclass(frozen=True, eq=False)
class Wall:
    """One wall from corner to corner, the room on its left.

    Attributes:
        start: (2,) first corner.
        end: (2,) second corner.
    """

    start: Floats
    end: Floats

    @property
    def length(self) -> float:
        """Metres from corner to corner."""
        return float(np.linalg.norm(self.end - self.start))

    @property
    def along(self) -> Floats:
        """(2,) unit vector from start to end."""
        direction: Floats = (self.end - self.start) / self.length
        return direction

    @property
    def inward(self) -> Floats:
        """(2,) unit vector into the room."""
        return np.array([-self.along[1], self.along[0]])

    @property
    def yaw(self) -> float:
        """Rotation that turns a piece's back to this wall."""
        return float(np.arctan2(self.inward[0], -self.inward[1]))


@dataclass(frozen=True)
class Opening:
    """A hole in a wall: ``wall`` its index, ``left`` to ``right`` along it, ``low`` to ``high``."""

    wall: int
    left: float
    right: float
    low: float
    high: float
    kind: str


@dataclass(frozen=True, eq=False)
class Solid:
    """An axis-parallel box that is taken: (3,) lowest and highest corner."""

    low: Floats
    high: Floats


@dataclass(frozen=True, eq=False)
class Item:
    """Something in the room: a mesh in place, its class and its number."""

    mesh: Mesh
    label: int
    instance: int
    piece: Piece | None = None
    position: Floats = field(default_factory=lambda: np.zeros(3))
    yaw: float = 0.0
    top: float | None = None


@dataclass(eq=False)
class Plan:
    """A room while it is being furnished.

    Attributes:
        size: (3,) width, depth, height.
        notch: (2,) extent of the missing corner at the far end of x and y; zeros: none.
        pieces: What may be put in.
        rng: Source of randomness.
    """

    size: Floats
    notch: Floats
    pieces: Pieces
    rng: np.random.Generator
    walls: list[Wall] = field(default_factory=list)
    openings: list[Opening] = field(default_factory=list)
    items: list[Item] = field(default_factory=list)
    solids: list[Solid] = field(default_factory=list)
    aisles: list[Solid] = field(default_factory=list)
    styles: dict[str, Mesh] = field(default_factory=dict)
    next_instance: int = 0

    def __post_init__(self) -> None:
        """Derive the walls."""
        width, depth = self.size[:2]
        nx, ny = self.notch
        corners = [(0.0, 0.0), (width, 0.0), (width, depth), (0.0, depth)]
        if nx > 0:
            inner = [(width, depth - ny), (width - nx, depth - ny), (width - nx, depth)]
            corners = [(0.0, 0.0), (width, 0.0), *inner, (0.0, depth)]
        points = np.array(corners)
        self.walls = [Wall(a, b) for a, b in zip(points, np.roll(points, -1, axis=0), strict=True)]

    @property
    def rectangles(self) -> list[tuple[Floats, Floats]]:
        """The floor as rectangles that do not overlap."""
        width, depth = self.size[:2]
        nx, ny = self.notch
        if nx == 0:
            return [(np.zeros(2), np.array([width, depth]))]
        return [
            (np.zeros(2), np.array([width, depth - ny])),
            (np.array([0.0, depth - ny]), np.array([width - nx, depth])),
        ]

    def _styled(self, piece: Piece) -> Mesh:
        """The piece in the finish it has in this room, the same for all of its copies."""
        if piece.name not in self.styles:
            gain = self.rng.normal(1.0, 0.12) * self.rng.normal(1.0, 0.05, 3)
            mix = np.diag(gain)
            if piece.use.role in _DYED and self.rng.random() < 0.4:
                mix = mix @ hue_rotation(float(self.rng.random() * 2 * np.pi))
            self.styles[piece.name] = piece.mesh.dyed(mix)
        return self.styles[piece.name]

    def pick(self, role: str, accept: Callable[[Piece], bool] | None = None) -> Piece | None:
        """Draw a piece of a role, None where there is none."""
        found = [p for p in self.pieces.get(role, ()) if accept is None or accept(p)]
        return found[int(self.rng.integers(len(found)))] if found else None

    def inside(self, low: Floats, high: Floats) -> bool:
        """Whether a footprint lies in the room."""
        if (low[:2] < -_SLACK).any() or (high[:2] > self.size[:2] + _SLACK).any():
            return False
        cut = self.size[:2] - self.notch
        return not (self.notch[0] > 0 and (high[:2] > cut + _SLACK).all())

    def is_free(self, low: Floats, high: Floats, *, aisles: bool = False) -> bool:
        """Whether a box lies in the room and touches nothing that is taken.

        Args:
            low: (3,) lowest corner.
            high: (3,) highest corner.
            aisles: Whether the free space before furniture counts as taken.
        """
        if not self.inside(low, high):
            return False
        solids = [*self.solids, *self.aisles] if aisles else self.solids
        if not solids:
            return True
        lows = np.array([solid.low for solid in solids])
        highs = np.array([solid.high for solid in solids])
        return not ((low < highs - _SLACK) & (high > lows + _SLACK)).all(axis=1).any()

    def block(self, low: Numbers, high: Numbers) -> None:
        """Keep a box free of furniture."""
        self.solids.append(Solid(np.asarray(low, dtype=float), np.asarray(high, dtype=float)))

    def add_mesh(self, mesh: Mesh, label: int, *, solid: bool = True) -> Item:
        """Add a mesh that is in place already."""
        item = Item(mesh, label, self.next_instance)
        self.next_instance += 1
        self.items.append(item)
        if solid:
            low, high = mesh.bounds
            self.block(low, high)
        return item

    def put(
        self,
        piece: Piece,
        position: Numbers,
        yaw: float = 0.0,
        *,
        scale: float = 1.0,
        solid: bool = True,
        check: bool = True,
        margin: float = 0.0,
        aisles: bool = False,
    ) -> Item | None:
        """Put a piece somewhere, or return None if that place is taken.

        Args:
            piece: The piece.
            position: (3,) of the middle of its lower side.
            yaw: Rotation about z in radians.
            scale: Factor on its size.
            solid: Whether others must keep off.
            check: Whether it must keep off others.
            margin: Extra distance to others in x and y.
            aisles: Whether it must keep off the free space before others.
        """
        place = np.asarray(position, dtype=np.float64)
        half = footprint(piece.size, yaw) * scale
        low = np.array([*(place[:2] - half), place[2]])
        high = np.array([*(place[:2] + half), place[2] + piece.size[2] * scale])
        wide = np.array([margin, margin, 0.0])
        if check and not self.is_free(low - wide, high + wide, aisles=aisles):
            return None
        top = None if piece.top is None else place[2] + piece.top * scale
        mesh = self._styled(piece).moved(place.tolist(), yaw, scale)
        item = Item(mesh, piece.use.label, self.next_instance, piece, place, yaw, top)
        self.next_instance += 1
        self.items.append(item)
        if solid:
            self.block(low, high)
        return item

    def put_at_wall(
        self,
        piece: Piece,
        *,
        wall: int | None = None,
        along: float | None = None,
        height: float = 0.0,
        gap: float = 0.02,
        front: float = 0.0,
        scale: float = 1.0,
        tries: int = 36,
    ) -> Item | None:
        """Put a piece with its back to a wall.

        Args:
            piece: The piece.
            wall: Index of the wall; None: any, long ones more often.
            along: Where on the wall its middle is, in metres; None: anywhere.
            height: Of its lower side.
            gap: Between it and the wall.
            front: Depth in front of it that must be free and is kept free.
            scale: Factor on its size.
            tries: Places to try.
        """
        lengths = np.array([w.length for w in self.walls])
        size = piece.size * scale
        for _ in range(tries):
            index = wall
            if index is None:
                index = int(self.rng.choice(len(lengths), p=lengths / lengths.sum()))
            side = self.walls[index]
            room = side.length - size[0]
            if room < 0:
                continue
            where = along if along is not None else size[0] / 2 + self._place_on(room)
            centre = side.start + side.along * where + side.inward * (size[1] / 2 + gap)
            if front and not self._front_free(side, where, size, height, front):
                continue
            item = self.put(piece, [*centre, height], side.yaw, scale=scale, aisles=True)
            if item is not None:
                if front:
                    self._keep_front(side, where, size, front)
                return item
        return None

    def _place_on(self, room: float) -> float:
        """Corners are as likely as everything between."""
        draw = self.rng.random()
        if draw < 0.25:
            return 0.02 if room > 0.04 else 0.0
        return room - 0.02 if draw > 0.75 and room > 0.04 else float(self.rng.random() * room)

    def _front_box(
        self, side: Wall, where: float, size: Floats, front: float
    ) -> tuple[Floats, Floats]:
        near = side.start + side.along * (where - size[0] / 2) + side.inward * size[1]
        far = side.start + side.along * (where + size[0] / 2) + side.inward * (size[1] + front)
        return np.minimum(near, far), np.maximum(near, far)

    def _front_free(
        self, side: Wall, where: float, size: Floats, height: float, front: float
    ) -> bool:
        low, high = self._front_box(side, where, size, front)
        return self.is_free(np.array([*low, height]), np.array([*high, height + 0.5]))

    def _keep_front(self, side: Wall, where: float, size: Floats, front: float) -> None:
        low, high = self._front_box(side, where, size, front)
        shrink = (high - low) * 0.1
        self.aisles.append(
            Solid(np.array([*(low + shrink), 0.03]), np.array([*(high - shrink), 2]))
        )

    def put_free(
        self, piece: Piece, *, margin: float = 0.3, tries: int = 30, turned: bool = False
    ) -> Item | None:
        """Put a piece anywhere on the floor."""
        for _ in range(tries):
            yaw = float(self.rng.integers(4)) * np.pi / 2
            if turned:
                yaw = float(self.rng.random() * 2 * np.pi)
            place = self.rng.random(2) * self.size[:2]
            item = self.put(piece, [*place, 0.0], yaw, margin=margin, aisles=True)
            if item is not None:
                return item
        return None

    def put_on(
        self, piece: Piece, support: Item, *, tries: int = 8, back: bool = False
    ) -> Item | None:
        """Put a small piece on top of another, or return None."""
        if support.top is None or support.piece is None:
            return None
        extent = footprint(support.piece.size, support.yaw)
        low, high = support.position[:2] - extent, support.position[:2] + extent
        for _ in range(tries):
            yaw = support.yaw if back else float(self.rng.random() * 2 * np.pi)
            if back:
                yaw += float(self.rng.normal(0, 0.15))
            half = footprint(piece.size, yaw)
            space = (high - low) / 2 - half - 0.02
            if (space < -0.03).any():
                return None
            offset = (self.rng.random(2) * 2 - 1) * np.maximum(space, 0.0)
            place = (low + high) / 2 + offset
            item = self.put(piece, [*place, support.top + 0.002], yaw)
            if item is not None:
                return item
        return None


def footprint(size: Floats, yaw: float) -> Floats:
    """Half the extent (2,) of the box around a turned piece."""
    cos, sin = abs(np.cos(yaw)), abs(np.sin(yaw))
    return np.array([cos * size[0] + sin * size[1], sin * size[0] + cos * size[1]]) / 2
