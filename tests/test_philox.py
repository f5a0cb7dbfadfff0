"""Philox4x32-10 against the known answers of its authors; masks of Dropout."""

from __future__ import annotations

import numpy as np
import pytest

from fastmlp.layers import Dropout, TrainingPass
from fastmlp.philox import philox, random_words

PI = 0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344, 0xA4093822, 0x299F31D0


# https://github.com/DEShawResearch/random123/blob/main/tests/kat_vectors
@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0,) * 4, (0,) * 2, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        (
            (0xFFFFFFFF,) * 4,
            (0xFFFFFFFF,) * 2,
            (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
        ),
        (PI[:4], PI[4:], (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)),
    ],
)
def test_known_answers(counter, key, expected):
    counters = tuple(np.array([word], np.uint64) for word in counter)
    keys = tuple(np.array([word], np.uint64) for word in key)
    assert tuple(int(word[0]) for word in philox(counters, keys)) == expected


def test_words_are_those_of_the_counters_that_are_documented():
    seed, first, layer = 2**64 - 7, 2**32 - 1, 3
    words = random_words(seed, first, 2, layer, 130)
    assert words.dtype == np.uint32
    for sample, j in [(0, 0), (0, 17), (1, 63), (1, 64), (0, 129)]:
        position = first + sample
        counter = j // 64 * 16 + j % 16, layer, position % 2**32, position // 2**32
        counters = tuple(np.array([word], np.uint64) for word in counter)
        key = np.array([seed % 2**32], np.uint64), np.array([seed // 2**32], np.uint64)
        assert words[sample, j] == philox(counters, key)[j // 16 % 4][0]


def test_words_do_not_depend_on_where_a_batch_begins_or_how_wide_it_is():
    words = random_words(5, 10, 20, 1, 70)
    assert np.array_equal(random_words(5, 14, 6, 1, 33), words[4:10, :33])
    assert not np.array_equal(random_words(6, 10, 20, 1, 70), words)
    assert not np.array_equal(random_words(5, 10, 20, 2, 70), words)


def test_masks_have_the_rate():
    mask = Dropout(0.3).mask(TrainingPass(seed=0), (1000, 100), np.dtype(np.float32))
    assert mask.dtype == np.float32
    assert set(np.unique(mask)) == {0, np.float32(1 / 0.7)}
    share = (mask == 0).mean()
    assert abs(share - 0.3) < 5 * np.sqrt(0.3 * 0.7 / mask.size)
    # No unit and no sample is left out more than chance allows; neighbours do not go together.
    for axis, n in ((0, 1000), (1, 100)):
        shares = (mask == 0).mean(axis=axis)
        assert np.abs(shares - 0.3).max() < 5 * np.sqrt(0.3 * 0.7 / n)
    out = mask == 0
    for pairs in (out[1:] & out[:-1], out[:, 1:] & out[:, :-1]):
        assert abs(pairs.mean() - 0.09) < 5 * np.sqrt(0.09 * 0.91 / pairs.size) + 1e-3
