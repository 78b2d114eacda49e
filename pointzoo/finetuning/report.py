"""A score as files: a table, JSON, and a picture of the confusion matrix.

Shape legend: K classes.
"""

from __future__ import annotations

import json
from pathlib import Path

from pointzoo.errors import MissingExtraError
from pointzoo.finetuning.task import Score
from pointzoo.io.files import replacing
from pointzoo.viz import confusion_figure


def write_score(score: Score, folder: Path, name: str) -> list[Path]:
    """Write ``NAME.txt``, ``NAME.json`` and, where there is a confusion matrix, ``NAME.png``.

    The picture needs matplotlib; without it there is none.

    Args:
        score: What to write.
        folder: An existing folder.
        name: Of the files.

    Returns:
        What was written.
    """
    texts = {
        f"{name}.txt": score.table() + "\n",
        f"{name}.json": json.dumps(score.to_dict(), indent=1) + "\n",
    }
    written = []
    for file, text in texts.items():
        with replacing(folder / file) as stream:
            stream.write(text.encode())
        written.append(folder / file)
    if score.confusion:
        try:
            names = score.class_names
            written.append(confusion_figure(score.confusion, names, folder / f"{name}.png"))
        except MissingExtraError:
            return written
    return written
