"""Templates: substitution, identifiers and string literals that are safe for every name, and layout."""

import ast
import re

import pytest

from handgrad.export.templates import (
    align_comments,
    assignment,
    c_string,
    identifier,
    render,
    safe_filename,
)


def test_render_replaces_names_and_indents_blocks():
    template = "\nbegin «word»\n    «block»\n  «empty»\nend «word»«word»\n"
    values = {"word": "w", "block": "a\n\n  b", "empty": ""}
    assert render(template, values) == "begin w\n    a\n\n      b\nend ww\n"


def test_render_rejects_a_name_without_a_value():
    with pytest.raises(KeyError):
        render("«other»", {})


@pytest.mark.parametrize("name", ["int", "9 lives", "-", "", "ä", "a b.c", "__x", "Model", "*/ \n", 'a"""\\u{x}'])
def test_file_names_become_identifiers_and_safe_comments(name):
    assert re.fullmatch(r"[a-z][a-z0-9_]*", identifier(name))
    assert not re.search(r"[^\w .,+=@()_-]", safe_filename(name))


def test_identifier_keeps_a_valid_name():
    assert identifier("model") == "model"


def test_c_string_escapes_quotes_trigraphs_and_bytes_that_are_not_ascii():
    assert c_string('a"\\?ä1') == '"a\\042\\134\\077\\303\\2441"'


def test_assignment_is_valid_python_on_one_line_or_several():
    for items in (["1"], ["1", "2"], [str(10**9 + i) for i in range(50)]):
        text = assignment("x", items, "(", ")")
        assert ast.literal_eval(text.removeprefix("x = ")) == tuple(map(int, items))
        assert max(map(len, text.splitlines())) <= 100


def test_comments_are_aligned_in_each_block_of_lines():
    assert align_comments("a  # 1\nlong  # 2\nx\n\nb  # 3\n") == "a     # 1\nlong  # 2\nx\n\nb  # 3\n"
