"""What calls can run on here: `backends`."""

from protocontrast.ops.backend import backends as _backends


def backends() -> dict[str, str]:
    """Every backend by name, and whether it is usable on this machine.

    Returns:
        For each name that the argument `backend` takes, but for "auto": "usable", "usable: ..."
        with the instruction set that was chosen, or "not usable: ..." with the reason. It is about
        the machine: a usable backend may lack an operator or run on other devices, which a call
        then says.

    Example:
        >>> backends()["naive"]
        'usable'
    """
    return _backends()
