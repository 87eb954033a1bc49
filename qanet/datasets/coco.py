"""What annotation and results files share: JSON read with readable errors, boxes checked."""

import json
import math
from pathlib import Path
from typing import Any

from qanet.errors import QanetError

PERSON = 1  # COCO's category id of a person, the only one of the parsing sets


def finite_box(value: Any) -> list[float] | None:
    """x, y, width, height of a COCO bbox, None where it is none."""
    if not isinstance(value, list) or len(value) != 4:
        return None
    if not all(isinstance(v, (int, float)) and not isinstance(v, bool) and math.isfinite(v) for v in value):
        return None
    return [float(v) for v in value]


def read_json(path: Path, what: str) -> Any:
    """A JSON file's content; QanetError where there is none or it is broken."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError as error:
        raise QanetError(f"no file {path}", expected=what, got="missing") from error
    except OSError as error:
        raise QanetError(f"{path} cannot be read", expected=what, got=error.strerror) from error
    except ValueError as error:
        raise QanetError(f"{path} is no JSON", expected=what, got=str(error)) from error
