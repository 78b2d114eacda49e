"""What encoders declare about graphs: true where it is declared, and false where it is not."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import pointzoo as pz
from pointzoo.batch import PointBatch
from pointzoo.encoders.base import EncoderOutput, PointEncoder
from pointzoo.encoders.registry import ARCHITECTURES
from pointzoo.errors import ConfigError
from pointzoo.testing.support import make_batch, make_cloud

NAMES = ["vit3d_test", "dgcnn_test", "pct_test", "sparseunet_test"]


def capable(what: str) -> list[Any]:
    """Return the names, each with whether it declares the capability."""
    return [(name, getattr(ARCHITECTURES[name].encoder_class.capabilities, what)) for name in NAMES]


def tensors_in(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, tuple):
        return [tensor for part in value for tensor in tensors_in(part)]
    if dataclasses.is_dataclass(value):
        return tensors_in(tuple(getattr(value, f.name) for f in dataclasses.fields(value)))
    return []


def with_tensors(value: Any, tensors: Iterator[Tensor]) -> Any:
    """Return a copy of nested data classes that holds other tensors."""
    if isinstance(value, Tensor):
        return next(tensors)
    if isinstance(value, tuple):
        return tuple(with_tensors(part, tensors) for part in value)
    if dataclasses.is_dataclass(value):
        names = [field.name for field in dataclasses.fields(value)]
        parts = {name: with_tensors(getattr(value, name), tensors) for name in names}
        return dataclasses.replace(value, **parts)
    return value


class Flat(nn.Module):
    """An encoder that takes tensors, as torch.export wants it."""

    def __init__(self, encoder: PointEncoder, batch: PointBatch, geometry: Any) -> None:
        super().__init__()
        self.encoder, self.given = encoder, (batch, geometry)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        batch, geometry = with_tensors(self.given, iter(tensors))
        output = self.encoder(batch, geometry=geometry)
        return output.point, output.scene


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Let the compiler warn of what it does not know, and forget what it has compiled."""
    torch._dynamo.reset()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        yield


def learn(
    encoder: Callable[..., EncoderOutput], batch: PointBatch, geometry: Any
) -> tuple[EncoderOutput, list[Tensor]]:
    """Return the output, and the gradients that every parameter gets from it."""
    with torch.enable_grad():
        output = encoder(batch, geometry=geometry)
        loss = output.point.square().sum() + output.scene.square().sum()
        return output, list(torch.autograd.grad(loss, list(encoder.parameters())))


@pytest.mark.parametrize(("name", "declared"), capable("compiles"))
def test_one_graph_for_torch_compile(name: str, declared: bool) -> None:
    encoder = pz.create_encoder(name)
    batch = make_batch(encoder, [make_cloud(60)])
    geometry = encoder.geometry(batch)
    compiled = torch.compile(encoder, fullgraph=True, backend="eager")
    if not declared:
        with pytest.raises(torch._dynamo.exc.TorchDynamoException):
            compiled(batch, geometry=geometry)
        return
    (got, slopes), (wanted, true) = (learn(f, batch, geometry) for f in (compiled, encoder))
    torch.testing.assert_close(got.point, wanted.point)
    torch.testing.assert_close(got.scene, wanted.scene)
    torch.testing.assert_close(slopes, true, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("name", "declared"), capable("exports"))
def test_one_graph_for_torch_export(name: str, declared: bool) -> None:
    encoder = pz.create_encoder(name)
    batch = make_batch(encoder, [make_cloud(60)])
    given = batch, encoder.geometry(batch)
    flat, tensors = Flat(encoder, *given), tuple(tensors_in(given))
    if not declared:
        with pytest.raises(
            (RuntimeError, torch.fx.experimental.symbolic_shapes.GuardOnDataDependentSymNode)
        ):
            torch.export.export(flat, tensors)
        return
    other = make_batch(encoder, [make_cloud(60, seed=5)])
    graph = torch.export.export(flat, tensors).module()
    for seen in (batch, other):
        point, scene = graph(*tensors_in((seen, encoder.geometry(seen))))
        wanted = encoder(seen)
        torch.testing.assert_close(point, wanted.point)
        torch.testing.assert_close(scene, wanted.scene)


@pytest.mark.parametrize(("name", "declared"), capable("onnx"))
def test_onnx(name: str, declared: bool, tmp_path: Any) -> None:
    assert declared
    undeclared = dataclasses.replace(ARCHITECTURES[name].encoder_class.capabilities, onnx=False)
    kind = type("Other", (ARCHITECTURES[name].encoder_class,), {"capabilities": undeclared})
    with pytest.raises(ConfigError, match="got Other"):
        pz.export_onnx(kind(ARCHITECTURES[name].config), tmp_path / "model.onnx")
