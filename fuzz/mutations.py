"""Mutations: random changes of bytes, text, JSON values, and of files whose format stays intact."""

from __future__ import annotations

import copy
import io
import json
import math
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

Rng = np.random.Generator
Mutation = Callable[[bytes, Rng], bytes]
Item = TypeVar("Item")

NUMBERS: tuple[Any, ...] = (
    0,
    -1,
    1,
    2,
    3,
    255,
    256,
    624,
    65_535,
    1 << 20,
    1 << 31,
    1 << 32,
    1 << 63,
    1 << 64,
    1 << 128,
)
NUMBERS += (10**10, 10**18, 10**400, -(10**400), -(1 << 63), 0.5, -0.0, 1.5, 1e-320, 1e38, 1e39, 1e308, -1e308)
NUMBERS += (math.nan, math.inf, -math.inf)
TEXTS = (
    "",
    " ",
    "0",
    "\0",
    "a\nb",
    "\x1b[31m",
    "\u202e",
    "\ud800",
    "é",
    "../x",
    "9" * 5000,
    "a" * 100_000,
    "1" + "0" * 400,
)
TEXTS += ("NaN", "-1", "1e999", "None", "__class__", "</script>")
OTHERS: tuple[Any, ...] = (None, True, False, [], {}, [[]], [None], [1, 2, 3], {"type": "Dense"}, {"": ""})
LITERALS = ("1e999", "-1e999", "9" * 5000, "NaN", "Infinity", "-Infinity", "1" + "0" * 400, "[" * 2000 + "]" * 2000)
LITERALS += ('{"a":' * 500 + "1" + "}" * 500, "-0", "01", '"\\ud800"', '"\\u0000"', "null", "")
MAX_BYTES = 1 << 22  # largest input


def choice(rng: Rng, items: Sequence[Item]) -> Item:
    """Return a random item. Unlike Generator.choice, it does not convert the items to an array."""
    return items[int(rng.integers(len(items)))]


def unusual(rng: Rng) -> Any:
    """Return an unusual JSON value."""
    return copy.deepcopy(choice(rng, choice(rng, (NUMBERS, NUMBERS, TEXTS, OTHERS))))


# ---- Bytes -----------------------------------------------------------------------------------------------------------


def mutate_bytes(data: bytes, rng: Rng) -> bytes:
    """Flip bits, overwrite, insert, delete, duplicate or cut bytes."""
    if not data:
        return rng.bytes(4)
    changed, i = bytearray(data), int(rng.integers(len(data)))
    if rng.random() < 0.3:  # headers are short and at the start
        i = int(rng.integers(min(len(data), 64)))
    match int(rng.integers(9)):
        case 0 | 1:
            changed[i] ^= 1 << int(rng.integers(8))
        case 2:
            changed[i] = choice(rng, (0, 1, 127, 128, 254, 255))
        case 3:
            return bytes(changed[:i])
        case 4:
            width = choice(rng, (1, 2, 4, 8))
            value = choice(rng, (0, 1, 0x7F, 0x80, 0xFF, (1 << 8 * width) - 1, (1 << (8 * width - 1)) - 1))
            changed[i : i + width] = (value % (1 << 8 * width)).to_bytes(width, choice(rng, ("little", "big")))
        case 5:
            changed[i:i] = rng.bytes(int(rng.integers(1, 9)))
        case 6:
            del changed[i : i + int(rng.integers(1, 17))]
        case 7:
            part = changed[i : i + int(rng.integers(1, 65))]
            changed[i:i] = part * int(rng.integers(1, 5))
        case _:
            j = int(rng.integers(len(data)))
            changed[i : i + 8] = changed[j : j + 8]
    return bytes(changed)[:MAX_BYTES]


# ---- Text and JSON ---------------------------------------------------------------------------------------------------

NUMBER = re.compile(r"-?\d+(\.\d+)?([eE][-+]?\d+)?")


def mutate_text(data: bytes, rng: Rng) -> bytes:
    """Replace a number in a text by an unusual literal, or insert one."""
    text = data.decode("utf-8", "surrogateescape")
    found = list(NUMBER.finditer(text))
    literal = choice(rng, LITERALS)
    if found and rng.random() < 0.7:
        match = choice(rng, found)
        text = text[: match.start()] + literal + text[match.end() :]
    else:
        i = int(rng.integers(len(text) + 1))
        text = text[:i] + choice(rng, (literal, choice(rng, TEXTS))) + text[i:]
    return text.encode("utf-8", "replace" if rng.random() < 0.5 else "surrogatepass")


