"""Fields of a JSON file, read with errors that name the field, its value and the file.

What is here knows nothing of models: it is the part of reading a config.json or an
index that would be the same for any other file.
"""

import json
from pathlib import Path
from typing import Any

NEEDED = object()  # the default of a field that must be there
LARGEST = 2**53  # beyond it a float skips whole numbers, and no size is meant


class Fields:
    """The fields of one JSON object, with errors that name the field and the file."""

    def __init__(self, values: dict, file: Path, inside: str = ""):
        self.values, self.file, self.inside = values, file, inside

    def get(self, name: str, kind: type, default: Any = NEEDED, least: int = 1) -> Any:
        """A field of type int (at least `least`), float (an int will do), bool, str,
        list or dict; null counts as absent.
        """
        value = self.values.get(name)
        if value is None:
            if default is NEEDED:
                raise self.error(name, "is missing")
            return default
        accepted = (int, float) if kind is float else kind
        if not isinstance(value, accepted) or isinstance(value, bool) != (kind is bool):
            raise self.error(
                name, f"is {value!r}, but it must be of type {kind.__name__}"
            )
        if kind in (int, float):
            least = least if kind is int else -LARGEST
            if not least <= value <= LARGEST:  # nor NaN
                raise self.error(
                    name, f"is {value!r}, but it must be from {least} to {LARGEST}"
                )
        return float(value) if kind is float else value

    def only(self, name: str, *allowed: Any) -> None:
        """Refuse any value but those allowed; an absent field is fine."""
        value = self.values.get(name)
        if value is not None and value not in allowed:
            rule = " or ".join(repr(a) for a in allowed) or "absent"
            raise self.error(
                name, f"is {value!r}, but deepseek_mini needs it to be {rule}"
            )

    def error(self, name: str, text: str) -> ValueError:
        return ValueError(f"{self.inside}{name} {text} ({self.file})")


def read_fields(file: Path) -> Fields:
    """The fields of a file that holds one JSON object; a byte-order mark is skipped.

    Raises:
        FileNotFoundError: there is no such file.
        IsADirectoryError: it is a folder.
        ValueError: it is not JSON, or no object.
    """
    if file.is_dir():
        raise IsADirectoryError(f"{file} is a folder, but must be a file")
    try:
        values = json.loads(file.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no {file.name} in {file.parent}") from None
    except RecursionError:
        raise ValueError(f"{file} is nested too deeply to be read") from None
    except ValueError as error:
        raise ValueError(f"{file} is not JSON: {error}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{file} must hold a JSON object, not {type(values).__name__}")
    return Fields(values, file)
