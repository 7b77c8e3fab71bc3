"""`mailbound template`: a folder to begin with, and whether it fits the people it is for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import command
from box import Box

GOOD = {"subject.txt": "Hello {{ name }}", "text.txt": "{{ unsubscribe_url }}"}


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """Return a box with three people, and templates of all sorts."""
    with Box(tmp_path_factory.mktemp("template")) as made:
        made.populate({f"p{number}": f"p{number}@example.com" for number in range(3)})
        command.run("segment", "create", "nobody", "--where", "external_id = ''", config=config(made))
        for name, files in {
            "good": GOOD,
            "broken": {**GOOD, "subject.txt": "Hello {{ name"},
            "lacking": {**GOOD, "text.txt": "You are {{ age }}"},
            "empty": {},
        }.items():
            folder = made.folder / "templates" / name
            folder.mkdir()
            for file, text in files.items():
                (folder / file).write_text(text)
        yield made


def config(box: Box) -> Path:
    return box.folder / "config.toml"


def test_a_new_template_can_be_filled_at_once(box):
    made = command.run("template", "create", "hello", config=config(box))
    assert made.out == f"wrote {box.folder}/templates/hello: html.html, inline/logo.png, subject.txt\n"
    assert command.run("template", "check", "hello", config=config(box)).status == 0
    assert "exists already" in command.refused("template", "create", "hello", config=config(box))


@pytest.mark.parametrize("name", ["", ".", "..", "../hello", "a/b", "-x", "a b", "x" * 65])
def test_a_template_is_made_nowhere_but_in_its_folder(box, name):
    before = sorted(box.folder.rglob("*"))
    assert "no good name" in command.refused("template", "create", "--", name, config=config(box))
    assert sorted(box.folder.rglob("*")) == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere"], "template nowhere: there is no folder"),
        (["empty"], "template empty: subject.txt is missing"),
        (["broken"], "template broken: subject.txt, line 1: "),
        (["good", "--segment", "nix"], "there is no segment 'nix'"),
        (["good", "--segment", "all", "--store", "nix"], "there is no store 'nix'; there are: main"),
        (["good", "--segment", "nobody"], "nobody is in segment nobody"),
        (["lacking", "--segment", "all"], "lacking cannot be filled for 3 of 3 recipients in all"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_used_is_named(box, words, said):
    assert command.refused("template", "check", *words, config=config(box)).startswith(said)


def test_what_is_missing_is_listed_with_those_who_lack_it(box):
    done = command.run("template", "check", "lacking", "--segment", "all", config=config(box))
    assert done.out.strip() == "3  'age' is missing in text.txt, line 1 (p0, p1, p2)"


@pytest.mark.parametrize(
    ("limit", "said"), [("0", "all 3 recipients in all"), ("2", "the first 2 recipients in all")]
)
def test_it_says_for_how_many_it_was_tried(box, limit, said):
    done = command.run("template", "check", "good", "--segment", "all", "--limit", limit, config=config(box))
    assert (done.status, done.out) == (0, f"good can be filled for {said}\n")
