"""Datablocks that long work holds on to."""

from __future__ import annotations

from typing import Any

import bpy

_KINDS = {"COLLECTION": "collections", "OBJECT": "objects", "SCENE": "scenes"}


class Lasting:
    """A collection, object or scene that is found again after undo and after renaming.

    Undo and redo replace datablocks, so that Python's references to them become invalid, but not
    their session UIDs. name : at first.
    """

    def __init__(self, item: Any) -> None:
        self.name: str = item.name
        self._uid = item.session_uid
        self._kind = _KINDS[item.id_type]

    def find(self) -> Any:
        """The datablock as it is now; None if it was removed, or another file was opened."""
        items = getattr(bpy.data, self._kind)
        return next((item for item in items if item.session_uid == self._uid), None)
