"""The errors that lobit raises. Every message names the value received, what is allowed and the next step."""


class LobitError(Exception):
    """Base of every error that lobit raises on purpose."""


class ConfigError(LobitError):
    """A setting, a bit width, a recipe or a data folder is wrong."""


class ExportError(LobitError):
    """A model cannot be exported as it is; nothing was written."""


class FormatError(LobitError):
    """A file is damaged, foreign, newer than this version, or breaks a limit."""


class ShapeError(LobitError):
    """An array has the wrong shape or dtype, or holds values that are not finite."""


class MissingExtraError(LobitError, ImportError):
    """A package of an extra that is not installed is needed; the message holds the line that installs it."""


class Interrupted(KeyboardInterrupt):  # no error: somebody wished it
    """Work was stopped by Ctrl-C or a signal, and the same call goes on with it: with ``resume=True``, or ``--resume`` in the shell.

    What can be resumed raises it in place of a bare `KeyboardInterrupt`, once there is something to resume; the message says what is there.
    """
