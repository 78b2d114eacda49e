"""Data sets of point clouds: readers for published layouts and builders of corpora."""

from __future__ import annotations

from pointzoo.data.base import ArrayDataset, PointDataset

__all__ = ["ArrayDataset", "PointDataset"]
