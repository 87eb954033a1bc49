"""NAME.qanet/: what an artifact is, what made it, what it may run on.

manifest.json is read and checked before anything else; a file of the bundle is hashed before it is handed to a
parser. A bundle that ships inside the package is read-only: `writable_copy` makes one to build into.
"""

from qanet.bundle.bundle import (
    SHIPPED,
    SUFFIX,
    Bundle,
    copy_bundle,
    create,
    new_folder,
    open_bundle,
    safe_name,
    writable_copy,
)
from qanet.bundle.manifest import NO_VNNI, OPTIONAL_PRECISIONS, PRECISIONS, SCHEMA_VERSION, VIEWS

__all__ = [
    "NO_VNNI",
    "OPTIONAL_PRECISIONS",
    "PRECISIONS",
    "SCHEMA_VERSION",
    "SHIPPED",
    "SUFFIX",
    "VIEWS",
    "Bundle",
    "copy_bundle",
    "create",
    "new_folder",
    "open_bundle",
    "safe_name",
    "writable_copy",
]
