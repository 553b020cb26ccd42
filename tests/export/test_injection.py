"""A model from a stranger cannot inject code: every string in an exported file is escaped for its language."""

import ast
import json
import shutil
import subprocess
import sys

import pytest

from handgrad import Deskew, Ensemble, Network, Preprocessed, save
from handgrad.export import TARGETS, export
from handgrad.export.graph import inference_graph
from handgrad.export.templates import c_string, js_string, python_string
from handgrad.recipes import RECIPES

# Ends of strings, comments, docstrings, templates and script elements in all languages, and text that is not UTF-8.
HOSTILE = (
    *("'", '"', "\\", '\\"', "\n", "\r", '"""', "'''", "*/", "/*", "//", "??/", "\\\n", "#include <x>", "%n%s"),
    *("${process.exit(7)}", "`", "{x}", "</script><script>alert(1)</script>", "<!--", "-->", "]]>", "«n_in»", "«"),
    *('"); raise SystemExit(7); ("', "*/ int main(void) { return 7; } /*", "`; process.exit(7); `"),
    *("\0", "\x1b[31m", "\x7f", "\x85", "\u2028", "\u2029", "\u202e", "\udc80", "\ud800", "\U0001f600", "ä", ""),
)
PYTHON = ["python", "torch", "keras"]


def hostile_model():
    network = Network([4, len(HOSTILE)], rng=0)
    network.image_shape = (2, 2)
    network._classes = HOSTILE  # the setter rejects lone surrogates
    return Preprocessed(Ensemble([network, network]), Deskew(2, 2))


@pytest.fixture
def exported(tmp_path):
    """A function that exports the hostile model, and returns the path of the file."""

    def write(to):
        path = tmp_path / f"net{TARGETS[to].suffix}"
        model = hostile_model()
        if to in ("torch", "keras"):  # their weights are in a file, which does not need the class names
            plain = hostile_model()
            plain.classes = [str(k) for k in range(len(HOSTILE))]
            save(plain, tmp_path / "weights.safetensors")
            export(model, path, to=to, model_file=tmp_path / "weights.safetensors")
        else:
            export(model, path, to=to)
        return path

    return write


@pytest.mark.parametrize("to", PYTHON)
def test_class_names_are_strings_in_python(to, exported):
    tree = ast.parse(exported(to).read_text(encoding="ascii"))
    (classes,) = [
        statement.value
        for statement in tree.body
        if isinstance(statement, ast.Assign) and statement.targets[0].id == "CLASSES"
    ]
    assert ast.literal_eval(classes) == HOSTILE
    plain = Preprocessed(Ensemble([Network([4, len(HOSTILE)], rng=0)] * 2), Deskew(2, 2))
    assert len(tree.body) > 5
    statements = [type(statement).__name__ for statement in tree.body]
    path = exported(to).with_name("plain.py")
    plain.image_shape = (2, 2)
    export(plain, path, to=to)
    assert statements == [type(statement).__name__ for statement in ast.parse(path.read_text()).body]


def test_the_python_file_with_hostile_names_does_nothing_but_predict(exported):
    path = exported("python")
    code = f"import runpy; print(ascii(runpy.run_path({str(path)!r})['CLASSES']))"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert ast.literal_eval(done.stdout) == HOSTILE


def test_class_names_are_strings_in_c(exported):
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    path = exported("c")
    size = len(HOSTILE)
    caller = path.with_name("caller.c")
    caller.write_text(
        f"#include <stdio.h>\nextern const char *const net_classes[{size}];\n"
        f'int main(void) {{ for (int k = 0; k < {size}; k++) {{ fputs(net_classes[k], stdout); fputs("|;", stdout); }}'
        " return 0; }\n"
    )
    command = ["gcc", "-std=c99", "-pedantic", "-Wall", "-Wextra", "-Wcomment", "-Wtrigraphs", "-Werror"]
    program = path.with_suffix(".bin")
    subprocess.run([*command, caller, path, "-o", program, "-lm"], check=True)
    output = subprocess.run([program], capture_output=True, check=True).stdout
    expected = [
        name.split("\0")[0].encode("utf-8", "backslashreplace") for name in HOSTILE
    ]  # C strings end at a 0 byte
    assert output.split(b"|;")[:-1] == expected


