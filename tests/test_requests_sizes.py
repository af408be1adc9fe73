from __future__ import annotations

import pytest

from paramrob.errors import InputError
from paramrob.requests.sizes import LEAST, parse_memory


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1GiB", 2**30),
        ("512MiB", 2**29),
        ("512 MiB", 2**29),
        ("0.5Gi", 2**29),
        ("2GB", 2 * 10**9),
        ("2G", 2 * 10**9),
        ("20000kB", 2 * 10**7),
        ("1TiB", 2**40),
        ("16777216", LEAST),
        (16777216, LEAST),
        (" 64MiB ", 2**26),
    ],
)
def test_sizes_in_words(text: str | int, size: int) -> None:
    assert parse_memory(text) == size


@pytest.mark.parametrize(
    "text",
    ["", "lots", "GiB", "-1GiB", "1e9", "1,5GiB", "1PiB", "1GiBB", "nan", "٣GiB", "9" * 40, True],
)
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(InputError, match="512MiB"):
        parse_memory(text)


@pytest.mark.parametrize("text", ["0", "12", "15.9MiB", 1])
def test_too_little(text: str | int) -> None:
    with pytest.raises(InputError, match="16MiB or more"):
        parse_memory(text, "memory")
