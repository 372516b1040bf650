"""The reference of a sweep's keys: `python -m jobs.reference > docs/configuration.md`.

Made from the docstrings of the configuration, so that the two can't differ; a test holds the file
against it.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from engine.config import json_schema
from engine.explainers import method_names, parameters
from engine.guests import names as guests

SECTIONS = (
    ("run", "RunConfig"),
    ("models", "ModelConfig"),
    ("models.adapters", "AdapterConfig"),
    ("data", "DataConfig"),
    ("prompt", "PromptConfig"),
    ("prompt.shots", "Shot"),
    ("explainers", "ExplainerConfig"),
    ("finetune", "FinetuneConfig"),
    ("metrics", "MetricsConfig"),
    ("cluster", "ClusterConfig"),
)

HEAD = """# Keys of a sweep

A sweep is a YAML file. Unknown keys are refused, with the nearest known one. Any key can be set on
the command line: `--set data.limit=10`, `--set explainers.0.num_samples=512`. `models` and
`explainers` are lists; an entry that needs no further keys may be written as its path or name.
`prompt` is one prompt, `prompts` a list of them, which makes them a factor of the sweep.
"""


def reference() -> str:
    """Return the reference as Markdown."""
    definitions = json_schema()["$defs"]
    parts = [HEAD]
    for key, name in SECTIONS:
        definition = definitions[name]
        parts.append(f"## {key}\n\n{_flat(definition['description'])}\n")
        parts.append(_table(definition))
        if key == "explainers":
            parts.append(_methods())
    return "\n".join(parts)


def _table(definition: dict[str, Any]) -> str:
    required = definition.get("required", [])
    lines = ["| key | default | meaning |", "|---|---|---|"]
    for key, field in definition["properties"].items():
        default = "required" if key in required else f"`{json.dumps(field.get('default'))}`"
        if "default" not in field and key not in required:
            default = ""
        meaning = _flat(field.get("description", "")).replace("|", "\\|")
        lines.append(f"| `{key}` | {default} | {meaning} |")
    return "\n".join(lines) + "\n"


def _methods() -> str:
    lines = ["| method | parameters with their defaults |", "|---|---|"]
    methods = {name: parameters(name) for name in method_names()}
    methods |= {name: guests.parameters(name) for name in guests.names()}
    for name, known in methods.items():
        values = {k: v for k, v in known.items() if k not in ("seed", "sampling")}
        shown = ", ".join(f"`{key}: {json.dumps(value)}`" for key, value in values.items())
        lines.append(f"| `{name}` | {shown or 'none'} |")
    return "\n".join(lines) + "\n"


def _flat(text: str) -> str:
    return " ".join(text.split())


if __name__ == "__main__":
    sys.stdout.write(reference())
