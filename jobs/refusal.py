"""What a person asked for and cannot have."""


class Refusal(Exception):
    """The job cannot run as asked; the message is a sentence that says what to do.

    `exit_code`: 2 for wrong arguments, 1 when the arguments are right but the job cannot run.
    """

    def __init__(self, message: str, *, exit_code: int = 2):
        super().__init__(message)
        self.exit_code = exit_code
