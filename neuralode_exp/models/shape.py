"""The properties of the data that a model depends on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from neuralode_exp.data.observed import Scale
from neuralode_exp.models.fields.scaled import Units


@dataclass(frozen=True, eq=False)
class Shape:
    """All that a model is built from, apart from the config.

    It is stored with the weights, so that the model can be built again without the data.

    Args:
        dim: number of dimensions of a state or point; height of an image in pixels.
        classes: number of classes of images or points.
        units: units of the states.
        dt: time between two observations on a regular grid.
        channels: channels of an image.
        inputs: number of inputs that drive a state.
        width: width of an image in pixels; None: it is square.
        scale: units of a table's states and times, if they are not those of the file.
    """

    dim: int
    classes: int | None = None
    units: Units | None = None
    dt: float | None = None
    scale: Scale | None = None
    channels: int = 1
    inputs: int = 0
    width: int | None = None

    @property
    def image(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        return self.channels, self.dim, self.width or self.dim

    @property
    def units_of_table(self) -> Units | None:
        """The units of a field for states and times in the units of the user's table."""
        units, scale = self.units, self.scale
        if units is None or scale is None:
            return units
        offset, unit = scale.offset.to(units.centre), scale.unit.to(units.centre)
        return Units(offset + unit * units.centre, unit * units.scale, unit * units.rate / scale.step)

    def plain(self) -> dict[str, Any]:
        """Return tensors and plain values, for a checkpoint."""
        return asdict(self)

    @staticmethod
    def of(plain: Mapping[str, Any]) -> Shape:
        """Return the shape from what `plain` returned."""
        parts = {"units": Units, "scale": Scale}
        return Shape(**{name: x and parts[name](**x) if name in parts else x for name, x in plain.items()})
