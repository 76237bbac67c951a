"""Mixtures: shares that hold at every point, sources in their order, and nothing by chance."""

import pickle
import random
import time
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from imagen_jax.data.sources import addresses
from imagen_jax.data.sources.base import SkippedNames
from imagen_jax.data.sources.mixture import Mixture, interleave


class Numbers:
    """A source of so many examples."""

    def __init__(self, name: str, count: int) -> None:
        self.name, self.count = name, count
        self.skipped = {"empty": SkippedNames([name], 7)}

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Any]:
        assert 0 <= index < self.count
        return {
            "image": b"",
            "caption": f"{self.name}{index}",
            "captions": (f"{self.name}{index}",),
        }

    def key(self, index: int) -> str:
        return f"{self.name}{index}"


def test_every_prefix_has_the_shares_to_within_one_example() -> None:
    rng = random.Random(0)
    for _ in range(200):
        parts = [rng.randint(1, rng.choice([1, 3, 40])) for _ in range(rng.randint(1, 7))]
        counts, total = [0] * len(parts), sum(parts)
        bound = 1 - 1 / max(2 * len(parts) - 2, 1)  # Tijdeman's theorem
        for n, chosen in enumerate(interleave(parts), 1):
            counts[chosen] += 1
            for count, part in zip(counts, parts, strict=True):
                assert abs(count - n * part / total) <= bound + 1e-9, (parts, n)
        assert counts == parts


def slow_interleave(parts: list[int]) -> list[int]:
    """The rule of `interleave` as the paper has it: all are looked at for each example."""
    total, slack = sum(parts), 2 * max(len(parts) - 1, 1)
    taken, order = [0] * len(parts), []
    for n in range(1, total + 1):
        behind = [slack * (part * n - total * t) for part, t in zip(parts, taken, strict=True)]
        due = [i for i, late in enumerate(behind) if late >= total]
        chosen = min(due, key=lambda i: Fraction(total * (slack - 1) - behind[i], parts[i]))
        taken[chosen] += 1
        order.append(chosen)
    return order


def test_the_order_is_the_papers() -> None:
    rng = random.Random(1)
    for _ in range(200):
        parts = [rng.randint(1, rng.choice([1, 2, 3, 40])) for _ in range(rng.randint(1, 12))]
        assert interleave(parts) == slow_interleave(parts), parts


def test_many_sources_are_interleaved_in_little_time() -> None:
    began = time.process_time()
    mixture = Mixture(tuple(Numbers("a", 3) for _ in range(10_000)), (1.0,) * 10_000)
    assert len(mixture) == 30_000
    assert mixture.place(20_007) == (7, 2)
    assert time.process_time() - began < 5


def test_a_mixture_of_very_many_lines_is_refused_by_their_count(tmp_path: Path) -> None:
    file = tmp_path / "mix"
    file.write_text("shapes/tiny\n" * 10_000)
    with pytest.raises(ValueError, match=r"mixture .*mix has 10,000 sources, more than 1,000; "):
        addresses.read_addresses(str(file))


def test_equal_lines_are_opened_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []

    def count(address: addresses.Address, _: object) -> Numbers:
        opened.append(address)
        return Numbers("a", 3)

    monkeypatch.setattr(addresses, "open_source", count)
    lines = [addresses.parse_address(f"shapes/tiny?weight={w}") for w in (1, 2, 1)]
    assert len(addresses.open_mixture(lines, tmp_path)) == 11
    assert len(opened) == 1


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("shapes/tiny?weight=nan", "weight nan of a source must be positive and finite"),
        ("shapes/tiny?weight=-1", "weight -1.0 of a source must be positive and finite"),
        ("shapes/tiny?weight=inf", "weight inf of a source must be positive and finite"),
        ("shapes/tiny?weight=1_0", "weight='1_0' is no number: write it in the digits 0 to 9"),
        ("shapes/tiny?weight=%D9%A3", "weight='٣' is no number"),
        (f"shapes/tiny?weight={'9' * 5000}", r"characters \.\.\..* is no number"),
        ("shapes/tiny?weight=1&weight=2", "an option is given twice: give it once"),
        ("folder:a?text=x&text=y", "an option is given twice"),
        (f"folder:{'/' * 100_000}", "has more than 8,192 characters, as no path has"),
        (f"tars:{{{'9' * 5000}..9}}", "names more than 1,000,000 files"),
        (f"tars:{{0..{'9' * 5000}}}", "names more than 1,000,000 files"),
    ],
)
def test_what_no_source_can_be_is_refused_in_few_words(
    address: str, says: str, tmp_path: Path
) -> None:
    (tmp_path / "mix").write_text(f"{address}\n")
    with pytest.raises(ValueError, match=says) as refused:
        addresses.open_mixture(addresses.read_addresses(str(tmp_path / "mix")), tmp_path)
    assert len(str(refused.value)) < 700


