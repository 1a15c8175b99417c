"""Folders and recipes of earlier versions, brought to today's keys. The only place that knows old names."""

from __future__ import annotations

from typing import Any

OLD_SWITCHES = {"loudest": "energy"}  # of key ``inner``


def upgraded_family(values: dict[str, Any]) -> dict[str, Any]:
    """``family.json`` of any version as today's."""
    members = [{"requested": row.get("asked"), **row, "training": row["training"] or None} for row in values["members"]]
    return values | {"members": members}


def upgraded(values: dict[str, Any]) -> dict[str, Any]:
    """``config.json`` of any version as today's: keys that were null or empty are absent, switches have new names."""
    result = {key: value for key, value in values.items() if value is not None}
    if not result.get("mae"):
        result.pop("mae", None)
    made = result.get("made")
    if isinstance(made, dict) and made.get("inner") in OLD_SWITCHES:
        result["made"] = made | {"inner": OLD_SWITCHES[made["inner"]]}
    return result
