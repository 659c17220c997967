"""The two ways in which a host says no, and how the words of its system stand in a sentence.

`bhyved.host` raises them, `bhyved.daemon` turns them into facts of the lifecycle; neither knows the other.
"""


class HostError(Exception):
    """The host said no: one sentence for the operator. `fatal`: trying again cannot help, a person must change something."""

    def __init__(self, sentence: str, *, fatal: bool = False) -> None:
        super().__init__(sentence)
        self.fatal = fatal


class Stuck(HostError):  # noqa: N818 - a state of the kernel, not a programming error
    """The kernel does not let a process or node go: never start again over it."""


def in_words(error: OSError) -> str:
    """For behind a colon: `no such file or directory`."""
    return (error.strerror or str(error)).lower()
