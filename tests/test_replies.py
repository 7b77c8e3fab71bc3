from __future__ import annotations

import importlib.util
import re
import tomllib
from pathlib import Path

import pytest

from mailbound import classify
from mailbound.model import Category, Fault
from mailbound.status import StatusCode

RULES = classify.rules()
GROUPS = tomllib.loads((Path(__file__).parent / "replies.toml").read_text("utf-8"))["group"]
REPLIES = [
    pytest.param(group, text, id=f"{who}: {text[:60]}") for group in GROUPS for who, text in group["replies"]
]


@pytest.mark.parametrize(("group", "text"), REPLIES)
def test_a_reply_means_what_the_table_says(group, text):
    code = re.search(r"\b[245][0-5]\d\b", text)
    found = classify.judge(StatusCode.find(text), int(code[0]) if code else 0, text, RULES)
    assert (found.category, found.permanent) == (Category(group["category"]), group["permanent"]), found.rule
    assert found.fault is Fault(group["fault"])


def test_the_table_is_large_and_says_nothing_twice():
    texts = [text for group in GROUPS for _, text in group["replies"]]
    assert len(texts) == len(set(texts)) >= 250
    assert {group["category"] for group in GROUPS} == set(Category)


def test_the_page_of_categories_is_what_the_tables_say():
    path = Path(__file__).parents[1] / "docs" / "categories.py"
    spec = importlib.util.spec_from_file_location("categories", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.PAGE.read_text("utf-8") == module.page(), "run `python docs/categories.py`"