def test_class_names_are_strings_in_javascript_and_end_no_script_element(exported):
    text = exported("js").read_text(encoding="ascii")
    for forbidden in ("</", "<!--", "<script", "]]>"):
        assert forbidden not in text.lower()
    if shutil.which("node") is None:
        pytest.skip("node is not installed")
    program = 'import * as net from "./net.mjs"; console.log(JSON.stringify(net.CLASSES));'
    command = ["node", "--input-type=module", "-e", program]
    done = subprocess.run(command, cwd=exported("js").parent, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert tuple(json.loads(done.stdout)) == HOSTILE


def test_class_names_are_json_in_the_metadata_of_onnx(exported):
    onnx = pytest.importorskip("onnx", reason="make test-peers installs it")
    model = onnx.load(exported("onnx"))
    properties = {entry.key: entry.value for entry in model.metadata_props}
    assert tuple(json.loads(properties["classes"])) == HOSTILE


def test_literals_are_ascii_on_one_line_without_the_ends_of_scripts():
    for text in HOSTILE:
        for literal in (python_string(text), c_string(text), js_string(text)):
            assert literal.isascii()
            assert literal.isprintable()
            assert literal[0] == literal[-1] == '"'
        assert ast.literal_eval(python_string(text)) == text
        assert json.loads(js_string(text)) == text
        assert "<" not in js_string(text)


@pytest.mark.parametrize("to", list(TARGETS))
def test_file_names_cannot_end_a_comment_or_a_docstring(to, tmp_path):
    if to == "onnx":
        pytest.importorskip("onnx", reason="make test-peers installs it")
    network = Network([4, 3], rng=0)
    name = 'a"""*`${x}\n<!--?? \\\u2028\x1b«n_in»\'.'
    model_file = tmp_path / f"{name}safetensors"
    save(network, model_file)
    path = tmp_path / f"{name}{TARGETS[to].suffix[-3:]}"
    export(network, path, to=to, model_file=model_file)
    graph = inference_graph(network, "safe")
    assert "of safe" in graph.head()[0]
    if to == "onnx":
        return
    text = path.read_text(encoding="utf-8")
    comments = text.split("Input: x")[0]
    assert not [character for character in comments if not character.isprintable() and character != "\n"]
    assert not [word for word in ("${", "<!--", "??", "\\", "«", "`") if word in comments]
    if to in PYTHON:
        tree = ast.parse(text)
        assert isinstance(tree.body[1], ast.Import)  # the docstring ends where it should
        strings = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
        assert (model_file.name in strings) == (to != "python")  # the scripts load this file
    elif to == "c" and shutil.which("gcc") is not None:
        subprocess.run(
            ["gcc", "-std=c99", "-Wall", "-Wextra", "-Werror", "-c", "-x", "c", path, "-o", f"{path}.o"], check=True
        )
    elif to == "js" and shutil.which("node") is not None:
        module = tmp_path / "renamed.mjs"
        module.write_text(text, encoding="utf-8")
        subprocess.run(["node", "--check", module], check=True)


@pytest.mark.parametrize(
    ("to", "name"),
    [
        ("torch", 'x"""\nraise SystemExit(7)\n"""'),
        ("keras", 'x"""\nraise SystemExit(7)\n"""'),
        *[("torch", "x\\"), ("torch", "*/ </script>"), ("torch", "\u2028\x1b[31m«seed»")],
    ],
)
def test_the_name_of_a_recipe_cannot_leave_the_docstring_of_a_training_script(to, name, tmp_path):
    recipe = RECIPES["post"].replace(name=name)
    export(recipe.trainer().network, tmp_path / "net.py", to=to, train=recipe)
    text = (tmp_path / "net.py").read_text(encoding="utf-8")
    plain = RECIPES["post"]
    export(plain.trainer().network, tmp_path / "plain.py", to=to, train=plain)
    expected = ast.parse((tmp_path / "plain.py").read_text(encoding="utf-8"))
    tree = ast.parse(text)
    assert ast.dump(ast.Module(tree.body[1:], [])).replace("net_trained", "plain_trained") == ast.dump(
        ast.Module(expected.body[1:], [])
    )
    assert all(character.isprintable() or character == "\n" for character in text)
