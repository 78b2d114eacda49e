"""Where the encoder of a model comes from: what has to be there to build it again."""

from __future__ import annotations

import copy
import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
import torch
from torch import Tensor

from pointzoo.encoders.base import PointEncoder
from pointzoo.encoders.registry import ARCHITECTURES, build
from pointzoo.errors import ConfigError, InputError, WeightError
from pointzoo.hub import is_hub_name
from pointzoo.weights import MODEL_FILE, architecture_of, read_config
from pointzoo.zoo import WEIGHTS, create_encoder, encoder_info, load_encoder, weights_folder


@dataclass(frozen=True)
class EncoderSource:
    """An encoder by name, by folder, or as an architecture whose weights lie in the model.

    Attributes:
        kind: ``registered``: a pretrained name; ``hub``: one on the Hub, with its commit;
            ``folder``: a weight folder; ``embedded``: none of these, so that the model holds all
            weights.
        name: The name, the folder, or the architecture.
        architecture: The architecture.
        config: Its settings, as JSON types.
        sha256: Checksum of the weight; empty for an embedded one.
        commit: Commit that made the weight, as its card says; empty where no card says it.
    """

    kind: Literal["registered", "hub", "folder", "embedded"]
    name: str
    architecture: str
    config: Mapping[str, Any]
    sha256: str = ""
    commit: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return JSON types."""
        return dataclasses.asdict(self)

    def build(
        self, folder: str | os.PathLike[str] | None = None, *, most: int | None = None
    ) -> PointEncoder:
        """Return the encoder: loaded and verified, or empty where it is embedded.

        Args:
            folder: Where the weight folder lies now, if it is not where it was.
            most: Bytes that an embedded encoder may have, as its file cannot hold more.

        Raises:
            WeightError: The encoder is not there, or it is not the one that the model was trained
                on.
        """
        if self.kind == "embedded":
            try:
                self._require_size(most)
                with torch.random.fork_rng(devices=[]):
                    return build(self.architecture, **self.config).eval()
            except WeightError:
                raise
            except (TypeError, ValueError, RuntimeError) as error:
                raise WeightError(
                    expected=f"an architecture that this release knows ({self.architecture!r})",
                    got=str(error),
                    fix="Install the release of pointzoo that wrote the model.",
                ) from error
        self._require_kind()
        try:
            place = folder or self.name
            found = encoder_info(place).sha256
            encoder = load_encoder(place)
        except InputError as error:
            raise WeightError(
                expected=f"the encoder {self.name!r} that the model was trained on",
                got=str(error),
                fix="Pass load_model(..., encoder=FOLDER), or install the release that has it.",
            ) from error
        if found != self.sha256:
            raise WeightError(
                expected=f"the encoder {self.name!r} with the sha256 {self.sha256[:12]}...",
                got=f"{str(found)[:12]}...",
                fix="Pass load_model(..., encoder=FOLDER) with the one that the model needs.",
            )
        return encoder

    def _require_size(self, most: int | None) -> None:
        """Build it without memory first: a config that was tampered with may describe anything."""
        with torch.device("meta"):
            tensors = build(self.architecture, **self.config).state_dict().values()
        size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        if most is not None and size > most:
            raise WeightError(
                expected=f"an encoder of at most {most:,} bytes, as the model's file has",
                got=f"{size:,}",
                fix="The folder was edited: get it again.",
            )

    def _require_kind(self) -> None:
        """Refuse a name of another kind than is said, so that none is fetched by surprise."""
        hub, known = is_hub_name(self.name), self.name in WEIGHTS
        if self.kind not in ("registered", "hub", "folder") or (
            (hub, known) != (self.kind == "hub", self.kind == "registered")
        ):
            raise WeightError(
                expected="the encoder of a model by name, folder or hub name, as its kind says",
                got=f"{self.kind} {self.name!r}",
                fix="The folder was edited: get it again.",
            )


def resolve_encoder(
    encoder: PointEncoder | str | os.PathLike[str], *, seed: int, storable: bool = True
) -> tuple[PointEncoder, EncoderSource]:
    """Return an encoder that may be changed, and where it comes from.

    An encoder that equals a registered weight bit for bit is named; any other object, and one with
    random weights, counts as embedded.

    Args:
        encoder: An encoder, which is copied; a pretrained name or a weight folder; or the name of
            an architecture, for random weights.
        seed: Of random weights.
        storable: Whether a model on it has to be saved: then its architecture must be registered.

    Raises:
        UnknownNameError: There is no such encoder.
        WeightError: The weight is damaged.
        ConfigError: ``encoder`` is something else, or of no registered architecture.
    """
    if isinstance(encoder, PointEncoder):
        known = any(type(encoder) is entry.encoder_class for entry in ARCHITECTURES.values())
        name = _registered_name(encoder) if known else None
        source = EncoderSource("embedded", "", "", {})
        if name is not None:
            source = _named(name)
        elif known or storable:
            source = embedded(encoder)
        return copy.deepcopy(encoder).eval(), source
    if not isinstance(encoder, str | os.PathLike):
        raise ConfigError(
            expected="an encoder, its name or its folder",
            got=type(encoder).__name__,
            fix="pointzoo.list_encoders() lists the names.",
        )
    if isinstance(encoder, str) and encoder in ARCHITECTURES:
        fresh = create_encoder(encoder, seed=seed)
        return fresh, embedded(fresh)
    return load_encoder(encoder), _named(encoder)


def embedded(encoder: PointEncoder) -> EncoderSource:
    """Return the source of an encoder whose weights lie in the model."""
    architecture = architecture_of(encoder)
    return EncoderSource("embedded", architecture, architecture, encoder.config.to_dict())


def _named(place: str | os.PathLike[str]) -> EncoderSource:
    info = encoder_info(place)
    kind: Literal["registered", "hub", "folder"] = "folder"
    if is_hub_name(place):
        kind = "hub"
    elif isinstance(place, str) and place in WEIGHTS:
        kind = "registered"
    return EncoderSource(
        kind=kind,
        name=str(Path(place).resolve()) if kind == "folder" else info.name,
        architecture=info.architecture,
        config={},
        sha256=info.sha256 or "",
        commit=info.card.commit if info.card else "",
    )


def _registered_name(encoder: PointEncoder) -> str | None:
    """Return the registered weight that an encoder equals bit for bit; files are compared."""
    state = encoder.state_dict()
    for name, weight in WEIGHTS.items():
        known = ARCHITECTURES[weight.architecture]
        folder = weights_folder() / name
        if known.encoder_class is not type(encoder) or not (folder / MODEL_FILE).is_file():
            continue
        if read_config(folder)["config"] == encoder.config.to_dict():
            stored = safetensors.torch.load_file(folder / MODEL_FILE)
            if _same(stored, state):
                return name
    return None


def _same(stored: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> bool:
    return stored.keys() == state.keys() and all(
        torch.equal(stored[name].to(value.dtype), value.cpu()) for name, value in state.items()
    )
