"""The scope of an nn.Sequential whose children a checkpointed function runs one by one, without calling it.

The numbers that its children compute are rounded as if the nn.Sequential had been called, so that a training
with checkpoints has the bits of one without.
"""

from collections.abc import Sequence

from torch import nn

from peppp.lowprec.network.state import Pass, Scope
from peppp.lowprec.rounding.streams import mix, mix_text

_PLACE = "_peppp_place"  # attribute of an nn.Sequential's child: its parent, the parent's path, its number


def note_children(parent: nn.Module, path: str, children: Sequence[nn.Module]) -> None:
    """Note on the children of an nn.Sequential where they are, unless they have another parent already."""
    for number, child in enumerate(children):
        child.__dict__.setdefault(_PLACE, (parent, path, number))


def is_run_by_hand(running: Pass, child: nn.Module) -> bool:
    """Whether a checkpointed function runs children of an nn.Sequential one by one, without calling it.

    Children that it leaves for later, such as the last ones in checkpoint_sequential, count as well.
    """
    scope = running.scopes[-1]
    place = child.__dict__.get(_PLACE)
    if place is None or scope.owner is place[0]:
        return False
    return running.by_hand > 0 or _goes_on(scope, *place)


def sequence_around(outer: Scope, child: nn.Module) -> Scope:
    """Return the scope of the nn.Sequential around a child that is run by hand, as if it had been called."""
    return _sequence(outer, *child.__dict__[_PLACE])


def _goes_on(scope: Scope, module: nn.Module, path: str, number: int) -> bool:
    """Whether earlier children of an nn.Sequential, or of one around it, ran by hand in a scope."""
    if path in scope.sequences:
        return scope.sequences[path][1] < number
    above = module.__dict__.get(_PLACE)
    if above is None:
        return False
    if above[1] not in scope.sequences:
        return _goes_on(scope, *above)
    inner, last = scope.sequences[above[1]]
    return last < above[2] or (last == above[2] and _goes_on(inner, module, path, number))


def _sequence(outer: Scope, module: nn.Module, path: str, number: int) -> Scope:
    """Return the scope of an nn.Sequential that is about to run its child of this number by hand.

    It may itself be a child of an nn.Sequential that is run by hand; that one's scope is then the outer one.
    """
    above = module.__dict__.get(_PLACE)
    if above is not None and outer.owner is not above[0]:
        known = outer.sequences.get(above[1])
        if known is not None and known[1] == above[2] and _goes_on(known[0], module, path, number):
            outer = known[0]
        else:
            outer = _sequence(outer, *above)
    known = outer.sequences.get(path)
    if known is None or known[1] >= number:
        assert outer.key is not None
        scope = Scope(mix(mix(outer.key, mix_text(0, path)), outer.calls), owner=module)
        outer.calls += 1
    else:
        scope = known[0]
    outer.sequences[path] = scope, number
    return scope
