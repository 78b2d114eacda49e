"""Every error that pointzoo raises on purpose.

::

    PointzooError
    ├── InputError (ValueError)            what the caller handed over cannot be used
    │   ├── CloudError                     a point cloud: shape, values, missing channels
    │   ├── FormatError                    a file: unknown, truncated, malformed
    │   ├── ConfigError                    a configuration or an argument
    │   ├── HubError                       a repository: not there, not allowed, not what it says
    │   └── UnknownNameError (KeyError)    a name that is not in a registry
    ├── MissingExtraError (ImportError)    an optional package is not installed
    ├── WeightError (RuntimeError)         a weight is not what its card says
    ├── ExportError (RuntimeError)         an exported file does not do what the encoder does
    ├── TrainingError (RuntimeError)       a training run cannot go on
    │   └── CollapseError                  the representation has collapsed
    └── CheckFailedError (AssertionError)  an encoder broke a conformance check

A message says what was expected, what came, and what to do about it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PointzooError(Exception):
    """Base of all errors raised on purpose.

    Args:
        expected: What would have been right, as a noun phrase.
        got: What came instead.
        fix: What the caller can do, as an imperative sentence.
    """

    def __init__(self, *, expected: str, got: str, fix: str) -> None:
        """Compose the message from its three parts."""
        super().__init__(f"expected {expected}, got {got}. {fix}")
        self.expected = expected
        self.got = got
        self.fix = fix

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle by keyword, so that the error survives worker processes."""
        return _rebuild, (type(self), self.expected, self.got, self.fix)

    def __str__(self) -> str:
        """Return the message itself, also where the second base quotes it (KeyError)."""
        return str(self.args[0])


def _rebuild(kind: type[PointzooError], expected: str, got: str, fix: str) -> PointzooError:
    error = kind.__new__(kind)
    PointzooError.__init__(error, expected=expected, got=got, fix=fix)
    return error


class InputError(PointzooError, ValueError):
    """What the caller handed over cannot be used."""


class CloudError(InputError):
    """A point cloud has the wrong shape, unusable values or lacks a channel."""


class FormatError(InputError):
    """A file has an unknown format, is truncated or malformed."""


class ConfigError(InputError):
    """A configuration key or an argument is unknown or out of range."""


class HubError(InputError):
    """A repository on the Hub is not there, not allowed, not what it says, or out of reach."""


class UnknownNameError(InputError, KeyError):
    """A name is not in a registry; the message lists the nearest ones."""

    @classmethod
    def of(cls, kind: str, name: str, known: Iterable[str]) -> UnknownNameError:
        """Build the error for ``name``, with the known names that look most like it.

        Args:
            kind: What the name names, for example ``"encoder"``.
            name: The unknown name.
            known: All names there are.
        """
        names = sorted(known)
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.3) or names[:10]
        hint = f"Did you mean {', '.join(map(repr, near))}?" if near else "None is registered."
        return cls(expected=f"the name of a known {kind}", got=repr(name), fix=hint)


class MissingExtraError(PointzooError, ImportError):
    """An optional package is not installed.

    Args:
        package: The package that could not be imported.
        extra: The extra of pointzoo that brings it.
    """

    def __init__(self, package: str, extra: str) -> None:
        """Name the package and the command that installs it."""
        super().__init__(
            expected=f"the optional package {package!r}",
            got="no such package",
            fix=f"Install it with: pip install 'pointzoo[{extra}]'",
        )


class WeightError(PointzooError, RuntimeError):
    """A weight file or folder is not what its card or its pinned checksum says."""


class ExportError(PointzooError, RuntimeError):
    """An exported file does not do what the encoder does."""


class TrainingError(PointzooError, RuntimeError):
    """A training run cannot start or go on."""


class CollapseError(TrainingError):
    """The representation has collapsed, so that more training would be wasted."""


class CheckFailedError(PointzooError, AssertionError):
    """An encoder broke a conformance check of :mod:`pointzoo.testing`."""


class LicenseWarning(UserWarning):
    """What was loaded may not be used for everything."""
