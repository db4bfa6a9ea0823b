from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lobit.bits import Alphabet, CodeType
from lobit.errors import ConfigError, FormatError
from lobit.format.packing import check_tail, codes_of_fields, fields_of_codes, pack_codes, packed_shape, unpack_codes

TYPES = [CodeType(alphabet, bits) for alphabet, widths in {
    "unsigned": range(1, 9), "signed": range(2, 9), "odd": range(1, 9), "ternary": [2], "log2": range(2, 5),
}.items() for bits in widths]  # fmt: skip


@st.composite
def coded_arrays(draw: st.DrawFn) -> tuple[CodeType, np.ndarray]:
    code = draw(st.sampled_from(TYPES))
    channels = draw(st.sampled_from([1, 2, 31, 63, 64, 65, 127, 128, 129]))
    spatial = draw(st.sampled_from([(), (1, 1), (3, 2)]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    return code, rng.choice(code.levels, (draw(st.integers(1, 4)), channels, *spatial))


@given(coded_arrays())
def test_unpacking_inverts_packing(sample: tuple[CodeType, np.ndarray]) -> None:
    code, codes = sample
    words = pack_codes(codes, code)
    assert words.dtype == np.uint64
    assert words.shape == packed_shape(codes.shape, code)
    np.testing.assert_array_equal(unpack_codes(words, codes.shape, code), codes)


@given(coded_arrays())
def test_a_packed_word_holds_bit_of_plane_position_and_channel_where_the_format_says(sample: tuple[CodeType, np.ndarray]) -> None:
    code, codes = sample
    fields = fields_of_codes(codes, code)
    words = pack_codes(codes, code)
    channels = codes.shape[1]
    positions = list(np.ndindex(codes.shape[2:]))
    for plane, channel, s in itertools.product(range(code.bits), {0, channels // 2, channels - 1}, range(len(positions))):
        bit = s * channels + channel
        stored = (words[plane, :, bit // 64] >> np.uint64(bit % 64)) & np.uint64(1)
        np.testing.assert_array_equal(stored, (fields[(slice(None), channel, *positions[s])] >> plane) & 1)


@given(coded_arrays())
def test_packing_leaves_unused_bits_zero(sample: tuple[CodeType, np.ndarray]) -> None:
    code, codes = sample
    check_tail(pack_codes(codes, code), codes[0].size, "w")


@pytest.mark.parametrize("code", TYPES, ids=str)
def test_every_code_has_its_own_field_within_the_width(code: CodeType) -> None:
    fields = fields_of_codes(np.array(code.levels), code)
    assert len(set(fields.tolist())) == len(code.levels)
    assert fields.max() < 2**code.bits
    np.testing.assert_array_equal(codes_of_fields(fields, code), code.levels)


@pytest.mark.parametrize(
    ("code", "codes", "fields"),
    [
        ("unsigned3", [0, 5, 7], [0, 5, 7]),
        ("signed3", [-4, -1, 0, 3], [4, 7, 0, 3]),
        ("odd1", [-1, 1], [0, 1]),
        ("odd2", [-3, -1, 1, 3], [0, 1, 2, 3]),
        ("ternary2", [-1, 0, 1], [3, 0, 1]),
        ("log23", [0, 1, 2, 4, -1, -4], [0, 1, 2, 3, 5, 7]),
    ],
)
def test_fields_by_hand(code: str, codes: list[int], fields: list[int]) -> None:
    assert fields_of_codes(np.array(codes), CodeType.parse(code)).tolist() == fields


def test_words_by_hand() -> None:
    row = np.full(66, -1)
    row[[0, 2, 63, 65]] = 1
    assert pack_codes(row[None], CodeType("odd", 1)).tolist() == [[[0b101 | 1 << 63, 0b10]]]
    two_planes = pack_codes(np.array([[1, 2, 3], [-2, 0, -1]]).clip(-2, 1), CodeType("signed", 2))
    assert two_planes.tolist() == [[[0b111], [0b100]], [[0b000], [0b101]]]
    bytes_on_disk = pack_codes(np.array([[1] + [0] * 63 + [1]]), CodeType("unsigned", 1)).astype("<u8").tobytes()
    assert bytes_on_disk == bytes([1, 0, 0, 0, 0, 0, 0, 0] * 2)


@pytest.mark.parametrize("code", TYPES, ids=str)
def test_a_code_that_the_alphabet_lacks_is_refused(code: CodeType) -> None:
    for wrong in (code.lo - 1, code.hi + 1, *([0] if code.alphabet is Alphabet.ODD else [])):
        with pytest.raises(ValueError, match=str(code)):
            pack_codes(np.array([[wrong]]), code)


@pytest.mark.parametrize(("code", "field"), [("ternary2", 2), ("log22", 2), ("log23", 4), ("log24", 8)])
def test_a_field_that_the_alphabet_does_not_use_is_refused(code: str, field: int) -> None:
    with pytest.raises(FormatError, match="damaged"):
        codes_of_fields(np.array([field], np.uint8), CodeType.parse(code))


@pytest.mark.parametrize("inputs", [1, 63, 65])
def test_a_set_bit_beyond_the_last_input_is_refused(inputs: int) -> None:
    words = pack_codes(np.zeros((1, inputs), int), CodeType("unsigned", 1))
    words[..., -1] |= np.uint64(1 << (inputs % 64))
    with pytest.raises(FormatError, match=f"'w'.*{inputs} inputs"):
        check_tail(words, inputs, "w")


@pytest.mark.parametrize("text", ["odd", "signed1", "ternary3", "log25", "log21", "unsigned9", "unsigned0", "float32", "", "odd1 ", "log2"])
def test_unknown_code_types_are_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        CodeType.parse(text)


@pytest.mark.parametrize("code", TYPES, ids=str)
def test_a_code_type_survives_its_text(code: CodeType) -> None:
    assert CodeType.parse(str(code)) == code
