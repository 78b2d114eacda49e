"""Fine-tuning in one call.

A run's folder is the model's folder: ``config.json``, ``model.*.safetensors`` and ``README.md`` are
the best model so far (the last one where nothing validates); beside them lie ``last/``, the model
after the last step, ``checkpoint.safetensors`` and ``log.jsonl`` of the run, and
``validation.txt``, ``validation.json`` and ``validation.png``, the scores of the best model.
"""

from __future__ import annotations

import dataclasses
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pointzoo.cloud import IntArray
from pointzoo.data.base import PointDataset
from pointzoo.encoders.base import PointEncoder
from pointzoo.errors import ConfigError, TrainingError
from pointzoo.finetuning.config import FinetuneConfig, build_config, settled
from pointzoo.finetuning.data import (
    Data,
    Drawing,
    Items,
    class_weights,
    labelled_rows,
    require_mixable,
    split,
)
from pointzoo.finetuning.linear import fit_linear, fits_first, is_closed_form
from pointzoo.finetuning.methods import build_network
from pointzoo.finetuning.model import Model, load_model
from pointzoo.finetuning.network import Network
from pointzoo.finetuning.part import Part
from pointzoo.finetuning.renamed import with_classes
from pointzoo.finetuning.report import write_score
from pointzoo.finetuning.source import EncoderSource, resolve_encoder
from pointzoo.finetuning.table import get_task
from pointzoo.finetuning.task import Score, Task
from pointzoo.finetuning.trainer import CHECKPOINT, Run, binding, train
from pointzoo.tasks.progress import progress_bar

LAST = "last"
VALIDATION = "validation"


def finetune(
    encoder: PointEncoder | str | os.PathLike[str],
    data: Data,
    *,
    task: str = "segmentation",
    method: str | None = None,
    preset: str | None = None,
    out: str | os.PathLike[str] | None = None,
    seed: int = 0,
    resume: bool = False,
    device: str | torch.device = "cpu",
    progress: bool = False,
    **settings: Any,
) -> Model:
    """Train a model for a task on labelled clouds.

    Args:
        encoder: What to start from: a pretrained name, a weight folder, an encoder (which is left
            as it is), or the name of an architecture for random weights.
        data: A folder or file that :func:`pointzoo.data.open_dataset` opens, a data set, or a
            training and a validation set. A part named val validates, a part named test is never
            touched; without validation part ``validation_share`` of the training clouds is held
            out. Labels of points for segmentation and parts, classes of clouds for classification.
        task: ``segmentation``, ``classification``, ``part`` or ``instance``.
        method: ``linear``, ``decoder``, ``lora`` or ``full``, see
            :data:`pointzoo.finetuning.config.METHODS`; None: that of the preset, else ``linear``.
        preset: Settings by name, see :data:`pointzoo.finetuning.config.PRESETS`.
        out: Folder for the model and the run, see the top of this file; None keeps nothing on disk.
        seed: Of the held-out clouds, the head, the order, the crops and the changes.
        resume: Go on from the checkpoint in ``out``; without one the run starts from the beginning.
        device: Where to train.
        progress: Show a progress bar on stderr.
        **settings: Fields of :class:`pointzoo.finetuning.config.FinetuneConfig` and settings of the
            task, for example ``max_steps=500`` or ``label_smoothing=0.1``.

    Returns:
        The best model of the run; ``model.scores["validation"]`` says how good it is.

    Raises:
        UnknownNameError: A name or a setting is unknown.
        ConfigError: A setting is out of range, labels are missing or out of range, there are fewer
            than two classes, a part is empty, or ``out`` holds a run and ``resume`` is false.
        FormatError: A file cannot be read.
        CloudError: A cloud cannot be used.
        TrainingError: The loss is not finite, a checkpoint is damaged or cannot be written, or
            somebody stopped the run.
        WeightError: The encoder is damaged, or the model cannot be written.
    """
    kind = get_task(task)
    config, options = build_config(kind, method, preset, settings)
    network, source = resolve_encoder(encoder, seed=seed)
    config = settled(config, pretrained=source.kind != "embedded")
    train_set, validation = split(
        data, share=config.validation_share, seed=seed, objects=not kind.crops
    )
    job = _Job(
        kind.from_data(train_set, options), config, network, source, train_set, validation, seed
    )
    if out is None:
        with tempfile.TemporaryDirectory() as folder:
            return job.run(Path(folder), resume=False, device=device, progress=progress)
    return job.run(Path(out), resume=resume, device=device, progress=progress)


