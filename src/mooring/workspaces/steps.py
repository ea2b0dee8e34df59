"""What is told of a step of the first start that failed: what to do, and its own last words below.

Also imported by the keeper: no typing, no dataclasses, no asyncio here.
"""

_LINES = 3
# How git begins what it ends with (its `die` and `error`), among progress and an editor's lines in the same output.
_COMPLAINTS = ("error: ", "fatal: ")


def failure(name: str, status: int, output: bytes) -> str:
    """For a person; `output` is the end of what was written since the step began, others' lines among it."""
    lines = output.decode(errors="replace").replace("\r", "\n").split("\n")
    words = [line for line in lines if line.startswith(_COMPLAINTS)][-_LINES:]
    what_to_do = "to try again: mooring workspace restart; all of its output: mooring workspace logs"
    return "\n".join((f"{name} failed with exit status {status}; {what_to_do}", *words))
