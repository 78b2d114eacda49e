"""Encoders by name: build one, load a pretrained one, list what there is."""

from __future__ import annotations

import dataclasses
import fnmatch
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from pointzoo.cards import Card, read_card
from pointzoo.encoders.base import Capabilities, Channel, PointEncoder
from pointzoo.encoders.registry import ARCHITECTURES, build
from pointzoo.errors import ConfigError, FormatError, LicenseWarning, UnknownNameError
from pointzoo.hub import HubName, cached, fetch, is_hub_name
from pointzoo.weights import MODEL_FILE, build_described, load_folder, read_config, save_encoder

__all__ = [
    "WEIGHTS",
    "EncoderInfo",
    "Weight",
    "create_encoder",
    "encoder_info",
    "list_encoders",
    "load_encoder",
    "save_encoder",
]


@dataclass(frozen=True)
class Weight:
    """A pretrained weight, pinned.

    Attributes:
        name: ``architecture.recipe_corpus``; its folder in ``weights_cards`` has the same name.
        architecture: A registered architecture.
        sha256: Checksum of its ``model.safetensors``.
        repo: Repository on the Hub, for a weight that is not bundled.
        commit: The commit there, 40 hexadecimal digits.
    """

    name: str
    architecture: str
    sha256: str
    repo: str = ""
    commit: str = ""


_TABLE: tuple[Weight, ...] = (
    Weight(
        "dgcnn_small.dcglr_shapes",
        "dgcnn_small",
        "c0be9734ce1d97ed0a053f53f41139186e931d7ec05a2bd8b771e7b9ed55d980",
    ),
    Weight(
        "pct_small.dcglr_shapes",
        "pct_small",
        "abb7e99c1ebc6b1bc1f79e00779f4fd5a721646fd04d226fafdcc1d60a1c1e92",
    ),
    Weight(
        "sparseunet14.msc_rooms",
        "sparseunet14",
        "e2c1f201daf4aaadfdc5cf5f21b9330e13bd110305e1ee0a3c8322c18eede06e",
    ),
    Weight(
        "vit3d_tiny.dcglr_shapes",
        "vit3d_tiny",
        "1fbb5264267579b21e0b7771290129040e2a2b3b26a61ddbe5bf5f64d6e762a5",
    ),
)


@dataclass(frozen=True)
class EncoderInfo:
    """What there is to know about an encoder before loading it.

    Attributes:
        name: Registered name, or the name of the folder.
        architecture: Its architecture; equal to ``name`` for one without trained weights.
        description: One line about the architecture.
        pretrained: Whether it has trained weights.
        parameters: Number of parameters.
        channels: What it reads from a cloud, in order.
        out_channels: C, width of a point feature.
        scene_channels: D, width of the scene feature.
        max_points: Larger clouds are subsampled inside, and interpolated back; None if never.
        capabilities: What differs between encoders.
        commercial: Whether code, weights and training data allow commercial use; None if no card
            says so.
        runs_here: Whether no package, device or download is missing on this machine.
        sha256: Checksum of the weight, or None.
        folder: Where the weight lies, or None.
        card: The card of the weight, or None if it has no complete one.
    """

    name: str
    architecture: str
    description: str
    pretrained: bool
    parameters: int
    channels: tuple[Channel, ...]
    out_channels: int
    scene_channels: int
    max_points: int | None
    capabilities: Capabilities
    commercial: bool | None
    runs_here: bool = True
    sha256: str | None = None
    folder: Path | None = None
    card: Card | None = None


def _unique(table: tuple[Weight, ...]) -> Mapping[str, Weight]:
    names = [*(entry.name for entry in table), *ARCHITECTURES]
    assert len(set(names)) == len(names), f"duplicate name in {names}"
    return MappingProxyType({entry.name: entry for entry in table})


WEIGHTS: Mapping[str, Weight] = _unique(_TABLE)


def weights_folder() -> Path:
    """Return the folder of the bundled weights: inside the wheel, or beside it in a checkout."""
    package = Path(__file__).parent
    installed = package / "weights_cards"
    return installed if installed.is_dir() else package.parent / "weights_cards"


