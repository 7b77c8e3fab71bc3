"""A property that is worked out when first asked for, and kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, Self, TypeVar, overload

T = TypeVar("T")


class Once(Generic[T]):
    """What `functools.cached_property` does, without the lock that it takes before Python 3.12."""

    def __init__(self, work: Callable[[Any], T]) -> None:
        """Decorate the method that works it out."""
        self._work = work
        self._name = work.__name__
        self.__doc__ = work.__doc__

    @overload
    def __get__(self, one: None, owner: type) -> Self: ...

    @overload
    def __get__(self, one: object, owner: type) -> T: ...

    def __get__(self, one: object | None, owner: type) -> Self | T:
        """Return the value. It is asked for once: from then on the instance's own dictionary answers."""
        if one is None:
            return self
        value = one.__dict__[self._name] = self._work(one)
        return value
