"""What is wrong with the teacher that a person asked for. Apart from `pipeline.weights`, whose import takes seconds."""


class TeacherError(Exception):
    """There is no such teacher, or it cannot be used so; the message says what to do."""


class WeightsMissing(TeacherError):
    """There is such a teacher, but what it needs is not on this machine; the message says which file to put where."""
