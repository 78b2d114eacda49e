"""Scene features in scikit-learn: its own checks, pipelines, grids."""

import pickle
import warnings

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.utils.estimator_checks import check_estimator

import pointzoo as pz
from pointzoo.errors import ConfigError, UnknownNameError

NOT_FOR_CLOUDS = {
    "check_n_features_in": "clouds have any number of points: no n_features_in_",
    "check_n_features_in_after_fitting": "clouds have any number of points: no n_features_in_",
    "check_complex_data": "fit does not look at the clouds, which may be files",
    "check_estimators_empty_data_messages": "fit does not look at the clouds",
    "check_estimators_nan_inf": "fit does not look at the clouds",
    "check_estimator_sparse_tag": "fit does not look at the clouds",
    "check_fit1d": "fit does not look at the clouds",
    "check_fit2d_predict1d": "no 2-D arrays: nothing to reshape",
    "check_transformer_general": "clouds have any number of points, in transform as in fit",
    "check_transformer_preserve_dtypes": "features are float32 whatever the points are",
}


class OfRows(pz.FeatureTransformer):
    """Takes a row of numbers for a cloud, so that the checks for 2-D arrays can be made at all."""

    def transform(self, X):  # noqa: N803
        rows = np.asarray(X, float)
        return super().transform([np.resize(row, (8, 3)) for row in rows])

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = True
        return tags


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("encoder") / "weights"
    return str(pz.save_encoder(pz.create_encoder("vit3d_test", seed=0), folder))


def clouds(count: int, seed: int = 0):
    """Flat and round clouds in turn."""
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(40 + i, 3)) * (1, 1, i % 2) for i in range(count)]


def test_the_checks_of_scikit_learn_pass(weights):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of checks that skip themselves
        found = check_estimator(
            OfRows(weights), expected_failed_checks=NOT_FOR_CLOUDS, on_fail=None, on_skip=None
        )
    status = {result["check_name"]: result["status"] for result in found}
    failed = {r["check_name"]: r["exception"] for r in found if r["status"] == "failed"}
    assert not failed
    excused = {r["check_name"] for r in found if r["exception"] and r["expected_to_fail"]}
    assert excused == set(NOT_FOR_CLOUDS)  # an excuse that is not needed any more is taken out
    assert sum(value == "passed" for value in status.values()) >= 25


def test_rows_are_the_scene_features(weights):
    encoder, given = pz.load_encoder(weights), clouds(3)
    rows = pz.FeatureTransformer(weights).fit_transform(given)
    np.testing.assert_array_equal(rows, np.stack([f.scene for f in encoder.extract(given)]))
    held = pz.FeatureTransformer(encoder).fit(given)
    assert held.encoder_ is encoder
    np.testing.assert_array_equal(held.transform(given), rows)


def test_a_pipeline_with_an_svm_is_three_lines(weights, tmp_path):
    names = ["flat", "round"] * 8
    paths = []
    for number, cloud in enumerate(clouds(16)):
        paths.append(str(tmp_path / f"{number}.npy"))
        np.save(paths[-1], cloud)
    model = make_pipeline(pz.FeatureTransformer(weights), StandardScaler(), SVC(kernel="linear"))
    model.fit(paths, names)
    assert model.score(clouds(6, seed=1), names[:6]) == 1.0
    again = pickle.loads(pickle.dumps(model))  # noqa: S301
    assert list(again.predict(paths[:2])) == names[:2]
    grid = GridSearchCV(model, {"svc__C": [0.1, 1.0]}, cv=2).fit(paths, names)
    assert grid.best_score_ > 0.5


def test_columns_have_names(weights):
    step = clone(pz.FeatureTransformer(weights)).fit(clouds(2))
    names = step.get_feature_names_out()
    assert list(names[:2]) == ["scene_0", "scene_1"]
    assert len(names) == step.transform(clouds(1)).shape[1]


def test_mistakes_are_named(weights):
    with pytest.raises(NotFittedError):
        pz.FeatureTransformer(weights).transform(clouds(1))
    with pytest.raises(ConfigError, match="several clouds"):
        pz.FeatureTransformer(weights).fit([]).transform("chair.ply")
    with pytest.raises(UnknownNameError):
        pz.FeatureTransformer("vit4d").fit([])
