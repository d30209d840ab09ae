"""Files with what a system gives beside its mesh: the predicted layers and pictures."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import XRayError
from ..files.png import write_png
from ..generated import Generated
from .system import Output, System


@dataclass(frozen=True)
class Extras:
    """Where to write them; None leaves them out.

    xray : file for the layers (.npz). pictures : folder for the pictures, as PNG.
    """

    xray: Path | None = None
    pictures: Path | None = None

    def check(self, system: System, *, several: bool) -> None:
        """Raise XRayError `bad_settings` if `system` does not give these, or if they are for one
        image and there are `several`."""
        if several and self.xray is not None:
            raise XRayError(
                "bad_settings", "--xray is for one image, not for several.", "Leave --xray out."
            )
        for name, output in (("xray", Output.XRAY), ("pictures", Output.PICTURES)):
            if getattr(self, name) is not None and output not in system.outputs:
                raise XRayError(
                    "bad_settings",
                    f"{system.label} gives no {output.value} beside its mesh.",
                    f"Leave --{name} out, or choose another generator.",
                )

    def of(self, name: str) -> Extras:
        """Those of one of several images: its pictures go to a folder `name`."""
        return self if self.pictures is None else replace(self, pictures=self.pictures / name)

    def write(self, generated: Generated, mesh: Path) -> dict[str, Any]:
        """Write the extras; returns their paths, for a JSON answer.

        mesh : the file of the mesh. It is written before, because it may have taken minutes.

        Raises XRayError `cannot_write`.
        """
        told: dict[str, Any] = {}
        file = mesh
        try:
            if self.pictures is not None:
                told["pictures"] = []
                for title, picture in generated.pictures.items():
                    file = self.pictures / f"{title}.png"
                    write_png(file, picture)
                    told["pictures"].append(str(file))
            if self.xray is not None and generated.xray is not None:
                file = self.xray
                generated.xray.save(file)
                told["xray"] = str(file)
        except OSError as error:
            raise XRayError(
                "cannot_write",
                f"{mesh} is written, but {file} is not ({error.strerror or error}).",
                "Choose another place for --xray and --pictures.",
            ) from error
        return told


def add_extras(parser: argparse.ArgumentParser) -> None:
    """Add --xray and --pictures."""
    parser.add_argument(
        "--xray", metavar="FILE.npz", type=Path, help="also write the predicted layers"
    )
    parser.add_argument(
        "--pictures", metavar="DIR", type=Path, help="also write the generator's pictures, as PNG"
    )


def read_extras(arguments: argparse.Namespace) -> Extras:
    """The extras of the arguments of `add_extras`."""
    return Extras(arguments.xray, arguments.pictures)