def mutate_json(value: Any, rng: Rng) -> Any:
    """Return a copy of a JSON value with one change at a random place."""
    value = copy.deepcopy(value)
    places: list[tuple[Any, Any]] = []
    stack = [value]
    while stack:
        at = stack.pop()
        keys = list(at) if isinstance(at, dict) else range(len(at))
        places += [(at, key) for key in keys]
        stack += [at[key] for key in keys if isinstance(at[key], dict | list)]
    if not places or rng.random() < 0.01:
        return unusual(rng)
    at, key = choice(rng, places)
    match int(rng.integers(10)):
        case 0 | 1 | 2 | 3:
            at[key] = unusual(rng)
        case 4:
            del at[key]
        case 5:
            other, name = choice(rng, places)
            at[key] = copy.deepcopy(other[name])
        case 6 if isinstance(at[key], bool | int | float):
            n = at[key]
            at[key] = choice(rng, (n + 1, n - 1, -n, n * 2, float(n), n + 0.5, str(n), [n], not n))
        case 6 if isinstance(at[key], str):
            text = at[key]
            at[key] = choice(rng, (text + choice(rng, TEXTS), text[1:], text.lower(), [text], text * 2, f"{text}\n"))
        case 6 if isinstance(at[key], list):
            at[key] = choice(rng, (at[key] * 2, at[key][1:], at[key][::-1], dict.fromkeys(map(str, range(3))), None))
        case 7:
            for _ in range(choice(rng, (1, 2, 8, 40))):
                at[key] = [at[key]] if rng.random() < 0.5 else {"model": at[key], "type": "Preprocessed"}
        case 8 if isinstance(at, dict):
            at[choice(rng, (*TEXTS, *(str(name) + "x" for name in at)))] = unusual(rng)
        case 8:
            at.insert(int(rng.integers(len(at) + 1)), copy.deepcopy(at[key]))
        case _ if isinstance(at, dict):
            at[choice(rng, (*TEXTS, str(key) + "x", str(key).upper()))] = at.pop(key)
        case _:
            at[key] = [at[key]] * choice(rng, (2, 3, 500))
    return value


def json_bytes(value: Any, rng: Rng) -> bytes:
    """Encode JSON, sometimes with a change of the text."""
    data = json.dumps(value).encode()
    return mutate_text(data, rng) if rng.random() < 0.15 else data


