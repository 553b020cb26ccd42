"""Draw the ten example digits, digits/0.png to digits/9.png: dark strokes on a light background, 200 x 200 pixels.

    python examples/draw_digits.py [DIRECTORY]

The shapes are those of handgrad's synthetic digits, drawn with a round pen at a larger size. No pixel is from MNIST.
Read them with a model that handgrad has trained:

    handgrad predict runs/quick examples/digits
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from handgrad.data.synthetic import ASPECT_RATIO, SLANT, glyph_arrays

SIZE, HEIGHT, PEN = 200, 110, 13  # pixels: side of the image, height of a digit, width of a stroke
SCALE = 4  # drawn this much larger and then reduced, for smooth edges
BACKGROUND, INK = 245, 40  # gray levels


def draw(digit: int) -> Image.Image:
    """Draw the first shape of a digit."""
    glyphs = glyph_arrays()
    glyph = glyphs.first[digit]
    x, y = (glyphs.control[glyph] @ glyphs.curve[glyph]).astype(float)  # one point per pixel of MNIST, y points down
    x = x * ASPECT_RATIO[digit] - y * SLANT[digit]
    points = np.stack([x - (x.min() + x.max()) / 2, y - (y.min() + y.max()) / 2], axis=1) / (y.max() - y.min())
    points = SCALE * (HEIGHT * points + SIZE / 2)
    ends = np.flatnonzero(glyphs.ends[glyph])  # first and last sample of each stroke

    image = Image.new("L", (SCALE * SIZE, SCALE * SIZE), BACKGROUND)
    pen, radius = ImageDraw.Draw(image), SCALE * PEN / 2
    for first, last in zip(ends[::2], ends[1::2], strict=True):
        stroke = [tuple(point) for point in points[first : last + 1]]
        pen.line(stroke, fill=INK, width=SCALE * PEN)
        for a, b in stroke:  # round joints and ends
            pen.ellipse((a - radius, b - radius, a + radius, b + radius), fill=INK)
    return image.resize((SIZE, SIZE), Image.Resampling.LANCZOS)


if __name__ == "__main__":
    directory = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "digits"
    directory.mkdir(exist_ok=True)
    for number in range(10):
        path = directory / f"{number}.png"
        draw(number).save(path, optimize=True)
        print(f"{path.name}: {path.stat().st_size:,} bytes")
