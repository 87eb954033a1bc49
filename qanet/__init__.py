"""Quality-aware human parsing on the edge (QANet, arXiv 2103.05997).

    parser = qanet.load("ccp13-lite0")
    people = parser(cv2.imread("street.jpg"))

Importing this package costs NumPy and nothing else; engines, decoders and frameworks load when they are used.
"""

from typing import TYPE_CHECKING, Any

from qanet._version import __version__
from qanet.errors import QanetError

if TYPE_CHECKING:
    from qanet.runtime.parser import Parser

__all__ = ["QanetError", "__version__", "load"]


def load(name_or_path: str, **options: Any) -> "Parser":
    """Load a bundle and return a parser for images; see `qanet.runtime.parser.load` for the options."""
    from qanet.runtime.parser import load as load_parser

    return load_parser(name_or_path, **options)
