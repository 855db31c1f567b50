"""A `torch.export` program runs as its author's module does, and an archive executes nothing."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from contract.errors import ModelError
from tests.programs import CONSTANTS, MODEL, WEIGHTS, Redness, changed, export
from worker.engine.programs.program import Program, load_program

Json = dict[str, Any]


class Patches(nn.Module):
    """Much of what a transformer for images is made of, positions that are made on the fly, and a dict as output."""

    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 16, 4, 4)
        self.first = nn.Parameter(torch.randn(1, 1, 16))
        self.blocks = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 1)
        self.head = nn.Linear(16, 5)
        self.register_buffer("scale", torch.tensor([0.1]), persistent=False)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        with torch.no_grad():
            x = self.embed(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.first.expand(x.shape[0], -1, -1), x], 1)
        places = torch.arange(x.shape[1], device=x.device).to(x.dtype) * self.scale
        low, high = self.blocks(x + places[None, :, None])[:, 0].chunk(2, 1)
        return {"logits": self.head(torch.cat([low, high], 1))}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("programs")


@pytest.fixture(scope="module")
def redness(folder: Path) -> Path:
    """The file of a small good program."""
    return export(Redness().eval(), folder / "redness.pt2")


@pytest.fixture(scope="module")
def patches(folder: Path) -> Patches:
    """A transformer, and `patches.pt2` and `decomposed.pt2` of it."""
    torch.manual_seed(1)
    model = Patches().eval()
    export(model, folder / "patches.pt2", decomposed=folder / "decomposed.pt2")
    return model


def load(path: Path) -> Program:
    return load_program(path, channels=3, size=8)


def noise(n: int) -> Tensor:
    return torch.randn(n, 3, 8, 8, generator=torch.Generator().manual_seed(n))


# It does what the module does


@pytest.mark.parametrize("n", [1, 2, 9])
def test_logits_and_features_are_those_of_the_module(redness: Path, n: int) -> None:
    logits, features = load(redness)(noise(n))

    wanted = Redness().eval()(noise(n))
    torch.testing.assert_close(logits, wanted[0], rtol=0, atol=0)
    torch.testing.assert_close(features, wanted[1], rtol=0, atol=0)


@pytest.mark.parametrize("name", ["patches.pt2", "decomposed.pt2"])
def test_a_transformer_is_one_too(patches: Patches, folder: Path, name: str) -> None:
    logits, features = load(folder / name)(noise(3))

    torch.testing.assert_close(logits, patches(noise(3))["logits"], rtol=1e-5, atol=1e-5)
    assert features is logits, "without features of its own the logits serve"


def test_channels_last_pixels_do_not_break_the_views_that_were_exported(redness: Path) -> None:
    pixels = noise(2).contiguous(memory_format=torch.channels_last)

    torch.testing.assert_close(load(redness)(pixels), load(redness)(noise(2)))


def test_in_bf16_its_own_dtypes_stand_and_the_answer_is_near(patches: Patches, folder: Path) -> None:
    program = load(folder / "patches.pt2")
    exact = program(noise(4))[0]

    fast = program.on(torch.device("cpu"), "bf16")(noise(4))[0]

    assert {weight.dtype for weight in program.parameters()} == {torch.float32}
    assert 0 < (fast.float() - exact).abs().max() < 0.1


def test_tensors_are_made_where_the_input_is(patches: Patches, folder: Path) -> None:
    # Given a program that was exported on a CPU and makes positions as it runs,
    program = load(folder / "patches.pt2").on(torch.device("meta"), "fp32")
    # if it runs elsewhere, I expect it to make them there.
    assert program(noise(2).to("meta"))[0].device.type == "meta"


# It executes nothing


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """A file that exists as soon as an archive has had its way."""
    return tmp_path / "executed"


class Evil:
    """Unpickled, it makes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return Path.touch, (self.mark,)  # type: ignore[return-value]


def source(mark: Path) -> str:
    """Python that does the same where it is evaluated."""
    return f"__import__('pathlib').Path({str(mark)!r}).touch()"


