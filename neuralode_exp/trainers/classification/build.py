"""Make a classifier of images or points and its training task from a config."""

from __future__ import annotations

import torch
from torch import Tensor

from neuralode_exp import user_files
from neuralode_exp.config import Config
from neuralode_exp.config.schema import AnnuliKeys, AnyImagesKeys, Dataset, ImagesKeys, OwnImagesKeys
from neuralode_exp.data.annuli import annuli
from neuralode_exp.data.images import Images, load_images, random_shift, random_warp
from neuralode_exp.data.mnist import SETS, load_mnist
from neuralode_exp.models.classifier import Blocks, ODEBlock
from neuralode_exp.models.images import image_model
from neuralode_exp.models.shape import Shape
from neuralode_exp.models.vectors import EulerStep, VectorNet
from neuralode_exp.trainers.classification.task import Augmentation, Classification, Network
from neuralode_exp.trainers.settings import gradient_of, make_field, method_of, ready
from neuralode_exp.trainers.task import seeded


def build_model(config: Config, shape: Shape) -> Network:
    """Return the network of the config for images or points of a shape."""
    return ready(_of_images(config, shape) if config.dataset.kind == "images" else _of_points(config, shape), config)


def _of_images(config: Config, shape: Shape) -> Network:
    model = config.model
    assert shape.classes is not None
    of_package = user_files.find("field", model.field, ())
    return image_model(
        model.name,
        shape.image,
        shape.classes,
        method=method_of(config) if config.solves_ode else None,
        gradient=gradient_of(config),
        channels=model.channels,
        blocks=model.blocks,
        hidden=model.hidden,
        field=None if of_package else make_field(config, model.channels + model.augment),
        augment=model.augment,
    )


def _of_points(config: Config, shape: Shape) -> VectorNet:
    model, dim = config.model, shape.dim + config.model.augment
    assert shape.classes is not None
    body: Blocks | ODEBlock
    if model.name == "resnet":
        body = Blocks([EulerStep(make_field(config, dim)) for _ in range(model.blocks)])
    else:
        body = ODEBlock(make_field(config, dim), method_of(config), gradient_of(config))
    return VectorNet(shape.dim, shape.classes, body, model.augment)


def build(config: Config, device: torch.device) -> Classification:
    """Return the task with the data and model of the config, on the device."""
    trainer = config.trainer
    data = _load(config.dataset, device)
    if data.train.images.dim() == 4:
        _, channels, height, width = data.train.images.shape
        shape = Shape(height, classes=data.classes, channels=channels, width=width)
    else:
        shape = Shape(data.train.images.shape[1], classes=data.classes)
    return Classification(
        build_model(config, shape).to(device),
        data,
        shape=shape,
        batch_size=trainer.batch_size,
        augmented=_augmentation(config),
        label_smoothing=trainer.label_smoothing,
        bf16=config.precision == "bf16",
        seed=config.seed,
        figures=config.figures,
    )


def _augmentation(config: Config) -> Augmentation | None:
    """Return a function that rotates, stretches and shifts each image at random, or None for points."""
    dataset, seed = config.dataset, config.seed
    if not isinstance(dataset, AnyImagesKeys):
        return None

    def augmented(images: Tensor, step: int) -> Tensor:
        images = random_warp(images, dataset.rotate, dataset.stretch, seeded(seed, "warp", step))
        return random_shift(images, dataset.shift, seeded(seed, "shift", step))

    return augmented


def _load(dataset: Dataset, device: torch.device) -> Images:
    if isinstance(dataset, AnnuliKeys):
        return annuli(**dataset.arguments(), device=device)
    if isinstance(dataset, OwnImagesKeys):
        return load_images(dataset.path, validation=dataset.validation, train=dataset.train, device=device)
    assert isinstance(dataset, ImagesKeys)
    name = dataset.name if dataset.name in SETS else "mnist"
    return load_mnist(
        dataset.root, name, validation=dataset.validation, train=dataset.train, test=dataset.test, device=device
    )
