"""What of a configuration stays out of the run's fingerprint: where and when things run."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel


def without_scheduling(section: BaseModel) -> dict[str, Any]:
    """Return a section as plain values without the fields that are marked as scheduling."""
    result: dict[str, Any] = {}
    for key, field in type(section).model_fields.items():
        extra = field.json_schema_extra
        if isinstance(extra, dict) and extra.get("scheduling"):
            continue
        value = getattr(section, key)
        if isinstance(value, BaseModel):
            value = without_scheduling(value)
        elif isinstance(value, list):
            value = [without_scheduling(v) if isinstance(v, BaseModel) else v for v in value]
        if value != {} or not isinstance(getattr(section, key), BaseModel):
            result[key] = value
    result.update(section.model_extra or {})
    return result
