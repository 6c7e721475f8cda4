"""Methods that an object may keep of itself without a cycle: what it has mapped and locked ends with its last user."""

from collections.abc import Callable
from typing import TypeVar, cast
from weakref import WeakMethod

K = TypeVar("K")
V = TypeVar("V")


def weakly(method: Callable[[K], V]) -> Callable[[K], V]:
    """The bound method as a function that does not hold its object; whoever calls it does."""
    weak = WeakMethod(method)
    return lambda argument: cast("Callable[[K], V]", weak())(argument)
