"""All tasks, by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from pointzoo.errors import UnknownNameError
from pointzoo.finetuning.classification import Classification
from pointzoo.finetuning.instance import Instance
from pointzoo.finetuning.part import Part
from pointzoo.finetuning.segmentation import Segmentation
from pointzoo.finetuning.task import Task

TASKS: Mapping[str, type[Task[Any]]] = MappingProxyType(
    {kind.name: kind for kind in (Segmentation, Classification, Instance, Part)}
)


def get_task(name: str) -> type[Task[Any]]:
    """Return a kind of task by name.

    Raises:
        UnknownNameError: There is no such task.
    """
    if name not in TASKS:
        raise UnknownNameError.of("task", name, TASKS)
    return TASKS[name]
