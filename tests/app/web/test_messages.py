import re
from string import Formatter
from typing import get_args

import pytest

from app.errors.problems import ProblemName
from app.web import messages
from app.web.messages import Messages
from app.web.templating import environment

ENGLISH = messages.languages()["en"]


def places(text: str) -> set[str | None]:
    return {name for _, name, _, _ in Formatter().parse(text) if name is not None}


@pytest.mark.parametrize("language", sorted(messages.languages()))
def test_every_language_says_everything(language: str) -> None:
    texts = messages.languages()[language].texts
    assert texts.keys() == ENGLISH.texts.keys()
    for key, text in texts.items():
        assert text.strip(), key
        assert places(text) == places(ENGLISH.texts[key]), key


def test_nothing_is_said_that_no_template_or_script_asks_for() -> None:
    templates = environment()
    assert templates.loader is not None
    used = [templates.loader.get_source(templates, name)[0] for name in templates.list_templates()]
    folder = messages._FOLDER.parent
    for pattern in ("static/*.js", "*.py"):
        used += [path.read_text(encoding="utf-8") for path in folder.glob(pattern)]
    source = "\n".join(used)
    begun = set(re.findall(r't\(\W?["`]([\w.-]+\.)(?:" ~|\$\{)', source))
    begun |= {"number.", "script.live.", "script.pvalue."}
    for key in ENGLISH.texts:
        asked = f'"{key}"' in source or any(key.startswith(prefix) for prefix in begun)
        assert asked, key


def test_every_problem_has_a_title() -> None:
    for name in get_args(ProblemName):
        assert ENGLISH(f"problem.{name}")


def test_a_value_is_put_in_as_it_is() -> None:
    say = Messages("xx", {"a": "{x} of {y}", "b": "{}"})
    assert say("a", x="{y}", y=2) == "{y} of 2"
    assert say("b") == "{}"
    with pytest.raises(KeyError):
        say("nothing")
    with pytest.raises(KeyError):
        say("a", x=1)


@pytest.mark.parametrize(
    ("share", "english", "german"),
    [
        (0.0, "0%", "0 %"),
        (0.01, "1%", "1 %"),
        (0.02326, "2.3%", "2,3 %"),
        (0.0005, "0.05%", "0,05 %"),
        (0.414, "41%", "41 %"),
        (0.75, "75%", "75 %"),
        (0.9542, "95.4%", "95,4 %"),
        (0.995, "99.5%", "99,5 %"),
        (0.9999, "99.99%", "99,99 %"),
        (0.999999, "99.99%", "99,99 %"),
        (1.0, "100%", "100 %"),
    ],
)
def test_shares_as_people_write_them(share: float, english: str, german: str) -> None:
    assert ENGLISH.percent(share) == english
    assert messages.languages()["de"].percent(share) == german


def test_numbers_as_people_write_them() -> None:
    assert ENGLISH.number(12345.678, 2) == "12,345.68"
    assert messages.languages()["de"].number(12345.678, 2) == "12.345,68"
    assert messages.languages()["de"].number(-0.5, 1) == "-0,5"


@pytest.mark.parametrize(
    ("k", "words"),
    [
        (0, "None of the 42 good parts"),
        (1, "1 of the 42 good parts in calibration scored this high or higher"),
        (21, "21 of the 42 good parts"),
        (22, "An ordinary score: 22 of the 42"),
    ],
)
def test_a_p_value_is_told_as_the_count_it_was_made_of(k: int, words: str) -> None:
    assert ENGLISH.p_value((1 + k) / 43, 42).startswith(words)
