"""What a model knows of the data that it is for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from neuralode_exp.data.observed import Scale
from neuralode_exp.models.fields.scaled import Units


@dataclass(frozen=True, eq=False)
class Shape:
    """All that a model is built from beside the config. Stored with the weights, it gives the model back without data.

    Args:
        dim: of a state or a point; pixels from top to bottom of an image.
        classes: of images.
        units: of states.
        dt: distance of two observations of a regular grid.
        channels: of an image.
        inputs: that drive a state.
        width: pixels across an image; None: it is square.
        scale: the units of a table's states and times, where the model's are not those of the file.
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
        """The units around a field for states and times as they are in the user's table."""
        units, scale = self.units, self.scale
        if units is None or scale is None:
            return units
        offset, unit = scale.offset.to(units.centre), scale.unit.to(units.centre)
        return Units(offset + unit * units.centre, unit * units.scale, unit * units.rate / scale.step)

    def plain(self) -> dict[str, Any]:
        """Tensors and plain values, for a checkpoint."""
        return asdict(self)

    @staticmethod
    def of(plain: Mapping[str, Any]) -> Shape:
        """The shape of which `plain` was made."""
        parts = {"units": Units, "scale": Scale}
        return Shape(**{name: x and parts[name](**x) if name in parts else x for name, x in plain.items()})
