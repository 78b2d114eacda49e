"""Simple classifiers on frozen features, by the name of their protocol.

=========== ====================================================================================
name        what it is
=========== ====================================================================================
svm         ``SVC(kernel="linear", C=1)`` on the features as they are: the protocol of STRL
            (Huang et al., ICCV 2021), which DCGLR follows in section 5.1
svm_l2      ``LinearSVC(C=1)`` on L2-normalised features: the protocol of POS-BERT
svm_tuned   as ``svm`` on standardised features, C chosen by inner 3-fold cross-validation on the
            training items; fair to features of any scale
logistic    multinomial logistic regression on standardised features, C chosen likewise
knn         20 nearest neighbours in cosine similarity, votes weighted by exp(similarity / 0.07):
            the protocol of DINO, on standardised features
knn_raw     as ``knn`` on the features as they are
knn1        the nearest neighbour in cosine similarity of standardised features
=========== ====================================================================================

Standardised: mean 0 and variance 1 per channel on the training items, then divided by sqrt(D), so
that an item has length 1 on average and C means the same for every D.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Mapping
from types import MappingProxyType, ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pointzoo.cloud import IntArray
from pointzoo.errors import MissingExtraError, UnknownNameError
from pointzoo.metrics import knn_predict
from pointzoo.tasks.labelled import stratified_folds

Matrix = NDArray[np.floating[Any]]
Classifier = Callable[[Matrix, IntArray, Matrix], IntArray]
"""From training features (R, D), their labels (R,) and features (M, D) to classes (M,)."""

_TUNED_C = (0.1, 1.0, 10.0, 100.0)
_INNER_FOLDS = 3


def get_classifier(name: str) -> Classifier:
    """Return a classifier by the name of its protocol (see the table above).

    Raises:
        UnknownNameError: There is no such classifier.
    """
    if name not in CLASSIFIERS:
        raise UnknownNameError.of("classifier", name, CLASSIFIERS)
    return CLASSIFIERS[name]


def standardize(train: Matrix, test: Matrix) -> tuple[Matrix, Matrix]:
    """Scale both to mean 0, variance 1 and length 1 on average, as measured on the training items.

    A channel that is constant on the training items becomes 0.
    """
    train, test = train.astype(np.float64), test.astype(np.float64)
    mean, deviation = train.mean(axis=0), train.std(axis=0)
    constant = deviation <= 1e-9 * np.abs(mean)
    scale = np.where(constant, 0.0, 1.0 / np.where(constant, 1.0, deviation))
    scale = scale / np.sqrt(train.shape[1])
    return (train - mean) * scale, (test - mean) * scale


def _svm(train: Matrix, labels: IntArray, test: Matrix) -> IntArray:
    model = _sklearn("svm").SVC(kernel="linear", C=1.0)
    return _fit_predict(model, train, labels, test)


def _svm_l2(train: Matrix, labels: IntArray, test: Matrix) -> IntArray:
    model = _sklearn("svm").LinearSVC(C=1.0, random_state=0)
    return _fit_predict(model, _unit_rows(train), labels, _unit_rows(test))


def _svm_tuned(train: Matrix, labels: IntArray, test: Matrix) -> IntArray:
    # the products of all pairs once instead of for every C and fold: the same classifier
    train, test = standardize(train, test)
    model = _sklearn("svm").SVC(kernel="precomputed")
    return _tuned(model, train @ train.T, labels, test @ train.T)


def _logistic(train: Matrix, labels: IntArray, test: Matrix) -> IntArray:
    model = _sklearn("linear_model").LogisticRegression(max_iter=500)
    scaled, scaled_test = standardize(train, test)
    return _tuned(model, scaled, labels, scaled_test)


def _knn(train: Matrix, labels: IntArray, test: Matrix) -> IntArray:
    return _nearest(*standardize(train, test), labels, k=20)


def _knn_raw(train: Matrix, labels: IntArray, test: Matrix) -> IntArray:
    return _nearest(train, test, labels, k=20)


def _knn1(train: Matrix, labels: IntArray, test: Matrix) -> IntArray:
    return _nearest(*standardize(train, test), labels, k=1)


CLASSIFIERS: Mapping[str, Classifier] = MappingProxyType(
    {
        "svm": _svm,
        "svm_l2": _svm_l2,
        "svm_tuned": _svm_tuned,
        "logistic": _logistic,
        "knn": _knn,
        "knn_raw": _knn_raw,
        "knn1": _knn1,
    }
)


def _tuned(model: Any, train: Matrix, labels: IntArray, test: Matrix) -> IntArray:
    """Fit with the C that classifies best in inner cross-validation; of equals the smallest."""
    smallest = int(np.unique(labels, return_counts=True)[1].min())
    if smallest >= _INNER_FOLDS:
        fold = stratified_folds(labels, _INNER_FOLDS, np.random.default_rng(0))
        splits = [(np.flatnonzero(fold != f), np.flatnonzero(fold == f)) for f in range(3)]
        model = _sklearn("model_selection").GridSearchCV(model, {"C": _TUNED_C}, cv=splits)
    return _fit_predict(model, train, labels, test)


def _fit_predict(model: Any, train: Matrix, labels: IntArray, test: Matrix) -> IntArray:
    with warnings.catch_warnings():
        # a solver at its iteration limit still classifies; the protocols do not ask for more
        warnings.simplefilter("ignore", _sklearn("exceptions").ConvergenceWarning)
        model.fit(train.astype(np.float64), labels)
        predicted: IntArray = model.predict(test.astype(np.float64))
    return predicted


def _nearest(train: Matrix, test: Matrix, labels: IntArray, *, k: int) -> IntArray:
    bank, queries = torch.from_numpy(train), torch.from_numpy(test)
    predicted: IntArray = knn_predict(queries, bank, torch.from_numpy(labels), k=k).numpy()
    return predicted


def _unit_rows(values: Matrix) -> Matrix:
    length = np.linalg.norm(values, axis=1, keepdims=True)
    return values / np.where(length == 0.0, 1.0, length)


def _sklearn(module: str) -> ModuleType:
    try:
        return importlib.import_module(f"sklearn.{module}")
    except ImportError:
        raise MissingExtraError("scikit-learn", "eval") from None
