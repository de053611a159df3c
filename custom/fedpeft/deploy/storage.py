"""Keep the server's jobs below its own kit.

FLARE's storages take absolute paths, which are not known when kits are made. By default all servers of a machine share
/tmp/nvflare and take each other's jobs. FLARE's server changes to the kit's folder before it builds these storages, so
a relative path starts at the kit.
"""

import os

from nvflare.apis.impl.job_def_manager import SimpleJobDefManager
from nvflare.app_common.storages.filesystem_storage import FilesystemStorage


class KitJobs(SimpleJobDefManager):
    """The storage of submitted jobs and their results.

    Args:
        uri_root: a folder, absolute or relative to the kit.
    """

    def __init__(self, uri_root: str) -> None:
        super().__init__(uri_root=os.path.abspath(uri_root))


class KitStorage(FilesystemStorage):
    """The storage of FLARE's snapshots.

    Args:
        root_dir: a folder, absolute or relative to the kit.
    """

    def __init__(self, root_dir: str) -> None:
        super().__init__(root_dir=os.path.abspath(root_dir))
