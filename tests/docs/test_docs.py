"""README and docs: snippets run, console commands parse, links and names exist, figures have alternative text."""

from __future__ import annotations

import ast
import contextlib
import importlib
import inspect
import io
import pkgutil
import re
import shlex
from pathlib import Path
from typing import Any

import click
import pytest

import handgrad
from handgrad import cli

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("[!_]*/**/*.md")),
    ROOT / "docs" / "index.md",
]
TEXTS = {path: path.read_text() for path in DOCUMENTS}
REFERENCE = "\n".join(TEXTS[path] for path in sorted((ROOT / "docs" / "reference" / "api").glob("*.md")))

# "<!-- not executed -->" above a fence marks a snippet that does not run.
FENCE = re.compile(
    r"^(?P<mark><!-- not executed -->\n+)?^(?P<fence>`{3,})(?P<language>\S*)\n(?P<code>.*?)^(?P=fence)$", re.S | re.M
)
CELL = re.compile(r"^```{code-cell}[^\n]*\n(?P<options>(?::\w+: [^\n]*\n)*)(?P<code>.*?)^```$", re.S | re.M)
ALT = re.compile(r':mystnb: {image: {alt: "[^"\n]+"}}')


def by_document(documents: list[Path]) -> Any:
    return pytest.mark.parametrize("path", documents, ids=lambda path: str(path.relative_to(ROOT)))


def snippets(text: str, language: str) -> list[str]:
    """The code of all fences in a language, except those that are marked as not executed."""
    return [m["code"] for m in FENCE.finditer(text) if m["language"] == language and not m["mark"]]


# ---- Python snippets -------------------------------------------------------------------------------------------------

PROMISE = re.compile(r"^print\(.*\)  # (.*)$", re.MULTILINE)


def matches(line: str, promise: str) -> bool:
    """Compare a printed line with a comment. After "about", numbers may differ by 2 %, or by 0.02 if they are small."""
    if not promise.startswith("about "):
        return line == promise
    printed, promised = line.split(), promise.split()[1:]
    return len(printed) == len(promised) and all(
        abs(float(a) - float(b)) <= 0.02 * max(1, abs(float(b))) for a, b in zip(printed, promised, strict=True)
    )


@by_document([path for path, text in TEXTS.items() if snippets(text, "python")])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_python_snippets_run_and_print_what_their_comments_say(
    path: Path, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The snippets of a document run in order, in one namespace."""
    if any('"mnist"' in snippet for snippet in snippets(TEXTS[path], "python")):
        request.getfixturevalue("mnist")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "snippet"}
    for snippet in snippets(TEXTS[path], "python"):
        stdout = io.StringIO()
        with contextlib.redirect_stdout(stdout):
            exec(compile(snippet, str(path), "exec"), names)
        promises = PROMISE.findall(snippet)
        if promises:
            printed = stdout.getvalue().splitlines()
            assert len(printed) == len(promises), snippet
            for line, promise in zip(printed, promises, strict=True):
                assert matches(line, promise), (line, promise)


def test_a_wrong_comment_is_noticed() -> None:
    assert matches("[0 1 1 0]", "[0 1 1 0]")
    assert matches("0.9355 0.94", "about 0.936 0.936")
    assert not matches("0.9", "about 0.936")
    assert not matches("0.936", "about 0.936 0.936")
    assert not matches("False", "True")


# ---- Console commands ------------------------------------------------------------------------------------------------


def console_lines(text: str) -> list[list[str]]:
    lines = [line for snippet in snippets(text, "console") for line in snippet.splitlines()]
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def check_command(words: list[str]) -> None:
    """Raise click.UsageError, or fail, if a console command does not exist. Commands are parsed, not executed."""
    while "=" in words[0]:  # environment variables
        words = words[1:]
    program, *arguments = words
    if program == "handgrad":
        command: click.Command = cli.handgrad
        context = click.Context(command, info_name="handgrad", **command.context_settings)
        while isinstance(command, click.Group) and arguments and not arguments[0].startswith("-"):
            name, command, arguments = command.resolve_command(context, arguments)
            context = click.Context(command, info_name=name, parent=context)
        with contextlib.suppress(click.exceptions.Exit):  # --help
            command.parse_args(context, list(arguments))
    elif program == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert [word for word in arguments if "=" not in word and word not in targets] == []
    elif (
        Path(program).name.startswith("python")
        and arguments[0] == "-m"
        and (ROOT / arguments[1].split(".")[0]).is_dir()
    ):
        module = ROOT / arguments[1].replace(".", "/")
        assert module.with_suffix(".py").exists() or (module / "__main__.py").exists(), arguments[1]


@by_document([path for path, text in TEXTS.items() if snippets(text, "console")])
def test_console_commands_exist_and_their_options_parse(path: Path) -> None:
    for words in console_lines(TEXTS[path]):
        check_command(words)


def test_a_wrong_command_is_noticed() -> None:
    check_command(["handgrad", "train", "--epochs", "3"])
    check_command(["handgrad", "--help"])
    with pytest.raises(click.UsageError):
        check_command(["handgrad", "train", "--epoches", "3"])
    with pytest.raises(click.UsageError):
        check_command(["handgrad", "trian"])
    with pytest.raises(AssertionError):
        check_command(["make", "nothing"])
    with pytest.raises(AssertionError):
        check_command(["python", "-m", "benchmarks.nothing"])


# ---- Links -----------------------------------------------------------------------------------------------------------


def anchors(text: str) -> set[str]:
    """The anchors that GitHub and MyST create for the headings of a document."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.*)$", FENCE.sub("", text), re.MULTILINE):
        words = re.sub(r"\]\([^)]*\)", "]", heading)  # of a link only the text
        slug = re.sub(r"[^\w -]", "", words.lower()).replace(" ", "-")
        found.add(next(s for s in (slug, *(f"{slug}-{i}" for i in range(1, 99))) if s not in found))
    return found


