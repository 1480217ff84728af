"""A config.json of our own, for the models that no released format describes.

It is the `Config` itself, field by field; a part says its kind, {"kind": "MLA", ...}.
"""

from dataclasses import fields, is_dataclass
from typing import Any

from deepseek_mini import config as kinds
from deepseek_mini.config import Config
from deepseek_mini.json_fields import Fields

PARTS = ("GQA", "MLA", "SwiGLU", "MoE", "MTP", "Rope", "Linear", "Yarn", "Llama3")


def config_to_own(config: Config) -> dict[str, Any]:
    """The fields of a config as JSON has them."""
    return {f.name: _to_json(getattr(config, f.name)) for f in fields(config)}


def _to_json(value: Any) -> Any:
    if not is_dataclass(value):
        return value
    inside = {f.name: _to_json(getattr(value, f.name)) for f in fields(value)}
    return {"kind": type(value).__name__, **inside}


def read_own(raw: Fields) -> Config:
    """What `config_to_own` wrote.

    Raises:
        ValueError: a field is missing, unknown or impossible; the message names it.
    """
    ignored = ("architectures", "model_type", "dtype", "torch_dtype")
    values = {k: v for k, v in raw.values.items() if k not in ignored}
    return _built(Config, Fields(values, raw.file))


def _built(kind: type, raw: Fields) -> Any:
    names = [f.name for f in fields(kind)]
    for name in raw.values:
        if name not in names:
            raise raw.error(name, f"is no field of {kind.__name__}")
    for name in names:
        if name not in raw.values:
            raise raw.error(name, "is missing")
    return kind(**{name: _part(raw, name) for name in names})


def _part(raw: Fields, name: str) -> Any:
    value = raw.values[name]
    if not isinstance(value, dict):
        return value
    inside = Fields(value, raw.file, f"{raw.inside}{name}.")
    if value.get("kind") not in PARTS:
        rule = f"it must be one of {', '.join(PARTS)}"
        raise inside.error("kind", f"is {value.get('kind')!r}, but {rule}")
    values = {k: v for k, v in value.items() if k != "kind"}
    return _built(
        getattr(kinds, value["kind"]), Fields(values, raw.file, inside.inside)
    )
