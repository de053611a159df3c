"""The server's jobs below its own kit, wherever that was put.

FLARE's storages want absolute paths, which nobody knows when kits are made, and by default all servers of a machine
share /tmp/nvflare, where they take each other's jobs. FLARE's server changes its folder to the kit before it builds
these, so relative paths are the kit's.
"""

import os

from nvflare.apis.impl.job_def_manager import SimpleJobDefManager
from nvflare.app_common.storages.filesystem_storage import FilesystemStorage


class KitJobs(SimpleJobDefManager):
    """Submitted jobs and their results.

    Args:
        uri_root: folder, relative to the kit or absolute.
    """

    def __init__(self, uri_root: str) -> None:
        super().__init__(uri_root=os.path.abspath(uri_root))


class KitStorage(FilesystemStorage):
    """Any other storage.

    Args:
        root_dir: folder, relative to the kit or absolute.
    """

    def __init__(self, root_dir: str) -> None:
        super().__init__(root_dir=os.path.abspath(root_dir))
