"""A sweep's models one by one, for programs that start a run each: `python -m jobs.each_model`.

Prints a line a model, `NAME<tab>OVERRIDE`: `rayxai run CONFIG --set OVERRIDE` then runs the sweep
of this model alone. Entries of one model, such as its precisions, stay together.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from engine.config import ModelConfig, SweepConfig, load_config
from engine.errors import ConfigError
from jobs.codes import guarded


def each_model(config: SweepConfig) -> Iterator[tuple[str, str]]:
    """Yield each model's name, fit for a folder, and the override that leaves it alone.

    Raises:
        ConfigError: Two models have one folder name.
    """
    by_label: dict[str, list[ModelConfig]] = {}
    for model in config.models:
        by_label.setdefault(model.label, []).append(model)
    folders: dict[str, str] = {}
    for label in by_label:
        folder = re.sub(r"[^A-Za-z0-9._-]+", "_", label).lstrip(".") or "_"
        if folder in folders:
            raise ConfigError(
                f"models {folders[folder]!r} and {label!r} would have one folder, {folder}: give "
                "one of them another `name`"
            )
        folders[folder] = label
    for folder, label in folders.items():
        entries = [
            model.model_dump(mode="json", by_alias=True, exclude_defaults=True)
            for model in by_label[label]
        ]
        yield folder, f"models={json.dumps(entries)}"


def main() -> int:
    """Print the models of the sweep that the command line names, with its overrides."""

    def action() -> int:
        if len(sys.argv) < 2:
            raise ConfigError("give a sweep: python -m jobs.each_model configs/families.yaml")
        for name, override in each_model(load_config(Path(sys.argv[1]), sys.argv[2:])):
            sys.stdout.write(f"{name}\t{override}\n")
        return 0

    return guarded(action)


if __name__ == "__main__":
    sys.exit(main())
