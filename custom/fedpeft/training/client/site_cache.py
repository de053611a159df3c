"""The cache of a site's runs: what is in it was made by this very package and these very libraries."""

from importlib.metadata import version
from pathlib import Path

import fedpeft
from fedpeft.common.fingerprint import of_folder
from fedpeft.data.cache import Cache

# What reading, resampling and encoding are done with.
LIBRARIES = ("torch", "monai", "nibabel", "numpy", "pillow", "segment-anything")


def site_cache(cache_dir: str) -> Cache:
    """The cache in a site file's ``cache_dir``; "": one of this process alone, in memory and in temporary files."""
    package = of_folder(Path(fedpeft.__file__).parent)
    stamp = " ".join((package, *(f"{name}-{version(name)}" for name in LIBRARIES)))
    return Cache(Path(cache_dir) if cache_dir else None, stamp)
