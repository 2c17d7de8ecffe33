"""Removes folders of recordings so that a crash leaves either all of one or nothing to be seen.

A folder gets a name that no recording can have, and is emptied then; what a crash left of that is
swept at the next start.
"""

import os
import shutil
from pathlib import Path

from recordings import layout


def remove(root: Path, folder: Path) -> None:
    """Remove a recording or a run below `root`; nothing when it is not there. Raises OSError."""
    target = root / f"{layout.DELETED}{os.urandom(8).hex()}"
    try:
        folder.rename(target)
    except FileNotFoundError:
        return
    layout.sync(folder.parent)
    shutil.rmtree(target)
    layout.sync(root)


def sweep(root: Path) -> None:
    """Finish what a crash interrupted. Raises OSError."""
    for folder in root.glob(f"{layout.DELETED}*"):
        shutil.rmtree(folder)