def create_encoder(architecture: str, *, seed: int = 0, **config: Any) -> PointEncoder:
    """Build an encoder with random weights, on the CPU, in evaluation mode.

    The global random state is neither read nor changed.

    Args:
        architecture: A registered architecture, for example ``"vit3d_tiny"``.
        seed: Seed of the random weights.
        config: Settings that differ from the architecture's own, for example
            ``channels=("colors",)``.

    Raises:
        UnknownNameError: There is no such architecture.
        ConfigError: A setting is unknown or out of range.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return build(architecture, **config).eval()


def load_encoder(
    source: str | os.PathLike[str], *, device: str | torch.device = "cpu"
) -> PointEncoder:
    """Load a pretrained encoder: float32, evaluation mode, verified.

    The sha256 of the tensors and the encoder's output on a bundled sample must be those that were
    written down when the weight was made. Nothing is fetched but what is on the Hub and was not
    fetched before. A weight that may not be used commercially says so, once in a process
    (:class:`pointzoo.errors.LicenseWarning`).

    Args:
        source: A registered name (:func:`list_encoders` with ``pretrained=True``), a folder
            written by :func:`save_encoder`, or ``hf-hub:owner/repo@revision``. A name wins over a
            folder of the same name.
        device: Where the encoder shall live.

    Raises:
        UnknownNameError: ``source`` is none of these; the message lists the nearest names.
        HubError: The repository is not there, not allowed, or the Hub cannot be reached.
        WeightError: The weight is damaged or not what its config or the registry says.
        ConfigError: There is no such device.
    """
    folder, weight = locate(source)
    encoder = load_folder(folder, sha256=weight.sha256 if weight else None)
    warn_of_license(folder)
    try:
        return encoder.to(device)
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        raise ConfigError(
            expected="a device of this machine", got=f"{device!s}", fix=str(error).splitlines()[0]
        ) from error


def start_encoder(source: str | os.PathLike[str], *, seed: int = 0, **config: Any) -> PointEncoder:
    """Return what a training starts from: random weights of an architecture, or pretrained ones.

    Args:
        source: A registered architecture, a registered weight, or a weight folder.
        seed: Seed of the random weights; pretrained ones do not need it.
        config: Settings of an architecture that differ from its own; those that it does not have
            are left out, and pretrained weights keep theirs.

    Raises:
        UnknownNameError: ``source`` is none of these.
        WeightError: See :func:`load_encoder`.
    """
    if isinstance(source, str) and source in ARCHITECTURES:
        known = {field.name for field in dataclasses.fields(ARCHITECTURES[source].config)}
        own = {key: value for key, value in config.items() if key in known}
        return create_encoder(source, seed=seed, **own)
    return load_encoder(source)


def list_encoders(
    pattern: str = "*",
    *,
    pretrained: bool | None = None,
    commercial: bool | None = None,
    runs_here: bool | None = None,
) -> list[str]:
    """Return the names of the encoders that match, sorted.

    Args:
        pattern: Shell pattern, for example ``"vit3d*"``.
        pretrained: Only those with (True) or without (False) trained weights.
        commercial: Only those whose three licences allow (True) or do not allow (False)
            commercial use.
        runs_here: Only those that can (True) or cannot (False) run on this machine as it is.
    """
    wanted = {"pretrained": pretrained, "commercial": commercial, "runs_here": runs_here}
    asked = {key: value for key, value in wanted.items() if value is not None}
    names = fnmatch.filter(sorted([*ARCHITECTURES, *WEIGHTS]), pattern)
    if not asked:
        return names
    infos = [encoder_info(name) for name in names]
    return [i.name for i in infos if all(getattr(i, key) == value for key, value in asked.items())]


def encoder_info(source: str | os.PathLike[str]) -> EncoderInfo:
    """Describe an architecture, a pretrained encoder, or a weight folder, without loading weights.

    Args:
        source: A name of :func:`list_encoders`, a folder, or ``hf-hub:owner/repo@revision``, which
            is fetched as by :func:`load_encoder`. A registered name is never fetched.

    Raises:
        UnknownNameError: There is no such name or folder.
        HubError: See :func:`load_encoder`.
        WeightError: ``config.json`` of the folder is malformed.
    """
    if isinstance(source, str) and source in ARCHITECTURES:
        with torch.device("meta"):
            return _info(source, source, build(source), pretrained=False, commercial=True)
    if isinstance(source, str) and source in WEIGHTS and bundled(source) is None:
        weight = WEIGHTS[source]
        if cached(HubName(weight.repo, weight.commit)) is None:
            with torch.device("meta"):
                return _info(
                    source, weight.architecture, build(weight.architecture), pretrained=True,
                    commercial=None, runs_here=False, sha256=weight.sha256,
                )  # fmt: skip
    folder, entry = locate(source)
    config = read_config(folder)
    card = complete_card(folder)
    return _info(
        _name(source, folder, entry),
        config["architecture"],
        build_described(config),
        pretrained=True,
        runs_here=(folder / MODEL_FILE).is_file(),
        commercial=card.commercial if card else None,
        sha256=entry.sha256 if entry else config["sha256"],
        folder=folder,
        card=card,
    )


def _info(name: str, architecture: str, encoder: PointEncoder, **known: Any) -> EncoderInfo:
    return EncoderInfo(
        name=name,
        architecture=architecture,
        description=ARCHITECTURES[architecture].description,
        parameters=sum(p.numel() for p in encoder.parameters()),
        channels=encoder.channel_contract,
        out_channels=encoder.out_channels,
        scene_channels=encoder.scene_channels,
        max_points=getattr(encoder.config, "max_points", None),
        capabilities=encoder.capabilities,
        **known,
    )


def complete_card(folder: Path) -> Card | None:
    """Return the card of a weight folder, or None if it has no complete one."""
    try:
        return read_card(folder)
    except FormatError:  # a weight of one's own needs no card; check_card says what is missing
        return None


_warned: set[str] = set()


def warn_of_license(folder: Path) -> None:
    """Say, once for each weight, that its licences do not all allow commercial use."""
    card = complete_card(folder)
    if card is not None and not card.commercial and card.name not in _warned:
        _warned.add(card.name)
        warnings.warn(
            f"{card.name} is not for commercial use: code {card.code_license}, weights "
            f"{card.license}, data {', '.join(card.data_licenses)}",
            LicenseWarning,
            stacklevel=3,
        )


def bundled(name: str) -> Path | None:
    """Return the folder of a registered weight inside the package, or None if it is elsewhere."""
    folder = weights_folder() / name
    return None if WEIGHTS[name].repo and not folder.is_dir() else folder


def _name(source: str | os.PathLike[str], folder: Path, entry: Weight | None) -> str:
    """Return the name of a weight; one on the Hub is named with its commit."""
    if is_hub_name(source):
        return str(HubName(HubName.parse(source).repo, folder.name))
    return entry.name if entry else folder.name


def locate(source: str | os.PathLike[str]) -> tuple[Path, Weight | None]:
    """Return the folder of a weight, fetched if need be, and its entry in the registry if any.

    Raises:
        UnknownNameError: There is no such name or folder.
        HubError: It is on the Hub and cannot be had.
    """
    if isinstance(source, str) and source in WEIGHTS:
        weight = WEIGHTS[source]
        return bundled(source) or fetch(HubName(weight.repo, weight.commit)), weight
    if is_hub_name(source):
        return fetch(HubName.parse(source)), None
    if not isinstance(source, str | os.PathLike):
        raise ConfigError(
            expected="the name of an encoder or a folder",
            got=type(source).__name__,
            fix="pointzoo.list_encoders() lists the names.",
        )
    folder = Path(source)
    if folder.is_dir():
        return folder, None
    if str(source) in ARCHITECTURES:
        raise UnknownNameError(
            expected="the name or folder of a pretrained encoder",
            got=f"the architecture {str(source)!r}",
            fix=f"create_encoder({str(source)!r}) builds it with random weights; "
            f"pretrained: {', '.join(sorted(WEIGHTS)) or 'none'}.",
        )
    raise UnknownNameError.of("encoder", str(source), [*WEIGHTS, *ARCHITECTURES])
