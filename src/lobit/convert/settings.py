"""A policy of one layer, checked before anything changes: its bits, and a quantizer for each role."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lobit.bits import FLOAT_BITS, Bits
from lobit.errors import ConfigError
from lobit.quantizers import Quantizer, get
from lobit.quantizers.base import Role
from lobit.quantizers.registry import Identifier

FIELDS = ("bits", "weights", "activations", "gradients")


@dataclass(frozen=True, slots=True)
class Setting:
    """Bits and quantizers of one layer; build a quantizer of each role anew for each layer."""

    bits: Bits
    identifiers: Mapping[Role, Identifier]

    def build(self, role: Role) -> Quantizer | None:
        """A new quantizer, None where the role stays in float."""
        width = getattr(self.bits, role)
        return None if width == FLOAT_BITS else get(self.identifiers[role], role, width)

    def of(self, roles: tuple[Role, ...]) -> Bits:
        """The bits of those roles, the others float."""
        return Bits(**{role: getattr(self.bits, role) for role in roles})


def setting(policy: Any, what: str) -> Setting | None:
    """The setting that a policy of one layer means: ``"W2A4"``, `Bits`, or ``{"bits": "W2A4", "weights": "dorefa"}``; None for float.

    Raises
    ------
    ConfigError
        Beginning with ``what``.
    """
    if policy is None:
        return None
    settings: dict[str, Any] = dict(policy) if isinstance(policy, Mapping) else {"bits": policy}
    if unknown := set(settings) - set(FIELDS):
        raise ConfigError(f"{what}: unknown setting {sorted(map(str, unknown))}; a policy has {', '.join(FIELDS[:-1])} and {FIELDS[-1]}")
    try:
        bits = Bits.parse(settings.get("bits", ""))
    except ConfigError as error:
        raise ConfigError(f"{what}: {error}") from None
    roles: tuple[tuple[Role, int], ...] = (("weights", bits.weights), ("activations", bits.activations), ("gradients", bits.gradients))
    identifiers = {role: _identifier(role, width, settings.get(role), what, bits) for role, width in roles}
    return None if bits.is_float else Setting(bits, identifiers)


def _identifier(role: Role, width: int, given: Identifier, what: str, bits: Bits) -> Identifier:
    """What the quantizer of a role is built from, tried once."""
    if width == FLOAT_BITS:
        if given is not None:
            raise ConfigError(
                f"{what}: a quantizer of {role} is given, but {bits} leaves {role} in float; write {role[0].upper()} and a width"
            )
        return None
    identifier = given or default(role, width)
    if isinstance(identifier, Quantizer):
        raise ConfigError(
            f"{what}: {role} is one quantizer, which only one layer may have; give its name, a dict or a callable that makes one"
        )
    try:
        built = get(identifier, role, width)
    except ConfigError as error:
        raise ConfigError(f"{what}: {error}") from None
    if getattr(built, "bits", width) != width:
        raise ConfigError(f"{what}: {bits} asks for {width}-bit {role}, the quantizer given has {built.bits} bits; make them agree")  # type: ignore[union-attr]
    return identifier


def default(role: Role, width: int) -> str:
    """The quantizer where a policy names none."""
    if role == "gradients":
        return "dorefa"
    return "magnitude_sign" if role == "weights" and width == 1 else "lsq"
