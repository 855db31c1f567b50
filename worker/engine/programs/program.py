"""Loads a `torch.export` program as a module, by rebuilding its graph from torch operators that only compute.

It does not use `torch.export.load`, which executes the content of an archive: in torch 2.13 it unpickles sample inputs
and constants, evaluates shapes (with sympy) and guards as Python, and resolves a node's target anywhere below `torch`.
Here a node may call only what `worker.engine.programs.operators` allows, its arguments are plain values, and the shapes
of all that it makes are known before a kernel runs. Imports torch.
"""

from __future__ import annotations

import logging
import operator
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from contract.errors import ModelError
from worker.engine.precision import autocast
from worker.engine.programs import layout
from worker.engine.programs.archive import DTYPES, Archive, Json, read_archive
from worker.engine.programs.operators import INDEXED, aliases, function, measures
from worker.engine.programs.shapes import check_shapes
from worker.engine.types import Precision

log = logging.getLogger(__name__)

HOW_TO_EXPORT = (
    "export it as torch.export.export(model.eval(), (torch.zeros(2, {channels}, {size}, {size}),), "
    'dynamic_shapes=({{0: torch.export.Dim("batch")}},))'
)
"""What to do, in the words of an error; to be formatted with `channels` and `size`."""

_BATCH = 256  # the largest default batch of a runtime

_SYMBOL = re.compile(r"Symbol\('(\w+)'[^()]*\)")
_INLINED = "torch.ops.higher_order.wrap_with_set_grad_enabled"
# Assertions about sizes and dtypes that an export records; they compute nothing.
_NOTES = frozenset(
    f"torch.ops.aten.{name}.default"
    for name in ("_assert_scalar", "_assert_tensor_metadata", "sym_constrain_range", "sym_constrain_range_for_size")
)
_MEMORY_FORMATS = {1: torch.contiguous_format, 2: torch.channels_last, 3: torch.channels_last_3d}
_MEMORY_FORMATS[4] = torch.preserve_format
_PLAIN = {"as_int": int, "as_bool": bool, "as_string": str}


class Program(nn.Module):
    """Normalised float32 pixels [n, channels, size, size] to logits [n, classes] and features [n, d].

    A program of one output gives its logits as features too.
    """

    def __init__(self, body: fx.GraphModule, *, channels: int, size: int) -> None:
        super().__init__()
        self.body = body
        self._channels, self._size = channels, size
        self._precision: Precision = "fp32"
        self.layout = torch.contiguous_format
        """Memory format of the images that the graph takes; exported views assume that of the example, contiguous."""

    def on(self, device: torch.device, precision: Precision) -> Program:
        """Move to a device and precision, and return itself; on CUDA channels-last where that pays and may be.

        In bf16 the weights stay float32 and the graph runs in mixed precision, because its dtypes are fixed: cast
        weights would meet float32 activations.
        """
        self._precision = precision
        self.to(device)
        if device.type == "cuda" and layout.pays(self.body) and not self.lay_out():
            log.info("The program depends on the layout of its tensors, so it does not run channels-last.")
        return self

    def lay_out(self) -> bool:
        """Run channels-last from now on if the answers to noise stay the same where the weights are; say whether."""
        other = layout.channels_last(self.body)
        device = next(self.parameters()).device
        if not layout.agrees(self.body, other, channels=self._channels, size=self._size, device=device):
            return False
        self.body, self.layout = other, torch.channels_last
        return True

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = x.contiguous(memory_format=self.layout)
        if self._precision == "fp32":
            return cast("tuple[Tensor, Tensor]", self.body(x))
        with autocast(x.device, self._precision):
            return cast("tuple[Tensor, Tensor]", self.body(x))


def load_program(path: Path, *, channels: int, size: int) -> Program:
    """Load a program written by `torch.export.save`, for images of this shape in batches of any size.

    Raises ModelError if the file is no program, needs unpickling, calls anything but operators on tensors, changes its
    own weights, or takes another input; the error's sentence begins with what is wrong.
    """
    try:
        archive = read_archive(path)
        _check_input(archive.program, channels, size)
        body = _Builder(archive).build()
        check_shapes(body, channels=channels, size=size)
        return Program(body, channels=channels, size=size)
    except ModelError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise ModelError(
            f"It is not what torch.export.save writes ({type(error).__name__}: {_line(error)})."
        ) from error


