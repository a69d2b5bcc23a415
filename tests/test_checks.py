"""`checks`: who says a sentence, and its one form; test_sentences.py has what is refused."""

from protocontrast import checks
from tests.sentences import assert_raises


@checks.called("inner")
def refuse(value: object) -> None:
    raise ValueError(checks.sentence("x", "to be 1", value))


@checks.public
def outer(value: object) -> None:
    """Calls another."""
    refuse(value)


def test_the_outermost_function_says_it() -> None:
    assert_raises(ValueError, "inner: expected x to be 1, got 2.", lambda: refuse(2))
    assert_raises(ValueError, "outer: expected x to be 1, got 2.", lambda: outer(2))
    named = checks.called("Module")(outer)
    assert_raises(ValueError, "Module: expected x to be 1, got 2.", lambda: named(2))
    assert (named.__name__, named.__doc__) == ("outer", "Calls another.")


def test_what_others_say_stays_as_it_is() -> None:
    @checks.public
    def asked(value: str) -> int:
        return int(value)

    assert asked("3") == 3
    text = "invalid literal for int() with base 10: 'x'"
    assert_raises(ValueError, text, lambda: asked("x"))


def test_a_sentence_ends_once() -> None:
    assert checks.sentence("x", "to be 1", 2) == "expected x to be 1, got 2."
    with_hint = checks.sentence("x", "to be 1", 2, "try 1.")
    assert with_hint == "expected x to be 1, got 2. Hint: try 1."
