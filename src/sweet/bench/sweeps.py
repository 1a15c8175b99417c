"""Tables that choose settings: variants of each arm, more rates while the best is at an edge, and what was chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from sweet.results.choices import MARK, Variant, best, chosen_for, is_at_edge, row_of, variants
from sweet.results.files import read_tables

from .arms import Arm, Switches
from .protocol import Protocol, spec_of

RATES = tuple(1e-3 * 2**i for i in range(-3, 7))  # as far as a sweep may go
DEFAULT = "default"


def rate_arms(rows: Mapping[str, Arm]) -> dict[str, Arm]:
    """Every row at every rate that a sweep may come to: ``ROW@2`` is at 2e-3."""
    return {f"{row}{MARK}{1000 * lr:g}": replace(arm, lr=lr) for row, arm in rows.items() for lr in RATES}


def setting_arms(rows: Mapping[str, Arm], settings: Mapping[str, Sequence[Switches]]) -> dict[str, Arm]:
    """Every row as it is, ``ROW@default``, and with other switches, ``ROW@steps=400``."""
    result = {}
    for row, given in settings.items():
        for switches in ({}, *given):
            name = "+".join(f"{key}={value}" for key, value in switches.items()) or DEFAULT
            result[f"{row}{MARK}{name}"] = replace(rows[row], switches={**rows[row].switches, **switches})
    return result


def measured(protocol: Protocol, table: str, out: Path) -> dict[str, list[Variant]]:
    """{row: its variants that were measured} of a sweep below ``out``."""
    found = read_tables(out / protocol.name / table, spec_of(protocol, table))
    return variants(found[0]) if found else {}


def missing_sweeps(protocol: Protocol, out: Path) -> list[str]:
    """The sweeps that choose a table's settings and were not measured below ``out``."""
    return [table for table, sweep in protocol.chosen_by.items() if not measured(sweep, table, out)]


def rates_to_try(protocol: Protocol, found: Mapping[str, list[Variant]]) -> list[str]:
    """The arms that a sweep needs by what was measured so far: the first rates, and one more beyond a best at an edge.

    Arms of other settings are all needed.
    """
    arms = protocol.arms
    ladders: dict[str, list[str]] = {}
    for name in sorted(arms, key=lambda name: arms[name].lr or 0.0):
        ladders.setdefault(row_of(name), []).append(name)
    wanted = set()
    for row, names in ladders.items():
        chosen = [name for name in names if arms[name].lr in (None, *protocol.first_rates)]
        tried = [one for one in found.get(row, ()) if one.arm in names]
        if len(chosen) < len(names) and tried and {one.arm for one in tried}.issuperset(chosen):
            chosen = [one.arm for one in tried]
            if is_at_edge(tried):
                low, high = names.index(chosen[0]), names.index(chosen[-1])
                lowest = best(tried).arm == chosen[0]
                chosen += names[max(0, low - 1) : low] if lowest else names[high + 1 : high + 2]
        wanted |= {*chosen}
    return [name for name in arms if name in wanted]


def with_choices(protocol: Protocol, out: Path) -> Protocol:
    """A table whose arms have the settings that its sweeps below ``out`` have chosen; the table's own without."""
    arms = dict(protocol.arms)
    for table, sweep in protocol.chosen_by.items():
        found = measured(sweep, table, out)
        for name in arms:
            for chosen in chosen_for(name, found):
                arm, variant = arms[name], sweep.arms[chosen.arm]
                switches = {**arm.switches, **varied(sweep, chosen.arm)}
                given = {key: value for key, value in switches.items() if value is not None}
                arms[name] = replace(arm, lr=arm.lr if variant.lr is None else variant.lr, switches=given)
    return replace(protocol, arms=arms)


def varied(sweep: Protocol, name: str) -> dict[str, str | float | None]:
    """What a sweep varies of a row, with the values of its variant ``name``; None where that leaves it alone."""
    mine = sweep.arms[name].switches
    others = [arm.switches for one, arm in sweep.arms.items() if row_of(one) == row_of(name)]
    return {key: mine.get(key) for one in others for key in {**mine, **one} if mine.get(key) != one.get(key)}
