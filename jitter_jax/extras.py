"""Packages that only some users need."""


class MissingExtraError(ImportError):
    """A package of an extra is not installed; the message says how to install it."""

    def __init__(self, what: str, package: str, extra: str):
        """Say what the package is needed for.

        Args:
            what: what needs it, a sentence up to "by": "coil maps are estimated".
            package: its name.
            extra: the extra of this package that brings it.
        """
        super().__init__(
            f"{what} by {package}, which is not installed: pip install 'jitter_jax[{extra}]'"
        )
