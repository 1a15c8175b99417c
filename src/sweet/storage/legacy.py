"""Folders, recipes and results of earlier versions, brought to today's keys. The only place that knows old names."""

from __future__ import annotations

from typing import Any

MEMBER = ("size", "requested", "width", "params", "flops", "latency", "metrics", "training", "pareto")
OLD_SWITCHES = {"loudest": "energy"}  # of key ``inner``


def upgraded_family(values: dict[str, Any]) -> dict[str, Any]:
    """``family.json`` of any version as today's: the second key of a member has another name, {} is no training."""
    members = [row if "requested" in row else dict(zip(MEMBER, row.values(), strict=True)) for row in values["members"]]
    return values | {"members": [row | {"training": row.get("training") or None} for row in members]}


def upgraded(values: dict[str, Any]) -> dict[str, Any]:
    """``config.json`` or a cell's result of any version as today's.

    Keys that were null or empty are absent, values of switches have their new names. A segmenter says how fine its
    maps are. The source of a cell is now that of each of its runs.
    """
    result = {key: value for key, value in values.items() if value is not None}
    if result.get("task") == "segment" and isinstance(head := result.get("head"), dict):
        result["head"] = {"upsample": 4} | head  # whatever the patches
    if not result.get("mae"):
        result.pop("mae", None)
    for key in ("made", "switches"):
        switches = result.get(key)
        if not isinstance(switches, dict):
            continue
        inner = switches.get("inner")
        if isinstance(inner, str) and inner in OLD_SWITCHES:
            result[key] = switches | {"inner": OLD_SWITCHES[inner]}
    if isinstance(result.get("runs"), list) and "source" in result:
        source = result.pop("source")
        result["runs"] = [{"source": source} | run if isinstance(run, dict) else run for run in result["runs"]]
    return result
