"""The one exception that stands for a mistake a user can mend."""


class FastdrawError(Exception):
    """What went wrong, what was expected and what to do, in one line; the command line prints it as it is."""
