"""From a config to a classifier of images and its training."""

from __future__ import annotations

import torch

from neuralode_exp import user_files
from neuralode_exp.config import Config
from neuralode_exp.config.schema import AnyImagesKeys, ImagesKeys, OwnImagesKeys
from neuralode_exp.data.images import Images, load_images
from neuralode_exp.data.mnist import SETS, load_mnist
from neuralode_exp.models.images import MLP, ConvNet, image_model
from neuralode_exp.models.shape import Shape
from neuralode_exp.trainers.classification.task import Classification
from neuralode_exp.trainers.settings import gradient_of, make_field, method_of, ready


def build_model(config: Config, shape: Shape) -> ConvNet | MLP:
    """The network of the config for images of a shape."""
    model = config.model
    assert shape.classes is not None
    module = image_model(
        model.name,
        shape.image,
        shape.classes,
        method=method_of(config) if model.name in ("rknet", "odenet") else None,
        gradient=gradient_of(config),
        channels=model.channels,
        blocks=model.blocks,
        hidden=model.hidden,
        field=None if user_files.find("field", model.field, ()) else make_field(config, model.channels),
    )
    return ready(module, config)


def build(config: Config, device: torch.device) -> Classification:
    """Data and model of the config, on the device."""
    dataset, trainer = config.dataset, config.trainer
    assert isinstance(dataset, AnyImagesKeys)
    data = _load(dataset, device)
    _, channels, height, width = data.train.images.shape
    shape = Shape(height, classes=data.classes, channels=channels, width=width)
    return Classification(
        build_model(config, shape).to(device),
        data,
        shape=shape,
        batch_size=trainer.batch_size,
        shift=dataset.shift,
        rotate=dataset.rotate,
        stretch=dataset.stretch,
        label_smoothing=trainer.label_smoothing,
        bf16=config.precision == "bf16",
        seed=config.seed,
        figures=config.figures,
    )


def _load(dataset: AnyImagesKeys, device: torch.device) -> Images:
    if isinstance(dataset, OwnImagesKeys):
        return load_images(dataset.path, validation=dataset.validation, train=dataset.train, device=device)
    assert isinstance(dataset, ImagesKeys)
    name = dataset.name if dataset.name in SETS else "mnist"
    return load_mnist(
        dataset.root, name, validation=dataset.validation, train=dataset.train, test=dataset.test, device=device
    )
