"""Bibliography: every paper that a docstring or a page cites has an entry."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
BIBLIOGRAPHY = ROOT / "docs" / "reference" / "bibliography.md"
ENTRIES = re.split(r"^- ", BIBLIOGRAPHY.read_text(), flags=re.MULTILINE)[1:]

# "He et al. (2015)", "Xavier Glorot and Yoshua Bengio (2010)", "Y. LeCun, L. Bottou, P. Haffner (1998)":
# the surname of the first author and the year. `citations` removes the initials.
NAME = r"(?:[A-Z][a-z]+ )?{}[A-Z][A-Za-zéöü]+(?:-[A-Z][a-z]+)?{}"
CITATION = re.compile(
    NAME.format("(", ")")
    + rf"(?: et al\.?|(?:(?:, and |, & |, | and | & ){NAME.format('', '')})*)?"
    + r",? \(?((?:19|20)\d\d)\)?(?=[),.;:])"
)
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
    words = re.sub(r"\b[A-Z]\. ", "", " ".join(text.split()))  # without initials
    return {(match[1], match[2]) for match in CITATION.finditer(words) if match[1] not in NO_AUTHORS}


def missing(cited: set[tuple[str, str]]) -> list[tuple[str, str]]:
    """The citations without an entry: "- D. Ciresan, U. Meier (2010), ...", which starts with the first author."""
    found = [(match[1], entry) for entry in ENTRIES if (match := re.match(r"(?:[A-Z]\. )*([\w-]+)", entry))]
    return sorted(c for c in cited if not any(c[0] == author and f"({c[1]})" in entry for author, entry in found))


def test_every_cited_paper_is_in_the_bibliography() -> None:
    texts = {*(ROOT / "src").rglob("*.py"), *(ROOT / "docs").glob("[!_]*/**/*.md")} - {BIBLIOGRAPHY}
    cited = set().union(*(citations(path.read_text()) for path in texts))
    assert len(cited) > 20
    assert missing(cited) == []


def test_a_missing_paper_is_noticed() -> None:
    text = "He et al. (2015), Smith & Topin (2018). Nobody, Noone and Someone (1999), A title. (Nielsen, 2015)"
    cited = citations(text)
    assert cited == {("He", "2015"), ("Smith", "2018"), ("Nobody", "1999"), ("Nielsen", "2015")}
    assert missing(cited) == [("Nobody", "1999")]
    assert missing({("Bengio", "2010")}) == [("Bengio", "2010")]  # the second author of Glorot and Bengio (2010)