@pytest.mark.parametrize(
    ("lengths", "weights"),
    [
        ((6, 3), (2.0, 1.0)),
        ((5, 5), (1.0, 1.0)),
        ((7, 2, 40), (0.5, 0.25, 1.25)),
        ((4,), (3.5,)),
        ((3, 1000), (0.9, 0.1)),
    ],
)
def test_each_source_comes_in_its_order_and_again(
    lengths: tuple[int, ...], weights: tuple[float, ...]
) -> None:
    mixture = Mixture(tuple(Numbers("abc"[n], length) for n, length in enumerate(lengths)), weights)
    places = [mixture.place(i) for i in range(len(mixture))]
    seen = Counter[int]()
    for number, within in places:
        assert within == seen[number] % lengths[number]
        seen[number] += 1
    assert all(seen[n] >= length for n, length in enumerate(lengths))  # all of every source
    *before, (last, _) = places
    assert Counter(n for n, _ in before)[last] == lengths[last] - 1  # and no more than that
    for n, weight in enumerate(weights):
        assert abs(seen[n] - len(mixture) * weight / sum(weights)) < 1
    assert [mixture[i]["caption"] for i in range(4)] == [f"{'abc'[n]}{w}" for n, w in places[:4]]
    assert [mixture.key(i) for i in range(4)] == [f"{n}/{'abc'[n]}{w}" for n, w in places[:4]]


def test_copies_mix_alike_and_names_say_which_source_left_out() -> None:
    mixture = Mixture((Numbers("a", 30), Numbers("b", 7)), (0.3, 0.7))
    copy = pickle.loads(pickle.dumps(mixture))
    assert [copy.place(i) for i in range(len(copy))] == [mixture.place(i) for i in range(len(copy))]
    assert mixture.skipped == {"empty": ("0/a", "1/b")}
    assert mixture.skipped["empty"].total == 14


@pytest.mark.parametrize(
    ("lengths", "weights", "says"),
    [
        ((3, 3), (1.0,), "1 weights for 2 sources"),
        ((), (), "0 weights for 0 sources"),
        ((3, 3), (1.0, 0.0), "weight 0.0 of a source must be positive and finite"),
        ((3, 3), (1.0, -2.0), "weight -2.0 of"),
        ((3, 3), (1.0, float("nan")), "weight nan of"),
        ((3, 3), (1.0, float("inf")), "weight inf of"),
        ((3, 0), (1.0, 1.0), "source 1 of a mixture has no examples"),
        ((3, 3), (1.0, 0.1234567), r"only, more than 100,000: give them fewer digits"),
    ],
)
def test_what_cannot_be_mixed_is_refused(lengths: tuple, weights: tuple, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Mixture(tuple(Numbers("a", length) for length in lengths), weights)


def folder_of(path: Path, names: list[str]) -> Path:
    path.mkdir()
    for name in names:
        (path / f"{name}.jpg").write_bytes(name.encode())
        (path / f"{name}.txt").write_text(name)
    return path


def test_a_file_lists_addresses_with_their_weights(tmp_path: Path) -> None:
    one, two = folder_of(tmp_path / "1", list("abcd")), folder_of(tmp_path / "2", list("xy"))
    listed = tmp_path / "mixture.txt"
    listed.write_text(f"# two folders\n\nfolder:{one}?weight=2\n  folder:{two}\n")
    source = addresses.open_source(addresses.parse_address(f"mixture:{listed}"), tmp_path)
    captions = [source[i]["caption"] for i in range(len(source))]
    assert sorted(captions) == sorted("abcdxy")
    assert [c for c in captions if c in "abcd"] == list("abcd")
    assert Counter(c in "xy" for c in captions[:3]) == {False: 2, True: 1}
    alone = addresses.open_mixture([addresses.parse_address(f"folder:{two}?weight=2")], tmp_path)
    assert [alone.key(i) for i in range(len(alone))] == ["x.jpg", "y.jpg"]


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        (None, FileNotFoundError, "no file .*mixture.txt of a mixture"),
        ("# nothing\n", ValueError, "has no sources: give shapes/NAME"),
        ("mixture:other.txt\n", ValueError, "has mixture:other.txt in it: put that one's lines"),
        ("folder:/a?weight=much\n", ValueError, "weight='much' is no number"),
        ("coco\n", ValueError, "no data source 'coco'"),
    ],
)
def test_files_that_list_none_are_refused(
    tmp_path: Path, text: str | None, error: type, says: str
) -> None:
    if text is not None:
        (tmp_path / "mixture.txt").write_text(text)
    with pytest.raises(error, match=says):
        addresses.open_source(addresses.parse_address(f"mixture:{tmp_path}/mixture.txt"), tmp_path)
