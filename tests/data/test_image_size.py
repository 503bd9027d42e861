"""A large JPEG read at a fraction of its size, where less is enough."""

import pytest
from PIL import Image

from equipoise.data.images import load_image


@pytest.mark.parametrize(("enough", "size"), [(None, (1600, 1200)), (300, (400, 300)), (1200, (1600, 1200))])
def test_a_large_jpeg(tmp_path, enough, size):
    Image.new("RGB", (1600, 1200), "red").save(tmp_path / "a.jpg")
    image = load_image(tmp_path / "a.jpg", enough)
    assert (image.size, image.mode) == (size, "RGB")


def test_other_formats_are_read_whole(tmp_path):
    Image.new("RGBA", (64, 48)).save(tmp_path / "a.png")
    image = load_image(tmp_path / "a.png", 8)
    assert (image.size, image.getpixel((0, 0))) == ((64, 48), (255, 255, 255))
