"""Which state a layer's roles read: the teacher's own, or *folded* values that are computed from it.

A weight that is computed from parameters alone (weight norm, spectral norm, weight standardisation) is folded: the student holds
the result under a new name and trains it. `attrs.folds` records the computation, so that a teacher's state_dict suffices to inherit
from. A weight computed from buffers stays a buffer.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from raysearch.models.tracing.values import (
    Constant,
    Made,
    State,
    Value,
    is_trainable,
    parts,
    program_of,
)


@dataclass
class Folds:
    """The names of folded states given so far.

    Attributes:
        taken: names that the teacher's state or an earlier fold has.
        names: (role, program) -> name; equal computations share one state.
    """

    taken: set[str]
    names: dict[tuple[str, str], str] = field(default_factory=dict)


def is_computed(value: Value) -> bool:
    """Whether a trained value is not a parameter itself, so that it would be folded."""
    return not isinstance(value, State) and is_trainable(value)


def may_fold(value: Value) -> bool:
    """A trainable fold must not hold more numbers than the parameters that it is computed from."""
    if not is_computed(value):
        return True
    found = {part.name: part for part in parts(value) if isinstance(part, State)}
    numbers = sum(math.prod(part.meta.shape) for part in found.values() if part.trainable)
    return math.prod(value.meta.shape) <= numbers


def sources(value: Value) -> frozenset[str]:
    """The parameters that a value is computed from."""
    found = (part for part in parts(value) if isinstance(part, State))
    return frozenset(part.name for part in found if part.trainable)


def parted_parameters(values: Collection[Value], tolerated: int) -> frozenset[str]:
    """Parameters that folding would double: read as they are and by a fold, or by several different folds.

    Args:
        values: what the network's layers read.
        tolerated: numbers of a fold that may be doubled, for the sake of the channels that folding leaves free.
    """
    readers: dict[str, set[str]] = {}
    for value in values:
        if isinstance(value, State):
            readers.setdefault(value.name, set()).add("")
        elif is_computed(value) and math.prod(value.meta.shape) > tolerated:
            for name in sources(value):
                readers.setdefault(name, set()).add(json.dumps(fold_program(value)))
    return frozenset(name for name, found in readers.items() if len(found) > 1)


def name_states(
    folds: Folds, layer: str, roles: Mapping[str, Value], *, in_module: Collection[str]
) -> tuple[dict[str, str], dict[str, Any]]:
    """The names of a layer's states, and the attributes `folds` and `untrained` where there are any.

    Args:
        folds: is added to.
        layer: the layer's name.
        roles: what each role reads.
        in_module: the roles that one standard module must hold together; () where any names will do.
    """
    prefix = _common_prefix(roles, in_module) if in_module else ""
    computed = {role for role, value in roles.items() if not isinstance(value, State)}
    everywhere = bool(in_module) and prefix is None  # several places: all get new names in one
    base, count = prefix or layer, 0
    while True:
        path = base if not count else f"{base}.folded" + (f"_{count}" if count > 1 else "")
        move = everywhere or (bool(in_module) and count > 0)
        programs = {role: fold_program(roles[role]) for role in roles if move or role in computed}
        found = _new_names(folds, path, programs)
        if found is not None:
            break
        count += 1  # the teacher has other states under these names
    names = {role: value.name for role, value in roles.items() if isinstance(value, State)}
    attrs: dict[str, Any] = {"folds": programs} if programs else {}
    untrained = [role for role, value in roles.items() if not is_trainable(value)]
    if untrained:
        attrs["untrained"] = untrained
    return {role: found.get(role) or names[role] for role in roles}, attrs


def _common_prefix(roles: Mapping[str, Value], in_module: Collection[str]) -> str | None:
    """Where the module stands whose states these are; "" where none of them is a state."""
    found = set()
    for role in in_module:
        value = roles.get(role)
        if isinstance(value, State):
            path, _, last = value.name.rpartition(".")
            found.add(path if last == role and path else None)
    return found.pop() if len(found) == 1 else ("" if not found else None)


def _new_names(folds: Folds, path: str, programs: Mapping[str, Any]) -> dict[str, str] | None:
    """The names under a path; those of an earlier layer with the same programs; None where others have them."""
    keys = {role: (role, json.dumps(program)) for role, program in programs.items()}
    if all(key in folds.names for key in keys.values()):
        return {role: folds.names[key] for role, key in keys.items()}
    found = {role: f"{path}.{role}" for role in programs}
    if folds.taken & set(found.values()):
        return None
    folds.taken |= set(found.values())
    folds.names |= {keys[role]: name for role, name in found.items()}
    return found


def fold_program(value: Value) -> dict[str, Any]:
    """How a value is computed from the teacher's state.

    Raises:
        Unreadable: it cannot be written down.
    """
    return program_of(value, _no_slot, _name, None)


def _name(state: State | Constant) -> str:
    return state.name if isinstance(state, State) else ""


def _no_slot(made: Made) -> int:
    raise AssertionError("a folded weight does not depend on the images")