def broken_links(path: Path, text: str) -> list[str]:
    """The relative links of a document whose file or anchor does not exist."""
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", text)):
        file, _, anchor = link.partition("#")
        if re.match(r"https?://", link):
            continue
        target = path.parent / file
        linked = text if not file else target.read_text() if anchor and target.exists() else ""
        if (file and not target.exists()) or (anchor and anchor not in anchors(linked)):
            broken.append(link)
    return broken


def test_relative_links_and_anchors_resolve() -> None:
    found = {str(path.relative_to(ROOT)): broken_links(path, text) for path, text in TEXTS.items()}
    assert {path: links for path, links in found.items() if links} == {}


def test_a_broken_link_is_noticed() -> None:
    text = "# Here, `once`\n\n## Twice\n\n## Twice\n\n```python\n# Code\n```\n"
    assert anchors(text) == {"here-once", "twice", "twice-1"}
    assert (
        broken_links(ROOT / "page.md", text + "[a](#here-once) [b](#twice-1) [c](README.md) [d](https://a.org)") == []
    )
    bad = ["#code", "#twice-2", "nowhere.md", "README.md#nowhere"]
    assert broken_links(ROOT / "page.md", text + " ".join(f"[x]({link})" for link in bad)) == bad


# ---- Reference -------------------------------------------------------------------------------------------------------

NAMES = re.findall(r"^\.\. auto(?:class|function|exception|data):: (\S+)$", REFERENCE, re.MULTILINE)
MODULES = re.findall(r"^\.\. automodule:: (\S+)$", REFERENCE, re.MULTILINE)


def test_every_name_of_the_reference_exists_and_has_a_docstring() -> None:
    assert [name for name in [*NAMES, *MODULES] if not pkgutil.resolve_name(name).__doc__] == []


def test_every_public_name_is_in_the_reference() -> None:
    missing = {f"handgrad.{name}" for name in handgrad.__all__} - {*NAMES, *MODULES}
    assert missing == set()


@pytest.mark.parametrize(
    "name", ["blas", "data", "distributed", "export", "initializers", "interop", "recipes", "schedules", "sklearn"]
)
def test_every_public_name_of_a_module_with_its_own_page_is_in_the_reference(name: str) -> None:
    module = importlib.import_module(f"handgrad.{name}")
    public = getattr(module, "__all__", None) or [
        key for key, value in vars(module).items() if not key.startswith("_") and inspect.getmodule(value) is module
    ]
    expected = {f"handgrad.{name}.{key}" for key in public if callable(getattr(module, key))}
    assert expected - set(NAMES) == set()


# ---- Figures ---------------------------------------------------------------------------------------------------------


def draws(tree: ast.Module, drawers: set[str]) -> bool:
    """Whether a cell draws a figure. Functions that draw one when they are called are added to `drawers`."""
    drawn = False
    for statement in tree.body:
        if {ast.unparse(node.func) for node in ast.walk(statement) if isinstance(node, ast.Call)} & drawers:
            if isinstance(statement, ast.FunctionDef):
                drawers.add(statement.name)
            else:
                drawn = True
    return drawn


def figures_without_text(text: str) -> list[str]:
    """The first line of every cell that draws a figure without alternative text, and images without it."""
    drawers = {"plt.subplots", "plt.figure"}
    missing = [
        cell["code"].partition("\n")[0]
        for cell in CELL.finditer(text)
        if draws(ast.parse(cell["code"]), drawers) and not ALT.search(cell["options"])
    ]
    return missing + re.findall(r"!\[\]\([^)]*\)", FENCE.sub("", text))


def test_figures_have_alternative_text() -> None:
    found = {str(path.relative_to(ROOT)): figures_without_text(text) for path, text in TEXTS.items()}
    assert {path: figures for path, figures in found.items() if figures} == {}


def test_a_figure_without_alternative_text_is_noticed() -> None:
    alt = ':mystnb: {image: {alt: "A rising line."}}\n'
    drawing, function = "plt.subplots()\n", "def draw():\n    plt.figure()\n"
    cell = "```{{code-cell}}\n{}{}```\n".format
    assert figures_without_text(cell(alt, drawing) + cell("", function) + cell(alt, "draw()\n")) == []
    assert figures_without_text(cell("", drawing)) == ["plt.subplots()"]
    assert figures_without_text(cell("", function) + cell("", "draw()\n")) == ["draw()"]
    assert figures_without_text("![](a.png)") == ["![](a.png)"]
