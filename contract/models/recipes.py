"""Describe how models are trained: one recipe per family, each field with its meaning and default.

Knows no torch. Producers check a recipe before a job is queued, workers follow it, and the record of the
model that comes out keeps it.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator

from contract.records import Precision, Record


class Recipe(Record):
    """The fields that the recipes of all families share."""

    task: ClassVar[Literal["classify", "classify-sequence", "generate"]]

    epochs: int = Field(10, ge=1, le=10_000, description="Passes over the training data.")
    batch_size: int = Field(128, ge=2, le=8192, description="Examples a step.")
    learning_rate: float = Field(0.001, gt=0, description="Peak of the schedule: linear warm-up, then a cosine to 0.")
    warmup: float = Field(0.1, ge=0, lt=1, description="Share of all steps in which the learning rate rises from 0.")
    weight_decay: float = Field(0.0, ge=0, description="Decoupled; biases and norms are left out.")
    size: int = Field(0, ge=0, le=1024, description="Side of the images in pixels; 0: that of the data, if all agree.")
    channels: int = Field(0, ge=0, le=3, description="1 for gray, 3 for colour; 0: gray where the first image is gray.")
    validation: float = Field(0.1, gt=0, lt=1, description="Share of each class held out to choose the best by.")
    ema: float = Field(0.999, ge=0, lt=1, description="Decay of the averaged weights, which are published; 0: none.")
    precision: Precision = Field("auto", description="bf16 is mixed: weights stay fp32; auto: where the device has it.")
    seed: int = Field(0, ge=0, lt=2**32, description="Seed of the initial weights, the example order and augmentation.")
    deterministic: bool = Field(
        True, description="On a GPU, the same weights each time, interrupted or not; without, some 5 % more steps/s."
    )

    @field_validator("channels")
    @classmethod
    def _channels(cls, value: int) -> int:
        if value == 2:
            raise ValueError("an image has 1 channel or 3")
        return value


class CnnRecipe(Recipe):
    """A classifier of single images. SGD with Nesterov momentum 0.9."""

    task = "classify"

    family: Literal["cnn"] = "cnn"
    variant: Literal["residual", "classic"] = Field("residual", description="The accurate one, or the classic one.")
    learning_rate: float = Field(0.1, gt=0, description="Peak of the schedule: linear warm-up, then a cosine to 0.")
    weight_decay: float = Field(0.0005, ge=0, description="Decoupled; biases and norms are left out.")
    label_smoothing: float = Field(0.1, ge=0, lt=1, description="Share of the target that is spread over all classes.")
    flip: bool = Field(True, description="Mirror half of the images, left to right.")
    crop: int = Field(2, ge=0, description="Shift images by up to so many pixels, edges reflected.")
    erase: float = Field(0.0, ge=0, lt=1, description="Share of the images in which a random rectangle is erased.")
    dropout: float = Field(0.3, ge=0, lt=1, description="Before the last layer.")


class RnnRecipe(Recipe):
    """A classifier of image sequences. AdamW."""

    task = "classify-sequence"

    family: Literal["rnn"] = "rnn"
    cell: Literal["gru", "lstm"] = Field("gru", description="What carries memory over time.")
    hidden: int = Field(128, ge=1, le=4096, description="Width of that memory.")
    frames: int = Field(64, ge=1, le=4096, description="Longer sequences are thinned out evenly to so many.")
    weight_decay: float = Field(0.01, ge=0, description="Decoupled; biases and norms are left out.")
    precision: Precision = Field("fp32", description="bf16 is for a GPU: on a CPU it is slower here than fp32.")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="Share of the target that is spread over all classes.")
    dropout: float = Field(0.1, ge=0, lt=1, description="Before the last layer.")


class GanRecipe(Recipe):
    """A class-conditional generator and its discriminator. Adam."""

    task = "generate"

    family: Literal["gan"] = "gan"
    batch_size: int = Field(64, ge=2, le=8192, description="Examples a step.")
    loss: Literal["hinge", "bce"] = Field("hinge", description="Hinge, or binary cross-entropy (non-saturating).")
    latent: int = Field(100, ge=1, le=4096, description="Width of the latent vector.")
    spectral_norm: bool = Field(True, description="Hold the discriminator's layers to a Lipschitz constant of 1.")
    minibatch_stddev: bool = Field(True, description="Show the discriminator how much images of a class differ.")
    augment: str = Field("translation,cutout", description="DiffAugment: of color, translation, cutout; empty: none.")
    learning_rate: float = Field(
        0.0004, gt=0, description="Learning rate of the generator; falls to 0 in the last half."
    )
    discriminator_learning_rate: float = Field(
        0.0008, gt=0, description="Learning rate of the discriminator; likewise."
    )
    discriminator_steps: int = Field(1, ge=1, le=16, description="Steps of the discriminator for one of the generator.")


class VaeRecipe(Recipe):
    """A class-conditional variational autoencoder. AdamW."""

    task = "generate"

    family: Literal["vae"] = "vae"
    latent: int = Field(32, ge=1, le=4096, description="Width of the latent vector.")
    beta: float = Field(1.0, ge=0, description="Weight of the KL term once warm-up is over.")
    kl_warmup: float = Field(0.2, ge=0, lt=1, description="Share of all steps in which that weight rises from 0.")


AnyRecipe = Annotated[CnnRecipe | RnnRecipe | GanRecipe | VaeRecipe, Field(discriminator="family")]
