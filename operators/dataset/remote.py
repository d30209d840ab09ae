"""Pictures that a second Blender renders.

While Blender renders it does nothing else. So in a window a second Blender renders for all items of
a run. Each request is a line of JSON, which names the files that it needs.
"""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TextIO

import numpy as np

from ...xray_addon.camera import Camera
from ...xray_addon.dataset.store import writing
from ...xray_addon.dataset.worker import ITEM_TIMEOUT
from ...xray_addon.errors import XRayError
from ...xray_addon.files.json_files import parse_json
from ...xray_addon.files.json_schema import plain
from ...xray_addon.surface import Surface
from .child import ChildBlender
from .slice_rendering import render_slices
from .studio import Studio, View, open_scene

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ...xray_addon.settings.dataset import DatasetSettings

COMMAND = "render-worker"


class RemoteRenderer:
    """A second Blender that renders with `settings`; use it in a `with`.

    It starts when it is first needed, and again after it has died.
    """

    def __init__(self, settings: DatasetSettings) -> None:
        self._settings = settings
        self._child: ChildBlender | None = None
        self._written: Surface | None = None
        self._exit = ExitStack()

    def __enter__(self) -> Self:
        folder = tempfile.TemporaryDirectory(prefix="xray-", ignore_cleanup_errors=True)
        self._folder = Path(self._exit.enter_context(folder))
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()
        self._exit.close()

    def picture_steps(self, scene: Path, view: View) -> Generator[None, None, NDArray[np.uint8]]:
        """Wait for `Studio.picture` of the file `scene`, see `write_scene`.

        Raises its errors, `no_gpu`, `no_blender`, `worker_died`, `worker_hung`.
        """
        cameras = {"camera": _plain(view.camera), "placed": _plain(view.placed)}
        return self._answered({"scene": str(scene), **cameras, "seed": view.seed})

    def slices_steps(
        self, surface: Surface, camera: Camera, seed: int
    ) -> Generator[None, None, NDArray[np.uint8]]:
        """Wait for `render_slices`. Raises as `picture_steps`, and `cannot_write`."""
        file = self._folder / "surface.npz"
        if surface is not self._written:
            with writing(self._folder), file.open("wb") as stream:
                np.savez(stream, **_arrays(surface))
            self._written = surface
        return self._answered({"surface": str(file), "camera": _plain(camera), "seed": seed})

    def _answered(self, request: dict[str, Any]) -> Generator[None, None, NDArray[np.uint8]]:
        """Wait for the pictures that answer `request`."""
        if self._child is not None and self._child.exit_code is not None:
            self._stop()  # it died of nothing that is asked of it now
        if self._child is None:
            arguments = [COMMAND, *self._settings.to_arguments()]
            self._child = ChildBlender(arguments, self._folder / "log.txt")
        child, out = self._child, self._folder / "pictures.npy"
        with ExitStack() as unanswered:
            unanswered.callback(self._stop)
            child.send({**request, "out": str(out)})
            while not {"done", "error"} & (answer := child.answer() or {}).keys():
                if not child.is_alive:
                    raise child.death("it rendered")
                if child.silent_for > ITEM_TIMEOUT:
                    message = f"A view took longer than {ITEM_TIMEOUT:g} s to render."
                    raise XRayError("worker_hung", message)
                yield
            unanswered.pop_all()
        child.mark_idle()
        if "error" in answer:
            raise XRayError.from_dict(answer["error"])
        pictures: NDArray[np.uint8] = np.load(out)
        return pictures

    def _stop(self) -> None:
        if self._child is not None:
            self._child.stop()
            self._child = None


def serve(settings: DatasetSettings, lines: TextIO) -> Iterator[dict[str, Any]]:
    """The second Blender's part of `RemoteRenderer`: an answer for each of `lines`."""
    server = _Server(settings)
    while line := lines.readline():  # iterating over a stream would read ahead
        request = parse_json(line, plain)
        try:
            np.save(request["out"], server.pictures(request))
            answer = {"done": request["out"]}
        except XRayError as error:
            answer = {"error": error.to_dict()}
        yield answer


class _Server:
    """Answers requests; it keeps the scene of the last one open."""

    def __init__(self, settings: DatasetSettings) -> None:
        self._settings = settings
        self._opened: tuple[str, Studio] | None = None

    def pictures(self, request: dict[str, Any]) -> NDArray[np.uint8]:
        """One picture (H, W, 4), or all slices of a view (12, H, W, 4)."""
        camera, seed = Camera(**request["camera"]), request["seed"]
        if "surface" in request:
            with np.load(request["surface"]) as arrays:
                surface = Surface(**arrays)
            settings = self._settings
            return render_slices(surface, camera, settings.slice_alignment, settings.samples, seed)
        scene = request["scene"]
        if self._opened is None or self._opened[0] != scene:
            self._opened = scene, open_scene(Path(scene), self._settings)
        return self._opened[1].picture(View(camera, Camera(**request["placed"]), seed))


def _arrays(surface: Surface) -> dict[str, NDArray[Any]]:
    """What slices show of `surface`: its shape, without colours."""
    arrays = {"vertices": surface.vertices, "faces": surface.faces}
    if surface.corner_normals is not None:
        arrays["corner_normals"] = surface.corner_normals
    return arrays


def _plain(camera: Camera) -> dict[str, Any]:
    return {**vars(camera), "camera_to_world": camera.camera_to_world.tolist()}
