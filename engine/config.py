"""The configuration of a sweep: YAML ⇄ `SweepConfig`, overrides, and the JSON schema for editors.

Unknown keys are refused with the nearest known one; `--set a.b=c` overrides single values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from engine.adapter_section import AdapterConfig
from engine.data_section import DataConfig
from engine.errors import ConfigError
from engine.finetune_section import FinetuneConfig
from engine.model_section import ModelConfig
from engine.prompt_section import PromptConfig
from engine.sections import (
    ClusterConfig,
    ExplainerConfig,
    MetricsConfig,
    RunConfig,
    SweepConfig,
    unknown,
)

__all__ = [
    "AdapterConfig",
    "ClusterConfig",
    "DataConfig",
    "ExplainerConfig",
    "FinetuneConfig",
    "MetricsConfig",
    "ModelConfig",
    "PromptConfig",
    "RunConfig",
    "SweepConfig",
    "apply_overrides",
    "dump_config",
    "json_schema",
    "load_config",
    "parse_config",
]


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> SweepConfig:
    """Read a sweep from a YAML file.

    Args:
        path: The file.
        overrides: `a.b=c` assignments; `c` is read as YAML, list items are named by their index.

    Raises:
        ConfigError: The file can't be read, or a key or value is wrong; the message names the key.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; give the path of a YAML sweep") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: no text in UTF-8 ({error}); give a YAML sweep") from None
    try:
        raw = yaml.load(text, _UniqueKeys)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: a sweep is a mapping with the keys models, data, prompt, …")
    return parse_config(apply_overrides(raw, overrides), str(path))


class _UniqueKeys(yaml.SafeLoader):
    """Refuses a key that stands twice in a mapping, where YAML readers keep the last silently."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            name = (key.tag, str(key.value))
            if name in seen:
                raise yaml.composer.ComposerError(
                    None, None, f"the key {key.value!r} stands twice", key.start_mark
                )
            seen.add(name)
        return node


def apply_overrides(raw: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Set `a.b=c` assignments in plain values, and return them.

    Raises:
        ConfigError: An assignment is malformed or names something below a plain value.
    """
    for override in overrides:
        _set(raw, override)
    return raw


def parse_config(raw: Mapping[str, Any], place: str = "configuration") -> SweepConfig:
    """Return the checked sweep of plain YAML or JSON values.

    Raises:
        ConfigError: With one line an error, each naming the key.
    """
    try:
        return SweepConfig.model_validate(raw)
    except ValidationError as error:
        alone = "prompt" in raw and "prompts" not in raw
        lines = [_explain(dict(e), alone) for e in error.errors()]
        raise ConfigError(f"{place}: " + "\n  ".join(lines)) from None


def _explain(error: dict[str, Any], prompt_alone: bool) -> str:
    where = ".".join(str(part) for part in error["loc"])
    if prompt_alone and where.startswith("prompts.0"):
        where = "prompt" + where.removeprefix("prompts.0")  # as the user wrote it
    if error["type"] == "extra_forbidden":
        *parents, key = error["loc"]
        return f"{where}: {unknown('key', str(key), _keys_at(parents))}"
    message = str(error["msg"]).removeprefix("Value error, ")
    got = error.get("input")
    if error["type"] in ("missing", "value_error") or isinstance(got, dict):
        return f"{where}: {message}" if where else message
    return f"{where}: {message} (got {got!r})"


def _keys_at(parents: Sequence[int | str]) -> list[str]:
    model: type[BaseModel] = SweepConfig
    for part in parents:
        if isinstance(part, str) and part in model.model_fields:
            model = _model_of(model.model_fields[part].annotation) or model
    keys = [field.alias or key for key, field in model.model_fields.items()]
    return [*keys, "prompt"] if model is SweepConfig else keys


def _model_of(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in get_args(annotation):
        if (found := _model_of(argument)) is not None:
            return found
    return None


_SHORTHAND = {
    ("data", 1): "path",
    ("models", 2): "path",
    ("explainers", 2): "name",
    ("finetune", 3): "path",
}
"""Section and depth -> the key that a plain string in its place stands for."""


def _set(raw: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key.strip():
        raise ConfigError(f"--set {override}: write it as --set key.subkey=value")
    try:
        value = yaml.load(text, _UniqueKeys)
    except yaml.YAMLError as error:
        problem = getattr(error, "problem", None) or error
        raise ConfigError(f"--set {override}: the value is not valid YAML: {problem}") from None
    parts = key.strip().split(".")
    node: Any = raw
    for depth, part in enumerate(parts[:-1], 1):
        place: Any = _place(node, part, override)
        child = node.get(place) if isinstance(node, dict) else node[place]
        if isinstance(child, str) and (parts[0], depth) in _SHORTHAND:
            child = {_SHORTHAND[parts[0], depth]: child}
        child = {} if child is None else child
        if not isinstance(child, dict | list):
            raise ConfigError(f"--set {override}: {'.'.join(parts[:depth])} has no keys below it")
        node[place] = child
        node = child
    node[_place(node, parts[-1], override)] = value


def _place(node: dict[str, Any] | list[Any], part: str, override: str) -> str | int:
    if isinstance(node, dict):
        return part
    if not part.isdecimal() or int(part) >= len(node):
        raise ConfigError(f"--set {override}: {part!r} is not an index below {len(node)}")
    return int(part)


def dump_config(config: SweepConfig) -> dict[str, Any]:
    """Return the sweep as plain values, defaults included; `parse_config` reads them back."""
    return config.model_dump(mode="json", by_alias=True)


def json_schema() -> dict[str, Any]:
    """Return the JSON schema of a sweep file, for editors."""
    schema = SweepConfig.model_json_schema(by_alias=True)
    schema["properties"]["prompt"] = {"$ref": "#/$defs/PromptConfig"}
    schema["required"] = [key for key in schema["required"] if key != "prompts"]
    schema["anyOf"] = [{"required": ["prompt"]}, {"required": ["prompts"]}]
    return schema
