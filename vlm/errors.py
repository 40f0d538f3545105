"""The one exception whose message is meant for the person at the page, the shell or the API."""


class UserError(ValueError):
    """A problem the person can mend. The message is plain, says what to do, and is shown as it is."""
