"""What is told of a step of the first start that failed."""

from mooring.workspaces.steps import failure


def test_gits_last_words_are_found_among_other_output() -> None:
    """Progress that overwrites its line and an editor's own lines are no part of them; the last three are enough."""
    output = (
        b"[12:00:00] editor: fatal: not git's\nCloning into 'x'...\nReceiving objects:  10%\rerror: one\n"
        b"error: two\n[12:00:01] editor line\nfatal: early EOF\nfatal: invalid index-pack output\n"
    )
    assert failure("git clone", 128, output).splitlines()[1:] == [
        "error: two",
        "fatal: early EOF",
        "fatal: invalid index-pack output",
    ]


def test_a_step_without_words_says_what_to_do() -> None:
    """One that was killed says nothing: its status and the remedy are a line of their own."""
    told = failure("git clone", 137, b"Cloning into 'x'...\n\xff")
    assert told.startswith("git clone failed with exit status 137; to try again: mooring workspace restart;")
    assert "\n" not in told