def first_node(program: Json, target: str, **arguments: Json) -> None:
    """Let the first node call something else."""
    node = program["graph_module"]["graph"]["nodes"][0]
    node["target"] = target
    node["inputs"] = [{"name": name, "arg": arg, "kind": 1} for name, arg in arguments.items()]
    node["outputs"] = []


def pickled(config: Json, name: str = "") -> None:
    entry = config["config"].setdefault(name, {}) if name else next(iter(config["config"].values()))
    entry.update(path_name=name or entry["path_name"], use_pickle=True, is_param=False, tensor_meta=None)


def test_the_payload_of_these_tests_is_a_real_one(mark: Path) -> None:
    pickle.loads(pickle.dumps(Evil(mark)))
    assert mark.exists()


def test_sample_inputs_are_never_unpickled(redness: Path, mark: Path, tmp_path: Path) -> None:
    # Given an archive whose sample inputs, which torch.export.load unpickles, are hostile,
    buffer = io.BytesIO()
    torch.save(Evil(mark), buffer)
    path = changed(redness, tmp_path / "x.pt2", {"data/sample_inputs/model.pt": buffer.getvalue()})

    # if I load and run it, I expect it to work, for nobody reads them.
    assert load(path)(noise(1))[0].shape == (1, 2)
    assert not mark.exists()


@pytest.mark.parametrize("config", [WEIGHTS, CONSTANTS])
def test_pickled_tensors_are_refused(redness: Path, mark: Path, tmp_path: Path, config: str) -> None:
    name = "opaque_obj_0" if config == CONSTANTS else ""
    payload = f"data/constants/{name}" if name else "data/weights/weight_0"
    edits: dict[str, Callable[[Any], Any] | bytes] = {
        config: lambda value: pickled(value, name),
        payload: pickle.dumps(Evil(mark)),
    }
    path = changed(redness, tmp_path / "x.pt2", edits)

    with pytest.raises(ModelError, match="is pickled, and nothing is unpickled here"):
        load(path)
    assert not mark.exists()


@pytest.mark.parametrize("where", ["shapes", "guards", "names"])
def test_text_that_torch_evaluates_stays_text(redness: Path, mark: Path, tmp_path: Path, where: str) -> None:
    evil = source(mark)

    def edit(program: Json) -> Json:
        graph = program["graph_module"]["graph"]
        if where == "shapes":  # through sympy
            for tensor in (value for name, value in graph["tensor_values"].items() if name != "x"):
                tensor["sizes"] = [{"as_expr": {"expr_str": evil, "hint": None}} for _ in tensor["sizes"]]
        elif where == "guards":  # through exec
            program["guards_code"] = [evil]
        else:  # into generated source
            return dict(json.loads(json.dumps(program).replace('"batch_norm"', json.dumps(f"a\n    {evil}\n    b"))))
        return program

    program = load(changed(redness, tmp_path / "x.pt2", {MODEL: edit}))

    assert program(noise(1))[0].shape == (1, 2)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("target", "arguments"),
    [
        ("torch.os.system", {"command": {"as_string": "touch {mark}"}}),
        ("torch.load", {"f": {"as_string": "{mark}"}}),
        ("torch.ops.load_library", {"path": {"as_string": "{mark}"}}),
        ("torch.ops.aten.save.default", {"item": {"as_int": 1}, "filename": {"as_string": "{mark}"}}),
        (
            "torch.ops.aten.from_file.default",
            {"filename": {"as_string": "{mark}"}, "shared": {"as_bool": True}, "size": {"as_int": 9}},
        ),
        ("torch.ops.aten._index_put_impl_.default", {}),
        ("torch.ops.aten.__class__.mro", {}),
        ("torch.ops.higher_order.cond", {}),
        ("_operator.methodcaller", {"name": {"as_string": "touch"}}),
        ("builtins.eval", {"source": {"as_string": "1"}}),
    ],
)
def test_a_node_calls_operators_on_tensors_and_nothing_else(
    redness: Path, mark: Path, tmp_path: Path, target: str, arguments: Json
) -> None:
    filled = json.loads(json.dumps(arguments).replace("{mark}", str(mark)))
    path = changed(redness, tmp_path / "x.pt2", {MODEL: lambda program: first_node(program, target, **filled)})

    with pytest.raises(ModelError, match=f"It calls '{target}'"):
        load(path)
    assert not mark.exists()