def _check_input(program: Json, channels: int, size: int) -> None:
    """Raise ModelError unless the only input is a float32 batch of any size with images of this shape."""
    how = HOW_TO_EXPORT.format(channels=channels, size=size)
    module = program["graph_module"]
    inputs = [spec["user_input"]["arg"] for spec in module["signature"]["input_specs"] if "user_input" in spec]
    if len(inputs) != 1 or "as_tensor" not in inputs[0]:
        raise ModelError(f"It takes {len(inputs)} inputs, not one batch of images; {how}.")
    meta = module["graph"]["tensor_values"][inputs[0]["as_tensor"]["name"]]
    shape = [side.get("as_int") for side in meta["sizes"]]  # None where it may vary
    wanted = [None, channels, size, size]
    if len(shape) != 4 or any(side not in (None, want) for side, want in zip(shape[1:], wanted[1:], strict=True)):
        told = " × ".join("n" if side is None else str(side) for side in shape)
        raise ModelError(f"Its input is {told}, not n × {channels} × {size} × {size}; name its size, or {how}.")
    if DTYPES[meta["dtype"]] != torch.float32:
        raise ModelError(f"Its input is {DTYPES[meta['dtype']]}, not torch.float32; {how}.")
    if shape[0] is not None:
        raise ModelError(f"Its batch is fixed to {shape[0]}; {how}.")
    symbol = _SYMBOL.fullmatch(meta["sizes"][0]["as_expr"]["expr_str"])
    if symbol is None:
        raise ModelError(f"Its batch is not of any size, but {meta['sizes'][0]['as_expr']['expr_str']!r:.60}; {how}.")
    most = program["range_constraints"].get(symbol[1], {}).get("max_val")
    if most is not None and most < _BATCH:
        raise ModelError(f"Its batch may hold {most} images at most, and must do for {_BATCH}; {how}.")


