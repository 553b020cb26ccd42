"""Tables: aligned text and escaped HTML."""

from handgrad.tables import Table


def test_text_is_aligned_and_numbers_are_on_the_right():
    table = Table(("name", "count"), [("a", "1,234"), ("longer", "5")], "a note")
    assert repr(table) == "name    count\n─────────────\na       1,234\nlonger      5\n─────────────\na note"


def test_html_escapes_every_text():
    table = Table(("<b>",), [("<script>alert('x')</script>",)], "a & b")
    html = table._repr_html_()
    assert "<script>" not in html
    assert "<b>" not in html
    assert "a &amp; b" in html


def test_control_characters_and_line_breaks_are_escaped():
    assert repr(Table(("a",), [("\x1b[2J\nb",)])).count("\n") == 3
    assert "\x1b" not in repr(Table(("a",), [("\x1b[2J",)], "\x1b"))


def test_table_without_rows_has_a_header():
    assert repr(Table(("a", "b"), [])).startswith("a  b\n")
    assert "<th" in Table(("a", "b"), [])._repr_html_()
