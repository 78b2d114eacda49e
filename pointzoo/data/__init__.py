"""Data sets of point clouds: readers for published layouts and builders of corpora."""

from __future__ import annotations

from pointzoo.data.base import ArrayDataset, PointDataset
from pointzoo.data.folder import FileDataset, read_folder
from pointzoo.data.joined import JoinedDataset, join_datasets
from pointzoo.data.labelled_folder import FolderDataset, open_folder
from pointzoo.data.labelling import Labelling
from pointzoo.data.open import open_dataset

__all__ = [
    "ArrayDataset",
    "FileDataset",
    "FolderDataset",
    "JoinedDataset",
    "Labelling",
    "PointDataset",
    "join_datasets",
    "open_dataset",
    "open_folder",
    "read_folder",
]