class _Builder:
    """Converts the JSON of a graph to a torch.fx graph, node by node."""

    def __init__(self, archive: Archive) -> None:
        self._module: Json = archive.program["graph_module"]
        self._tensors = {**archive.constants, **archive.weights}
        self._root = nn.Module()
        self._graph = fx.Graph()
        self._device: fx.Node | None = None
        self._varying: set[fx.Node] = set()
        """Nodes whose values depend on the content of the images."""
        self._weights: set[fx.Node] = set()
        """Nodes that may share memory with a weight."""

    def build(self) -> fx.GraphModule:
        graph, signature = self._module["graph"], self._module["signature"]
        values: dict[str, Any] = {}
        x = self._graph.placeholder("x")
        self._varying.add(x)
        # The exporter recorded its own device for new tensors; here they are created on the device of the input.
        self._device = self._graph.call_function(getattr, (x, "device"))
        for spec in signature["input_specs"]:
            kind, what = _single(spec)
            if kind == "user_input":
                values[what["arg"]["as_tensor"]["name"]] = x
            elif kind in ("parameter", "buffer", "tensor_constant"):
                values[what["arg"]["name"]] = self._weight(what[f"{kind}_name"])
            elif kind != "constant_input":
                raise ModelError(f"It takes a {kind} as an input, which is no tensor.")
        self._nodes(graph["nodes"], values)
        self._graph.output(self._outputs(graph["outputs"], signature["output_specs"], values))
        return fx.GraphModule(self._root, self._graph)

    def _weight(self, name: str) -> fx.Node:
        tensor = self._tensors[name]
        # Fresh names, because names from the archive would become Python source.
        own = f"w{sum(1 for _ in self._root.buffers()) + sum(1 for _ in self._root.parameters())}"
        if tensor.is_floating_point():
            self._root.register_parameter(own, nn.Parameter(tensor, requires_grad=False))
        else:
            self._root.register_buffer(own, tensor)
        node = self._graph.get_attr(own)
        self._weights.add(node)
        return node

    def _outputs(self, outputs: list[Json], specs: list[Json], values: dict[str, Any]) -> tuple[fx.Node, fx.Node]:
        if any("user_output" not in spec for spec in specs):
            raise ModelError("It changes its own weights while it runs; export it as model.eval().")
        found = [self._value(output, values) for output in outputs if "as_none" not in output]
        if len(found) not in (1, 2) or not all(isinstance(node, fx.Node) for node in found):
            raise ModelError(f"It gives {len(found)} outputs; give logits, or a tuple of logits and features.")
        return found[0], found[-1]

    def _nodes(self, nodes: list[Json], values: dict[str, Any]) -> None:
        for node in nodes:
            if node["target"] == _INLINED:
                self._inline(node, values)
            elif node["target"] not in _NOTES:
                self._node(node, values)

    def _node(self, node: Json, values: dict[str, Any]) -> None:
        target = function(node["target"])
        given = {item["name"]: self._value(item["arg"], values) for item in node["inputs"]}
        args: list[Any] = list(given.values())
        named: dict[str, Any] = {}
        written: list[Any] = []
        if isinstance(target, torch._ops.OpOverload):
            args = []
            for n, argument in enumerate(target._schema.arguments):
                if argument.name not in given:
                    continue
                value = given.pop(argument.name)
                if argument.alias_info is not None and argument.alias_info.is_write:
                    written.append(value)
                if argument.name == INDEXED.get(target._opname) and self._varies(value):
                    raise ModelError(
                        f"It calls {node['target']} with indices that depend on the image, which cannot be checked "
                        "before it runs; compute them from sizes and constants."
                    )
                # In the order of the schema; behind a gap, and where it says so, by name.
                if argument.kwarg_only or len(args) < n:
                    named[argument.name] = value
                else:
                    args.append(value)
            if given:
                raise ModelError(f"It gives {node['target']} {', '.join(given)}, which that does not take.")
        self._check_writes(node["target"], written, varies=self._varies([args, named]))
        made = self._call(target, args, named)
        self._bind(made, node["outputs"], values)

    def _call(self, target: Callable[..., Any], args: list[Any], named: dict[str, Any] | None = None) -> fx.Node:
        made = self._graph.call_function(target, tuple(args), named)
        if not measures(target) and self._varies([args, named]):
            self._varying.add(made)
        if aliases(target) and any(value in self._weights for value in args if isinstance(value, fx.Node)):
            self._weights.add(made)
        return made

    def _varies(self, values: Any) -> bool:
        return any(value in self._varying for value in pytree.tree_leaves(values) if isinstance(value, fx.Node))

    def _check_writes(self, target: str, written: list[Any], *, varies: bool) -> None:
        """Raise ModelError for a write that outlasts a batch, or hides from `_varying` what a tensor depends on."""
        if any(value in self._weights for value in written):
            raise ModelError(f"It changes its own weights ({target}); export it as model.eval().")
        if varies and not all(value in self._varying for value in written):
            raise ModelError(
                f"It writes what depends on the image into a constant ({target}); call `program.run_decompositions()` "
                "before saving."
            )

    def _inline(self, node: Json, values: dict[str, Any]) -> None:
        """Inline a subgraph exported under `torch.no_grad()`; nothing here has gradients."""
        _, part, *operands = (item["arg"] for item in node["inputs"])
        graph = part["as_graph"]["graph"]
        inner = {
            _named(formal): self._value(operand, values)
            for formal, operand in zip(graph["inputs"], operands, strict=True)
        }
        self._nodes(graph["nodes"], inner)
        for output, result in zip(node["outputs"], graph["outputs"], strict=True):
            values[_named(output)] = self._value(result, inner)

    def _bind(self, made: fx.Node, outputs: list[Json], values: dict[str, Any]) -> None:
        """Bind the outputs of a node to the names by which later nodes refer to them."""
        several = len(outputs) > 1
        for n, output in enumerate(outputs):
            kind, what = _single(output)
            if kind == "as_none":
                continue
            part = self._call(operator.getitem, [made, n]) if several else made
            if kind == "as_tensors":
                for i, tensor in enumerate(what):
                    values[tensor["name"]] = self._call(operator.getitem, [part, i])
            else:
                values[_named(output)] = part

    def _value(self, argument: Json, values: dict[str, Any]) -> Any:
        """Return an argument of a node: another node, or a plain value of its declared type."""
        kind, what = _single(argument)
        if kind == "as_none":
            return None
        if kind in ("as_tensor", "as_sym_int", "as_sym_float", "as_sym_bool"):
            if kind == "as_tensor" or "as_name" in what:
                return values[_named(argument)]
            return self._value(what, values)
        if kind in ("as_tensors", "as_optional_tensors", "as_sym_ints", "as_sym_floats", "as_sym_bools"):
            return [self._value(_whole(kind, item), values) for item in what]
        if kind in ("as_ints", "as_floats", "as_bools"):
            return [self._value({kind[:-1]: item}, values) for item in what]
        if kind == "as_optional_tensor":
            return self._value(what, values)
        if kind == "as_device":
            return self._device
        if kind == "as_float":
            return float(what)
        if kind in _PLAIN and type(what) is _PLAIN[kind]:
            return what
        if kind == "as_scalar_type":
            return DTYPES[what]
        if kind == "as_memory_format":
            return _MEMORY_FORMATS[what]
        if kind == "as_layout" and what == 7:
            return torch.strided
        raise ModelError(f"It gives an operator {kind.removeprefix('as_')} {what!r:.60}, which is no plain value.")


def _single(union: Json) -> tuple[str, Any]:
    """Return the only entry of a tagged union."""
    ((kind, what),) = union.items()
    return kind, what


def _named(argument: Json) -> str:
    """Return the name in `{"as_tensor": {"name": …}}` or `{"as_sym_int": {"as_name": …}}`."""
    kind, what = _single(argument)
    name = what["name" if kind == "as_tensor" else "as_name"]
    if not isinstance(name, str):
        raise TypeError(f"{name!r} is no name")
    return name


def _whole(kind: str, item: Json) -> Json:
    """Return an item of a list in the form of a single argument."""
    if kind == "as_tensors":
        return {"as_tensor": item}
    return item if kind == "as_optional_tensors" else {kind[:-1]: item}


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