def mutate_json_file(data: bytes, rng: Rng) -> bytes:
    """Change a JSON file: its values, its text or its bytes."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return mutate_bytes(data, rng)
    if rng.random() < 0.1:
        return mutate_bytes(data, rng)
    return json_bytes(mutate_json(value, rng), rng)


# ---- safetensors -----------------------------------------------------------------------------------------------------


def split_safetensors(data: bytes) -> tuple[Any, bytes]:
    """Return the header and the data. Raises ValueError or struct.error for invalid files."""
    (length,) = struct.unpack_from("<Q", data)
    if length > len(data):
        raise ValueError("truncated header")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def join_safetensors(header: Any, content: bytes, text: bytes | None = None) -> bytes:
    """Return the bytes of a file, with the JSON `text` in place of the header if it is given."""
    encoded = json.dumps(header).encode() if text is None else text
    return struct.pack("<Q", len(encoded)) + encoded + content


def mutate_safetensors(data: bytes, rng: Rng) -> bytes:
    """Change the description in the metadata, the header, numbers in the arrays, or bytes."""
    kind = rng.random()
    try:
        header, content = split_safetensors(data)
        metadata = header.get("__metadata__") or {}
        description = json.loads(metadata["handgrad"]) if "handgrad" in metadata else None
    except (ValueError, struct.error, AttributeError, TypeError, KeyError, RecursionError):
        return mutate_bytes(data, rng)
    if kind < 0.55 and description is not None:
        text = json_bytes(mutate_json(description, rng), rng).decode("utf-8", "replace")
        return join_safetensors({**header, "__metadata__": {**metadata, "handgrad": text}}, content)
    if kind < 0.75:
        changed = mutate_json(header, rng)
        return join_safetensors(changed, content, json_bytes(changed, rng))
    if kind < 0.85 and len(content) >= 8:
        return join_safetensors(header, mutate_numbers(content, rng))
    return mutate_bytes(data, rng)


def mutate_numbers(content: bytes, rng: Rng) -> bytes:
    """Overwrite one number of an array with NaN, infinity, or a very large, small or negative one."""
    code = choice(rng, ("<f4", "<f8", "<i4", "<i8"))
    values = (math.nan, math.inf, -math.inf, -1.0, 3e38, -3e38, 1e-45) if code[1] == "f" else (-1, 0, 2**31 - 1, 10**6)
    number = np.array(choice(rng, values), code).tobytes()
    i = int(rng.integers(max(1, len(content) // len(number)))) * len(number)
    return content[:i] + number + content[i + len(number) :]


# ---- Compressed files, archives, images ------------------------------------------------------------------------------


def mutate_gzip(data: bytes, rng: Rng, inner: Mutation = mutate_bytes) -> bytes:
    """Change the content, with valid compression, or the compressed bytes."""
    if rng.random() < 0.5:
        try:
            return zlib.compress(inner(zlib.decompress(data, 31), rng), 1, 31)
        except zlib.error:
            pass
    return mutate_bytes(data, rng)


def mutate_zip(data: bytes, rng: Rng, inner: dict[str, Mutation]) -> bytes:
    """Change the content of an entry, by the mutation of its suffix; the entries; or bytes."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = {name: archive.read(name) for name in archive.namelist()}
    except Exception:  # zipfile has many exceptions, and the input is already damaged
        return mutate_bytes(data, rng)
    kind = rng.random()
    if kind < 0.25 or not entries:
        return mutate_bytes(data, rng)
    name = choice(rng, list(entries))
    if kind < 0.85:
        entries[name] = next((change for end, change in inner.items() if name.endswith(end)), mutate_bytes)(
            entries[name], rng
        )
    elif kind < 0.92:
        entries[choice(rng, (*TEXTS[5:10], "config.json", "x.npy", name.upper()))] = entries.pop(name)
    else:
        del entries[name]
    buffer = io.BytesIO()
    compression = choice(rng, (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for each, content in entries.items():
            archive.writestr(zipfile.ZipInfo(each.replace("\0", "0")[:60_000]), content, compression)
    return lie_about_sizes(buffer.getvalue(), rng) if rng.random() < 0.1 else buffer.getvalue()


def lie_about_sizes(data: bytes, rng: Rng) -> bytes:
    """Change a size in the central directory of a zip archive."""
    changed = bytearray(data)
    found = [match.start() for match in re.finditer(re.escape(b"PK\1\2"), data)]
    if found:
        at = choice(rng, found) + choice(rng, (20, 24))  # compressed and uncompressed size
        struct.pack_into("<I", changed, at, choice(rng, (0, 1, 100, 1 << 20, 1 << 30, 0xFFFFFFFE)))
    return bytes(changed)


def mutate_npy(data: bytes, rng: Rng) -> bytes:
    """Change the header, which is the text of a Python dictionary, or bytes."""
    if rng.random() < 0.4 or data[:6] != b"\x93NUMPY" or len(data) < 12:
        return mutate_bytes(data, rng)
    (length,) = struct.unpack_from("<H", data, 8)
    text, content = data[10 : 10 + length].decode("latin-1"), data[10 + length :]
    if rng.random() < 0.6:
        changes = (
            *NUMBERS,
            "'<f8'",
            "'O'",
            "'V9'",
            "'<U999999999'",
            "[('a', '<f4')]",
            "()",
            "(1,) * 9",
            "'M8[s]'",
            None,
        )
        text = re.sub(
            r"\d+|'[<|>][a-z]\d+'|\w+", lambda m: str(choice(rng, changes)) if rng.random() < 0.2 else m[0], text
        )
    else:
        text = mutate_text(text.encode(), rng).decode("latin-1")
    header = text.encode("latin-1", "replace")[:65_535]
    return data[:8] + struct.pack("<H", len(header)) + header + content


def mutate_png(data: bytes, rng: Rng) -> bytes:
    """Change the content of a chunk, with a valid checksum, or bytes."""
    if rng.random() < 0.3 or data[:8] != b"\x89PNG\r\n\x1a\n":
        return mutate_bytes(data, rng)
    chunks, at = [], 8
    while at + 8 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    i = int(rng.integers(len(chunks)))
    kind, content = chunks[i]
    if kind == b"IHDR" and rng.random() < 0.7:
        side = struct.pack(">I", choice(rng, (0, 1, 2, 20, 1000, 9400, 60_000, 3_000_000, 2**31 - 1)))
        changed = bytearray(content)
        changed[(first := choice(rng, (0, 4))) : first + 4] = side
        chunks[i] = kind, bytes(changed)
    elif kind == b"IDAT" and rng.random() < 0.5:
        chunks[i] = kind, _recompressed(content, rng)
    elif rng.random() < 0.2:
        new = choice(rng, (b"tRNS", b"PLTE", b"eXIf", b"iCCP", b"zTXt", b"acTL", b"fdAT", b"gAMA"))
        chunks.insert(i, (new, rng.bytes(int(rng.integers(0, 40)))))
    else:
        chunks[i] = kind, mutate_bytes(content, rng)
    parts = [struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in chunks]
    return data[:8] + b"".join(parts)


def _recompressed(content: bytes, rng: Rng) -> bytes:
    try:
        return zlib.compress(mutate_bytes(zlib.decompress(content), rng), 1)
    except zlib.error:
        return mutate_bytes(content, rng)
