"""Refusals that are worth remembering: exceptions whose fields can be stored and read again.

A rejection has a stored name and version, as events have. It is found again among the rejections that are defined in
this process: of a class that was defined twice at one place, the newer counts. An exception that is no `Rejection` is
never stored.
"""

import itertools
from operator import attrgetter
from typing import Any, ClassVar, Final, dataclass_transform
from weakref import WeakKeyDictionary, WeakValueDictionary

import msgspec

from ego._codec import Decode, Identity, decoder_of, one_name_twice
from ego._errors import CodecError, ConfigError, UnknownRejectionError
from ego._messages import STORED_ATTRIBUTE, stored_identity
from ego._types import place


@dataclass_transform(frozen_default=True, field_specifiers=(msgspec.field,))
class Rejection(Exception):  # noqa: N818 - the name is part of the API
    """Base of business refusals: an exception with the fields of a frozen `msgspec.Struct`.

    `class InsufficientFunds(ego.Rejection): missing: int` is raised as `raise InsufficientFunds(missing=5)`. A command
    with a `command_id` that is refused with it is refused with an equal one whenever it comes again.
    """

    __slots__ = ("__ego_fields__",)

    __ego_fields__: msgspec.Struct
    __ego_form__: ClassVar[type[msgspec.Struct]] = msgspec.Struct

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.__ego_form__ = _form_of(cls)
        setattr(cls, "__match_args__", cls.__ego_form__.__struct_fields__)  # noqa: B010 - checkers take it for final
        _defined[next(_number)] = cls
        _newest.clear()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.__ego_fields__ = self.__ego_form__(*args, **kwargs)
        self.args = msgspec.structs.astuple(self.__ego_fields__)

    def __str__(self) -> str:
        return repr(self.__ego_fields__)

    __repr__ = __str__

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Rejection) or type(self) is not type(other):
            return NotImplemented
        return self.__ego_fields__ == other.__ego_fields__

    def __hash__(self) -> int:
        try:
            return hash((type(self), self.__ego_fields__))
        except TypeError:
            return hash(type(self))

    def __reduce__(self) -> tuple[Any, ...]:
        return _made, (type(self), *msgspec.structs.astuple(self.__ego_fields__)), self.__dict__ or None


def encode_rejection(rejection: Rejection) -> tuple[str, int, bytes]:
    """Its stored name and version, and its fields.

    Raises `ConfigError` where its class has no place of its own under that name or could not be read again, and
    `CodecError` where a field cannot be encoded.
    """
    cls = type(rejection)
    if cls is Rejection:
        raise ConfigError("ego.Rejection is the base of rejections and not a rejection; raise a class derived from it")
    name, version = stored_identity(cls)
    _owner((name, version))
    _decoder(cls)
    try:
        return name, version, _encode(rejection.__ego_fields__)
    except Exception as error:
        raise CodecError(f"the rejection {place(cls)} cannot be encoded: {error}") from error


def decode_rejection(name: str, version: int, payload: bytes) -> Rejection:
    """The rejection again.

    Raises `UnknownRejectionError` where no class has that name and version, and `CodecError` where its fields are
    others than those that are stored.
    """
    cls = _owner((name, version))
    if cls is None:
        raise UnknownRejectionError(
            f"a rejection is stored as {name!r} version {version}, and no ego.Rejection of that name and version is "
            "defined; import its module, or give its class that name with @ego.stored",
            name=name,
            version=version,
        )
    try:
        fields = _decoder(cls)(payload)
    except msgspec.MsgspecError as error:
        raise CodecError(f"a stored rejection is no {place(cls)}: {error}") from error
    return _made(cls, *msgspec.structs.astuple(fields))


_encode: Final = msgspec.msgpack.Encoder().encode
_number: Final = itertools.count()
_defined: Final[WeakValueDictionary[int, type[Rejection]]] = WeakValueDictionary()
"""Every class of rejections that is alive, in the order in which they were defined."""
_newest: Final[WeakValueDictionary[Identity, type[Rejection]]] = WeakValueDictionary()
"""What `_owner` found; forgotten when a class is defined."""
_decoders: Final[WeakKeyDictionary[type[Rejection], Decode]] = WeakKeyDictionary()


def _made(cls: type[Rejection], *values: Any) -> Rejection:
    """One with these fields. A class's own `__init__` is not called: its arguments may be others."""
    made = cls.__new__(cls)
    Rejection.__init__(made, *values)
    return made


def _form_of(cls: type[Rejection]) -> type[msgspec.Struct]:
    """The Struct of the fields. The class gets a property for each that it declares, in place of the default."""
    import inspect

    declared = inspect.get_annotations(cls)
    form = msgspec.defstruct(
        cls.__name__,
        declared.items(),
        bases=tuple(base.__ego_form__ for base in cls.__bases__ if issubclass(base, Rejection)),
        namespace={name: cls.__dict__[name] for name in declared if name in cls.__dict__},
        module=cls.__module__,
        frozen=True,
    )
    for name in set(declared).intersection(form.__struct_fields__):
        if hasattr(Rejection, name):
            raise ConfigError(f"{place(cls)}: every exception has {name!r}; give the field another name")
        setattr(cls, name, property(attrgetter(f"__ego_fields__.{name}")))
    return form


def _owner(identity: Identity) -> type[Rejection] | None:
    """The newest class that is stored so. Raises `ConfigError` where classes of two places are."""
    owner = _newest.get(identity)
    if owner is None:
        for reference in _defined.valuerefs():
            cls = reference()
            if cls is None or cls.__dict__.get(STORED_ATTRIBUTE, (cls.__qualname__, 1)) != identity:
                continue
            if owner is not None and place(owner) != place(cls):
                raise one_name_twice(identity, owner, cls)
            owner = cls
        if owner is not None:
            _newest[identity] = owner
    return owner


def _decoder(cls: type[Rejection]) -> Decode:
    decode = _decoders.get(cls)
    if decode is None:
        decode = _decoders[cls] = decoder_of(f"the rejection {place(cls)}", cls.__ego_form__)
    return decode
