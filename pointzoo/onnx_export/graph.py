"""A graph of ONNX operators, written down as one writes numpy.

Only standard operators of :data:`OPSET` are used. An optional package stands behind this:
``onnx`` writes the file, ``onnxruntime`` runs it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pointzoo.errors import MissingExtraError

OPSET = 18
IR_VERSION = 8
"""What ONNX Runtime 1.14 and later read."""

Array: TypeAlias = "NDArray[Any]"
Operand: TypeAlias = "Value | Array | Tensor | np.generic | float"


def packages() -> tuple[Any, Any]:
    """Return the modules ``onnx`` and ``onnxruntime``.

    Raises:
        MissingExtraError: One of them is not installed.
    """
    try:
        import onnx
    except ImportError as error:
        raise MissingExtraError("onnx", "onnx") from error
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError("onnxruntime", "onnx") from error
    return onnx, onnxruntime


class Value:
    """A tensor of a graph."""

    def __init__(self, graph: Graph, name: str) -> None:
        """Remember whose it is and what it is called."""
        self.graph = graph
        self.name = name

    def __add__(self, other: Operand) -> Value:
        """Add, with broadcasting."""
        return self.graph.op("Add", self, other)

    def __sub__(self, other: Operand) -> Value:
        """Subtract, with broadcasting."""
        return self.graph.op("Sub", self, other)

    def __mul__(self, other: Operand) -> Value:
        """Multiply, with broadcasting."""
        return self.graph.op("Mul", self, other)

    def __truediv__(self, other: Operand) -> Value:
        """Divide, with broadcasting; integers are cut off."""
        return self.graph.op("Div", self, other)

    def __matmul__(self, other: Operand) -> Value:
        """Multiply matrices."""
        return self.graph.op("MatMul", self, other)


class Graph:
    """Operators in the order in which they run; a loop has a list of its own.

    Floats stand for float32 and integers for int64; write ``np.float64(x)`` for the rest.
    """

    def __init__(self) -> None:
        """Start with nothing."""
        self._onnx, _ = packages()
        self._lists: list[list[Any]] = [[]]
        self._constants: list[Any] = []
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []
        self._notes: list[Any] = []
        self._names = 0

    def input(self, name: str, kind: type[np.generic], *shape: str | int) -> Value:
        """Declare an input; a word in its shape is a size that may change."""
        self._inputs.append(self._declared(name, kind, shape))
        return Value(self, name)

    def output(self, name: str, value: Value, *shape: str | int) -> None:
        """Declare ``value`` as an output, in float32."""
        self._lists[0].append(self._onnx.helper.make_node("Identity", [value.name], [name]))
        self._outputs.append(self._declared(name, np.float32, shape))

    def note(self, value: Value, kind: type[np.generic]) -> None:
        """Remember a value that the check wants to see; the file has no such output."""
        self._notes.append(self._declared(value.name, kind, None))

    def constant(self, value: Operand) -> Value:
        """Return a value that does not change."""
        if isinstance(value, Value):
            return value
        if isinstance(value, Tensor):
            value = value.detach().cpu().numpy()
        if isinstance(value, float | int) and not isinstance(value, np.generic):
            value = np.array(value, np.float32 if isinstance(value, float) else np.int64)
        name = self._new("constant")
        array = np.ascontiguousarray(value).reshape(np.shape(value))
        self._constants.append(self._onnx.numpy_helper.from_array(array, name))
        return Value(self, name)

    def op(self, kind: str, *inputs: Operand, **attributes: Any) -> Value:
        """Apply an operator with one output."""
        return self.several(kind, 1, *inputs, **attributes)[0]

    def several(self, kind: str, count: int, *inputs: Operand, **attributes: Any) -> list[Value]:
        """Apply an operator with ``count`` outputs."""
        names = [self.constant(value).name for value in inputs]
        found = [self._new(kind) for _ in range(count)]
        self._lists[-1].append(self._onnx.helper.make_node(kind, names, found, **attributes))
        return [Value(self, name) for name in found]

    def loop(
        self,
        trips: Value,
        state: Mapping[Value, type[np.generic]],
        body: Callable[..., tuple[Sequence[Value], Sequence[Value]]],
    ) -> list[Value]:
        """Run ``body`` again and again.

        Args:
            trips: (1,) int64, how often.
            state: What goes from one round to the next, and its types.
            body: Takes the number of the round and the state; returns the next state, and what
                each round leaves behind.

        Returns:
            What the rounds left behind, stacked along a new first axis.
        """
        helper = self._onnx.helper
        kinds: list[type[np.generic]] = [np.int64, np.bool_, *state.values()]
        entries = [self._new("loop") for _ in kinds]
        self._lists.append([])
        following, left = body(*(Value(self, name) for name in entries[:1] + entries[2:]))
        results = [self.op("Identity", v) for v in (Value(self, entries[1]), *following, *left)]
        nodes = self._lists.pop()
        typed = [
            self._declared(name, kind, () if number < 2 else None)
            for number, (name, kind) in enumerate(zip(entries, kinds, strict=True))
        ]
        inner = helper.make_graph(
            nodes,
            self._new("body"),
            typed,
            [helper.make_empty_tensor_value_info(value.name) for value in results],
        )
        start = [self.constant(np.array(True)), *state]
        found = self.several("Loop", len(state) + len(left), trips, *start, body=inner)
        return found[len(state) :]

    def size(self, value: Value, axis: int = 0) -> Value:
        """Return (1,) int64, the size of an axis."""
        return self.op("Shape", value, start=axis, end=axis + 1)

    def range(self, stop: Value) -> Value:
        """Return 0, 1 ... up to ``stop (1,)``."""
        return self.op("Range", 0, self.op("Squeeze", stop), 1)

    def columns(self, value: Value, count: int) -> list[Value]:
        """Return the ``count`` slices (..., 1) along the last axis."""
        return self.several("Split", count, value, axis=-1, num_outputs=count)

    def cast(self, value: Value, kind: type[np.generic]) -> Value:
        """Convert the type of numbers."""
        return self.op("Cast", value, to=self._kind(kind))

    def model(self, properties: Mapping[str, str], documentation: str, version: str) -> Any:
        """Return the ``onnx.ModelProto``, checked, with ``properties`` as its metadata."""
        helper = self._onnx.helper
        graph = helper.make_graph(
            self._lists[0], "pointzoo", self._inputs, self._outputs, self._constants
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="pointzoo",
            producer_version=version,
            doc_string=documentation,
        )
        helper.set_model_props(model, dict(properties))
        self._onnx.checker.check_model(model, full_check=True)
        return model

    def with_notes(self, model: Any) -> Any:
        """Return a copy of ``model`` whose outputs include what was noted."""
        noted = copy.deepcopy(model)
        noted.graph.output.extend(self._notes)
        return noted

    def _new(self, kind: str) -> str:
        self._names += 1
        return f"{kind}_{self._names}"

    def _kind(self, kind: type[np.generic]) -> int:
        return int(self._onnx.helper.np_dtype_to_tensor_dtype(np.dtype(kind)))

    def _declared(
        self, name: str, kind: type[np.generic], shape: Sequence[str | int] | None
    ) -> Any:
        return self._onnx.helper.make_tensor_value_info(name, self._kind(kind), shape)