def test_a_tensor_that_leaves_its_bytes_is_refused(redness: Path, tmp_path: Path) -> None:
    def beyond(config: Json) -> None:
        meta = config["config"]["norm.running_mean"]["tensor_meta"]
        meta["storage_offset"] = {"as_int": 10**6}

    with pytest.raises(ModelError, match="out of bounds"):
        load(changed(redness, tmp_path / "x.pt2", {WEIGHTS: beyond}))


def test_a_compressed_archive_is_refused(redness: Path, tmp_path: Path) -> None:
    path = tmp_path / "bomb.pt2"
    with zipfile.ZipFile(redness) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    with pytest.raises(ModelError, match="compressed"):
        load(path)


# It says what is wrong


def refused(model: nn.Module, path: Path, match: str, **options: Any) -> None:
    with pytest.raises(ModelError, match=match) as caught:
        load(export(model, path, **options))
    assert "\n" not in str(caught.value)


def test_another_input_is_told_with_its_shape(redness: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"n × 3 × 8 × 8, not n × 3 × 224 × 224.*Dim\(\"batch\"\)"):
        load_program(redness, channels=3, size=224)
    with pytest.raises(ModelError, match="not n × 1 × 8 × 8"):
        load_program(redness, channels=1, size=8)


def test_a_batch_of_one_size_is_told_with_how_to_export_another(tmp_path: Path) -> None:
    refused(Redness().eval(), tmp_path / "a.pt2", r"fixed to 2; export it as torch\.export\.export", batch=False)
    limited = torch.export.Dim("few", max=64)
    refused(Redness().eval(), tmp_path / "b.pt2", "64 images at most", batch=limited)


def test_a_batch_of_even_sizes_is_told(redness: Path, tmp_path: Path) -> None:
    def even(program: Json) -> None:
        (batch, *_) = program["graph_module"]["graph"]["tensor_values"]["x"]["sizes"]
        batch["as_expr"]["expr_str"] = f"2*{batch['as_expr']['expr_str']}"

    with pytest.raises(ModelError, match="not of any size, but"):
        load(changed(redness, tmp_path / "x.pt2", {MODEL: even}))


def test_a_program_in_training_mode_would_change_its_own_weights(tmp_path: Path) -> None:
    refused(Redness().train(), tmp_path / "a.pt2", "changes its own weights.*model.eval()")


def test_too_many_outputs_are_counted(tmp_path: Path) -> None:
    class Three(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            return x.mean((2, 3)), x.sum((2, 3)), x.amax((2, 3))

    refused(Three(), tmp_path / "a.pt2", "gives 3 outputs; give logits, or a tuple of logits and features")


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", np.arange(99).tobytes()], ids=["empty", "cut", "numbers"])
def test_what_is_no_archive_is_told(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x.pt2"
    path.write_bytes(data)
    with pytest.raises(ModelError, match=r"no archive of torch\.export\.save"):
        load(path)


def test_weights_alone_are_no_program(tmp_path: Path) -> None:
    torch.save(Redness().state_dict(), tmp_path / "x.pt2")
    with pytest.raises(ModelError, match="holds no exported program"):
        load(tmp_path / "x.pt2")


def test_an_archive_that_breaks_its_schema_is_told(redness: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="schema is 99, this Imagemill reads 8"):
        load(changed(redness, tmp_path / "a.pt2", {MODEL: lambda p: p["schema_version"].update(major=99)}))
    with pytest.raises(ModelError, match=r"not what torch\.export\.save writes \(KeyError"):
        load(changed(redness, tmp_path / "b.pt2", {MODEL: lambda p: p["graph_module"].pop("signature")}))
