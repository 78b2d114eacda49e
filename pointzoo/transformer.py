"""Scene features as a step of a scikit-learn pipeline (extra ``eval``)."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from pointzoo.errors import ConfigError, MissingExtraError
from pointzoo.features import extract
from pointzoo.zoo import load_encoder

try:
    from sklearn.base import BaseEstimator, TransformerMixin
    from sklearn.utils.validation import check_is_fitted
except ImportError as error:
    raise MissingExtraError("scikit-learn", "eval") from error

if TYPE_CHECKING:
    from pointzoo.cloud import FloatArray
    from pointzoo.encoders.base import PointEncoder


class FeatureTransformer(TransformerMixin, BaseEstimator):
    """One row of features per cloud, for scikit-learn.

    ::

        model = make_pipeline(pz.FeatureTransformer(), StandardScaler(), SVC(kernel="linear"))
        model.fit(["chair_1.ply", "lamp_1.ply"], ["chair", "lamp"])

    A sample is anything that :func:`pointzoo.extract` takes as one cloud. Nothing is learnt from
    the clouds: ``fit`` only loads the encoder.

    Attributes:
        encoder: Name, folder, or encoder; as :func:`pointzoo.load_encoder` takes it.
        device: Where a name or a folder is loaded to, for example ``cuda``.
        batch_points: Clouds are computed together up to this many points.
        progress: Show a progress bar on stderr.
        encoder_: The encoder; there after ``fit``.
    """

    def __init__(
        self,
        encoder: str | os.PathLike[str] | PointEncoder = "vit3d_tiny.dcglr_shapes",
        *,
        device: str = "cpu",
        batch_points: int = 65_536,
        progress: bool = False,
    ) -> None:
        """Keep the settings, unchecked, as scikit-learn wants it."""
        self.encoder = encoder
        self.device = device
        self.batch_points = batch_points
        self.progress = progress

    def fit(self, X: Iterable[Any], y: Any = None) -> FeatureTransformer:  # noqa: ARG002, N803
        """Load the encoder.

        Args:
            X: Clouds; not looked at.
            y: Not looked at.

        Raises:
            UnknownNameError: There is no such encoder.
            WeightError: The weight is damaged.
        """
        self.encoder_: PointEncoder = (
            load_encoder(self.encoder, device=self.device)
            if isinstance(self.encoder, str | os.PathLike)
            else self.encoder
        )
        return self

    def transform(self, X: Iterable[Any]) -> FloatArray:  # noqa: N803
        """Return the scene features (B, D) float32 of B clouds.

        Args:
            X: B clouds: paths, :class:`pointzoo.PointCloud`, (N, 3+) arrays ...

        Raises:
            ConfigError: ``X`` is one path instead of several, or holds no cloud.
            CloudError: See :func:`pointzoo.extract`.
            FormatError: A file cannot be read as a point cloud.
        """
        check_is_fitted(self)
        if isinstance(X, str):
            raise ConfigError(expected="several clouds", got=f"one path, {X}", fix="Pass a list.")
        found = extract(
            self.encoder_, list(X), batch_points=self.batch_points, progress=self.progress
        )
        scenes: FloatArray = np.stack([features.scene for features in found])
        return scenes

    def get_feature_names_out(self, input_features: Any = None) -> Any:  # noqa: ARG002
        """Return the names of the D columns, ``scene_0`` and so on."""
        check_is_fitted(self)
        columns = range(self.encoder_.scene_channels)
        return np.array([f"scene_{column}" for column in columns], dtype=object)

    def __sklearn_tags__(self) -> Any:
        """Declare that samples are clouds, not rows of numbers."""
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        tags.input_tags.string = True
        tags.target_tags.required = False
        return tags