@dataclasses.dataclass(frozen=True, eq=False)
class _Job:
    """Everything that :func:`finetune` was given, opened and checked."""

    task: Task[Any]
    config: FinetuneConfig
    encoder: PointEncoder
    source: EncoderSource
    train_set: PointDataset
    validation: PointDataset | None
    seed: int

    def run(self, out: Path, *, resume: bool, device: str | torch.device, progress: bool) -> Model:
        """Train in a folder and return the best model."""
        require_mixable(self.task, self.encoder, self.config)
        _require_free(out, resume=resume)
        encoder = self.encoder.to(device)
        network = build_network(encoder, self.task, self.config, seed=self.seed)
        fitted = is_closed_form(network, self.config)
        thin = 0.0 if fitted and self.config.thin is None else self.config.thin
        items = Items(self.train_set, encoder, self.task, thin=thin)
        rows = labelled_rows(items)
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TrainingError(
                expected=f"a folder that can be made at {out}",
                got=str(error),
                fix="Choose another.",
            ) from error
        if fitted:
            self._fit(network, items, rows, progress=progress)
            self._keep(network, out, self._judge(network))
        else:
            begun = resume and (out / CHECKPOINT).exists()
            first = not begun and fits_first(network, self.config)
            if first:
                self._fit(network, items, rows, progress=progress)
            run = self._run(network, items, rows, out, fitted=first, progress=progress)
            done = train(run, resume=resume)
            self._model(network, None).save(out / LAST)
            if done.best is None:
                self._keep(network, out, None)
        model = load_model(out, encoder=self._folder(), device=device)
        if VALIDATION in model.scores:
            _write_score(Score.from_dict(model.scores[VALIDATION]), out)
        return model

    def _fit(self, network: Network, items: Items, rows: IntArray, *, progress: bool) -> None:
        with progress_bar("linear head", shown=progress) as bar:
            bar.start("features", len(rows))
            chosen = torch.from_numpy(rows)
            fit_linear(network, items, chosen, self.config, seed=self.seed, after_cloud=bar.advance)

    def _run(
        self,
        network: Network,
        items: Items,
        rows: IntArray,
        out: Path,
        *,
        fitted: bool,
        progress: bool,
    ) -> Run:
        return Run(
            network=network,
            drawing=Drawing(items, rows, self.config, self.seed),
            config=self.config,
            class_weights=class_weights(items, rows, self.config),
            validation=self._named(self.validation),
            out=out,
            facts=self._facts(),
            keep_best=lambda score: self._keep(network, out, score),
            fitted=fitted,
            progress=progress,
        )

    def _judge(self, network: Network) -> Score | None:
        validation = self._named(self.validation)
        return None if validation is None else self.task.evaluate(network.eval(), validation)

    def _named(self, data: PointDataset | None) -> PointDataset | None:
        if data is None or isinstance(self.task, Part):
            return data
        return with_classes(data, self.task.class_names)

    def _keep(self, network: Network, out: Path, score: Score | None) -> None:
        """Write the model with its score."""
        self._model(network, score).save(out)

    def _model(self, network: Network, score: Score | None) -> Model:
        settings = {
            **binding(self.config), "seed": self.seed, "data": self.train_set.name,
            "clouds": len(self.train_set), "started_from": self.source.name,
        }  # fmt: skip
        source = self.source
        if self.config.method == "full":  # every weight is another one now
            source = dataclasses.replace(
                source, kind="embedded", name=source.architecture, sha256="", commit="",
                config=self.encoder.config.to_dict(),
            )  # fmt: skip
        return Model(
            network,
            self.config.method,
            source,
            rank=self.config.rank if self.config.method == "lora" else 0,
            hidden=self.config.hidden if self.config.method == "decoder" else 0,
            settings=settings,
            scores={} if score is None else {VALIDATION: score.to_dict()},
        )

    def _folder(self) -> str | None:
        return self.source.name if self.source.kind == "folder" else None

    def _facts(self) -> dict[str, Any]:
        validation = None if self.validation is None else len(self.validation)
        labels = self.train_set.labels
        return {
            "config": binding(self.config),
            "task": self.task.to_dict(),
            "encoder": self.source.to_dict(),
            "data": [self.train_set.name, len(self.train_set), validation],
            "classes": [] if labels is None else np.bincount(np.asarray(labels) + 1).tolist(),
            "seed": self.seed,
        }


def _write_score(score: Score, out: Path) -> None:
    try:
        write_score(score, out, VALIDATION)
    except OSError as error:
        raise TrainingError(
            expected=f"room to write the scores into {out}",
            got=str(error),
            fix="Free space and go on with resume=True; the model itself is whole.",
        ) from error


def _require_free(out: Path, *, resume: bool) -> None:
    if not resume and (out / CHECKPOINT).exists():
        raise ConfigError(
            expected=f"a folder without a run in {out}",
            got=CHECKPOINT,
            fix="Pass resume=True (--resume) to go on, or choose another folder.",
        )
