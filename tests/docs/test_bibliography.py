"""Bibliography: every paper that a docstring or a page cites has an entry."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
ENTRIES = re.split(r"^- ", (ROOT / "docs" / "reference" / "bibliography.md").read_text(), flags=re.MULTILINE)[1:]

# "He et al. (2015)", "Smith & Topin (2018)", "LeCun, Bottou, Bengio and Haffner (1998)": the first author and the year.
NAME = r"[A-Z][A-Za-zéöü]+(?:-[A-Z][a-z]+)?"
CITATION = re.compile(rf"({NAME})(?: et al\.?|(?:, {NAME})*,? (?:and|&) {NAME})?,? \(?((?:19|20)\d\d)\)?(?=[),.;:])")
NO_AUTHORS = {
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
}


def citations(text: str) -> set[tuple[str, str]]:
    """The first authors and years of the papers that a text cites."""
    return {(match[1], match[2]) for match in CITATION.finditer(" ".join(text.split())) if match[1] not in NO_AUTHORS}


def missing(cited: set[tuple[str, str]]) -> list[tuple[str, str]]:
    return sorted(c for c in cited if not any(c[0] in entry and f"({c[1]})" in entry for entry in ENTRIES))


def test_every_cited_paper_is_in_the_bibliography() -> None:
    texts = [*(ROOT / "src").rglob("*.py"), *(ROOT / "docs").glob("[!_]*/**/*.md")]
    cited = set().union(*(citations(path.read_text()) for path in texts))
    assert len(cited) > 20
    assert missing(cited) == []


def test_a_missing_paper_is_noticed() -> None:
    text = "He et al. (2015), Smith & Topin (2018). Nobody, Noone and Someone (1999), A title. (Nielsen, 2015)"
    cited = citations(text)
    assert cited == {("He", "2015"), ("Smith", "2018"), ("Nobody", "1999"), ("Nielsen", "2015")}
    assert missing(cited) == [("Nobody", "1999")]
