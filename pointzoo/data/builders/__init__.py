"""Builders of the corpora that the bundled weights are trained and measured on."""

from __future__ import annotations

from pointzoo.data.builders.infinigen import build_infinigen
from pointzoo.data.builders.ldraw import build_ldraw
from pointzoo.data.builders.morse import build_morse
from pointzoo.data.builders.rooms import build_rooms
from pointzoo.data.builders.sh3d import build_sh3d

__all__ = ["build_infinigen", "build_ldraw", "build_morse", "build_rooms", "build_sh3d"]
