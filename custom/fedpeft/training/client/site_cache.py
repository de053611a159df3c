"""The cache of a site's runs; its entries are valid for one version of the package and its libraries."""

from importlib.metadata import version
from pathlib import Path

import fedpeft
from fedpeft.common.fingerprint import of_folder
from fedpeft.data.cache import Cache

# The libraries that read, resample and encode images.
LIBRARIES = ("torch", "monai", "nibabel", "numpy", "pillow", "segment-anything")


def site_cache(cache_dir: str) -> Cache:
    """The cache in a site file's ``cache_dir``; for "", one of this process in memory and temporary files."""
    package = of_folder(Path(fedpeft.__file__).parent)
    stamp = " ".join((package, *(f"{name}-{version(name)}" for name in LIBRARIES)))
    return Cache(Path(cache_dir) if cache_dir else None, stamp)
