"""The public surface is this list, and importing it is cheap."""

import importlib
import inspect
import subprocess
import sys

import pytest

import pointzoo as pz

PUBLIC = [
    "EncoderInfo",
    "FeatureTransformer",
    "Features",
    "FewShot",
    "Model",
    "OnnxFile",
    "PointBatch",
    "PointCloud",
    "PointEncoder",
    "PointzooError",
    "adapt",
    "create_encoder",
    "encoder_info",
    "export_onnx",
    "extract",
    "few_shot",
    "finetune",
    "inspect",
    "list_encoders",
    "load_encoder",
    "load_model",
    "read",
    "sample_cloud",
    "save_encoder",
    "write",
]
LAZY = ("accelerate", "h5py", "huggingface_hub", "laspy", "matplotlib", "onnx", "onnxruntime",
        "plyfile", "sklearn", "trimesh", "yaml")  # fmt: skip


def python(code: str) -> str:
    """Run code in a fresh interpreter and return what it prints."""
    command = [sys.executable, "-W", "error", "-c", code]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_the_public_names_are_these():
    assert pz.__all__ == PUBLIC
    assert sorted(pz.__all__) == pz.__all__
    assert sorted(pz._MODULES) == PUBLIC


@pytest.mark.parametrize("name", PUBLIC)
def test_every_name_is_documented_and_is_what_its_module_calls_so(name: str):
    value = getattr(pz, name)
    assert inspect.getdoc(value)
    assert value is getattr(importlib.import_module(f"pointzoo.{pz._MODULES[name]}"), name)
    assert value.__module__.startswith("pointzoo.")


def test_names_come_when_they_are_asked_for():
    assert set(PUBLIC) <= set(dir(pz))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        pz.nothing  # noqa: B018 (the access is the test)
    # a fresh module, so that no name is there yet
    assert python("import pointzoo as pz; print(pz.read.__module__, 'read' in vars(pz))") == (
        "pointzoo.io True"
    )


def test_the_version_is_that_of_the_package():
    from importlib.metadata import version

    assert pz.__getattr__("__version__") == version("pointzoo")


def test_importing_the_package_imports_next_to_nothing():
    code = (
        "import sys, pointzoo; print(*(m for m in ('torch', 'numpy', 'click') if m in sys.modules))"
    )
    assert python(code) == ""


def test_everything_public_needs_no_optional_package():
    names = ", ".join(name for name in PUBLIC if name != "FeatureTransformer")
    code = (
        f"import sys; from pointzoo import {names}; print(*(m for m in {LAZY} if m in sys.modules))"
    )
    assert python(code) == ""


def test_the_transformer_says_what_it_needs():
    code = (
        "import sys; sys.modules['sklearn.base'] = None\n"
        "import pointzoo as pz\n"
        "try:\n    pz.FeatureTransformer\nexcept pz.PointzooError as error:\n    print(error)"
    )
    assert "scikit-learn" in python(code)


def test_loading_draws_in_nothing_else():
    code = (
        "import sys, pointzoo as pz, tempfile, pathlib\n"
        "with tempfile.TemporaryDirectory() as folder:\n"
        "    path = pz.save_encoder(pz.create_encoder('vit3d_test'), pathlib.Path(folder) / 'w')\n"
        "    pz.load_encoder(path).extract(pz.sample_cloud())\n"
        f"print(*(m for m in {LAZY} if m in sys.modules))"
    )
    assert python(code) == ""
