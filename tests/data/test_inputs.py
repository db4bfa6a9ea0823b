"""Inputs from images, folders and arrays: the network's size and colours, what is bad named, the rest read, no pickle, nothing whole in memory."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from lobit.data.arrays import rows_of_file, rows_of_stream
from lobit.data.inputs import Sample, Scaling, Unreadable, samples
from lobit.data.pictures import read_picture
from lobit.errors import ShapeError

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (8, 8), np.uint8)
SCALING = Scaling(-1.0, 1.0)


def npy(array):
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def test_an_image_of_the_networks_size_and_colours_is_left_as_it_is(tmp_path):
    Image.fromarray(GREY).save(tmp_path / "a.png")
    picture = read_picture(tmp_path / "a.png", (1, 8, 8))
    np.testing.assert_array_equal(picture.pixels[0], GREY)
    assert picture.done == ""


def test_channels_come_first(tmp_path):
    rgb = RNG.integers(0, 256, (8, 6, 3), np.uint8)
    Image.fromarray(rgb).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_picture(tmp_path / "a.png", (3, 8, 6)).pixels, rgb.transpose(2, 0, 1))


def test_sixteen_bits_transparency_and_size_are_dealt_with_and_said(tmp_path):
    Image.fromarray(GREY.astype(np.uint16) * 257).save(tmp_path / "wide.png")
    wide = read_picture(tmp_path / "wide.png", (1, 8, 8))
    np.testing.assert_array_equal(wide.pixels[0], GREY)
    assert "16 bits to 8" in wide.done
    clear = np.dstack([np.full((8, 8, 3), 200, np.uint8), np.where(GREY > 99, 255, 0).astype(np.uint8)])
    Image.fromarray(clear).save(tmp_path / "clear.png")
    seen = read_picture(tmp_path / "clear.png", (1, 8, 8))
    np.testing.assert_array_equal(seen.pixels[0], np.where(GREY > 99, 200, 0))
    assert "black where transparent" in seen.done


def test_the_middle_of_a_wide_image_is_what_is_scaled(tmp_path):
    wide = np.zeros((16, 48), np.uint8)
    wide[:, 16:32] = 255
    Image.fromarray(wide).save(tmp_path / "w.png")
    picture = read_picture(tmp_path / "w.png", (1, 8, 8))
    assert (picture.pixels[..., 1:-1] == 255).all()  # at the cut, the antialiasing sees the neighbours
    assert picture.done == "48 x 16 grey: cut to its middle, scaled to 8 x 8"


@pytest.mark.parametrize("data", [b"", b"text", b"\x89PNG\r\n\x1a\n" + b"\0" * 40])
def test_what_is_no_image_is_a_shape_error(tmp_path, data):
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(ShapeError):
        read_picture(tmp_path / "a.png", (1, 8, 8))


def test_a_bomb_is_refused(tmp_path, monkeypatch):
    Image.fromarray(np.zeros((40, 40), np.uint8)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ShapeError, match="more than 1000 pixels"):
        read_picture(tmp_path / "a.png", (1, 8, 8))


@pytest.mark.parametrize("shape", [(5, 1, 8, 8), (5, 8, 8), (1, 8, 8)])
def test_file_and_stream_give_the_same_rows(tmp_path, shape):
    array = RNG.integers(0, 256, shape, np.uint8)
    np.save(tmp_path / "a.npy", array)
    wanted = array.reshape(-1, 1, 8, 8)
    np.testing.assert_array_equal(np.stack(list(rows_of_file(tmp_path / "a.npy", (1, 8, 8)))), wanted)
    np.testing.assert_array_equal(np.stack(list(rows_of_stream(io.BytesIO(npy(array)), (1, 8, 8)))), wanted)


@pytest.mark.parametrize(
    "array", [np.zeros((2, 1, 8, 8)), np.zeros((2, 3, 8, 8), np.float32), np.zeros((2, 8, 8, 1), np.uint8), np.array([{}], object)]
)
def test_arrays_of_another_kind_are_refused(tmp_path, array):
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    with pytest.raises(ShapeError):
        list(rows_of_file(tmp_path / "a.npy", (1, 8, 8)))
    with pytest.raises(ShapeError):
        list(rows_of_stream(io.BytesIO((tmp_path / "a.npy").read_bytes()), (1, 8, 8)))


def test_a_stream_that_ends_early_gives_its_whole_rows_and_says_so():
    rows = rows_of_stream(io.BytesIO(npy(np.ones((4, 1, 8, 8), np.float32))[:-300]), (1, 8, 8))
    assert [next(rows).sum() for _ in range(2)] == [64, 64]
    with pytest.raises(ShapeError, match="ends after 2 of 4 rows"):
        next(rows)


def test_a_hostile_header_allocates_nothing():
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f4", "fortran_order": False, "shape": (2**60, 1, 8, 8)})
    with pytest.raises(ShapeError, match="ends after 0"):
        list(rows_of_stream(io.BytesIO(buffer.getvalue()), (1, 8, 8)))


def test_a_folder_is_read_sorted_with_its_bad_files_in_their_place(tmp_path):
    Image.fromarray(GREY).save(tmp_path / "c.png")
    (tmp_path / "b.png").write_text("bad")
    Image.fromarray(GREY).save(tmp_path / "a.bmp")
    (tmp_path / "notes.txt").write_text("no image")
    found = list(samples([tmp_path], (1, 8, 8), SCALING))
    assert [(type(one), one.name.rpartition("/")[2]) for one in found] == [(Sample, "a.bmp"), (Unreadable, "b.png"), (Sample, "c.png")]
    np.testing.assert_allclose(found[0].x[0], GREY / 127.5 - 1, atol=1e-6)


def test_rows_that_are_not_finite_are_left_out_alone(tmp_path):
    array = np.ones((3, 1, 8, 8), np.float32)
    array[1, 0, 0, 0] = np.nan
    np.save(tmp_path / "a.npy", array)
    assert [type(one) for one in samples([tmp_path / "a.npy"], (1, 8, 8), None)] == [Sample, Unreadable, Sample]


def test_scaling_is_that_of_the_data_sets_and_turns_round():
    from lobit.data import load_data

    digits = load_data("digits")
    pixels = digits.test_images[:4]
    np.testing.assert_array_equal(Scaling(-1, 1, 16).apply(pixels, 16), digits.scale(pixels, -1, 1))
    np.testing.assert_array_equal(Scaling(0, 1, 16, invert=True).apply(pixels, 16), digits.scale(16 - pixels, 0, 1))
    with pytest.raises(ShapeError, match="--white"):
        Scaling(0, 1, 15).apply(pixels, 15)


def test_pixels_without_a_known_range_say_which_option_gives_it(tmp_path):
    Image.fromarray(GREY).save(tmp_path / "a.png")
    (found,) = samples([tmp_path / "a.png"], (1, 8, 8), None)
    assert isinstance(found, Unreadable)
    assert "--range" in found.why
