"""Where the segments are that live elsewhere, for those who read a data folder.

A manifest names the place of its segments. It is only believed when it is the place that the
service was told of, or the folder of one of several schedulers in it.
"""

import re
from pathlib import Path
from typing import Final

from recordings import places
from recordings.cache import Cache
from recordings.manifest import Manifest
from recordings.remote import Remote

_SCHEDULER: Final = re.compile(r"[0-9a-f-]{1,64}", re.ASCII)


class ElsewhereError(Exception):
    """A run's segments are in a place that is not known here; the text is a sentence."""


class Storage:
    """The place of all segments that are not on disk. Safe for many threads."""

    def __init__(self, url: str) -> None:
        """Raises ValueError with a sentence."""
        self._url = url
        self._main = Remote(url)
        self._others: dict[str, Remote] = {}

    def remote(self, manifest: Manifest) -> Remote:
        """Return where a run's segments are. Raises ElsewhereError."""
        place = manifest.storage
        if place == self._main.url:
            return self._main
        begin, _, name = place.rpartition("/")
        if begin != self._main.url or not _SCHEDULER.fullmatch(name):
            raise ElsewhereError(
                f"Run {manifest.run} of {manifest.job} lives in {place[:200]}, and not in "
                f"{self._main.url}, which is what --storage says here."
            )
        if name not in self._others:
            self._others[name] = Remote(places.below(self._url, name))
        return self._others[name]


def folder(storage: Storage | None, cache: Cache | None, manifest: Manifest) -> Path | None:
    """Return the cache's folder of what lives elsewhere; None when nothing does.

    Raises ElsewhereError.
    """
    if not any(segment.is_remote for segment in manifest.segments):
        return None
    if storage is None or cache is None:
        raise ElsewhereError(
            f"Run {manifest.run} of {manifest.job} lives in {manifest.storage[:200]}; the setting "
            "that says so is --storage."
        )
    return cache.know(storage.remote(manifest), manifest, only_remote=True)
