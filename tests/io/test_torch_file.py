"""State dicts of PyTorch: both forms are read as they are, and nothing in them is executed."""

import io
import os
import pickle
import pickletools
from pathlib import Path

import numpy as np
import pytest
import torch_pickle

from imagen_jax.io import restricted_pickle, torch_file

FIXTURES = Path(__file__).parents[1] / "fixtures" / "metrics"
EXPECTED = {
    "a.weight": np.arange(12, dtype=np.float32).reshape(3, 4).T,
    "b.half": np.array([1.5, -2.0], np.float16),
    "c.count": np.array(7, np.int64),
    "d.view": np.arange(12, dtype=np.float32)[4:8],
}


@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_a_state_dict_is_read_as_torch_wrote_it(form: str) -> None:
    found = torch_file.read_state_dict(FIXTURES / f"state_dict_{form}.pth")
    assert found.keys() == EXPECTED.keys()
    for name, wanted in EXPECTED.items():
        assert found[name].dtype == wanted.dtype
        np.testing.assert_array_equal(found[name], wanted)


class _Command:
    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self):
        return os.system, (f"touch {self.file}",)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_command_in_a_pickle_is_not_run(tmp_path: Path, protocol: int) -> None:
    file = tmp_path / "touched"
    path = torch_pickle.write_zip(
        tmp_path / "a.pth", pickle.dumps({"a": _Command(file)}, protocol), {}
    )
    with pytest.raises(ValueError, match=r"a\.pth is no state dict of PyTorch: its pickle "):
        torch_file.read_state_dict(path)
    assert not file.exists()
    pickle.loads(pickle.dumps(_Command(file), protocol))
    assert file.exists()  # the pickle would have done it


def test_a_name_that_is_known_is_not_called_with_anything(tmp_path: Path) -> None:
    data = b"\x80\x02ccollections\nOrderedDict\nctorch\nFloatStorage\n\x85R."
    assert [code.name for code, *_ in pickletools.genops(data)][-2] == "REDUCE"
    with pytest.raises(ValueError, match="makes a dictionary of something"):
        restricted_pickle.read(io.BytesIO(data))


def _tensor_pickle(*, count: int, shape: int, offset: int = 0, stride: int = 1) -> bytes:
    """A state dict with one vector `a`."""
    made = torch_pickle.tensor("0", count=count, shape=(shape,), strides=(stride,), offset=offset)
    return torch_pickle.state_dict({"a": made})


def test_the_tensor_pickle_of_these_tests_is_a_right_one(tmp_path: Path) -> None:
    data = np.arange(4, dtype="<f4").tobytes()
    path = torch_pickle.write_zip(
        tmp_path / "a.pth", _tensor_pickle(count=4, shape=2, offset=2), {"data/0": data}
    )
    np.testing.assert_array_equal(torch_file.read_state_dict(path)["a"], [2.0, 3.0])


@pytest.mark.parametrize(
    ("claims", "said"),
    [
        ({"count": 4, "shape": 5}, "reaches beyond its storage"),
        ({"count": 4, "shape": 2, "offset": 3}, "reaches beyond its storage"),
        ({"count": 4, "shape": 3, "stride": 2}, "reaches beyond its storage"),
        ({"count": 4, "shape": -1}, "shape is no numbers"),
        ({"count": 5, "shape": 5}, "storage 0 has 16 bytes"),
        ({"count": 2**31 - 1, "shape": 1}, "storage 0 has 16 bytes"),
        ({"count": 2**31 - 1, "shape": 2**31 - 1, "stride": 0}, "storage 0 has 16 bytes"),
        ({"count": 4, "shape": 2**31 - 1, "stride": 0}, "more than 4 times those of its storages"),
    ],
)
def test_claims_that_do_not_fit_are_refused(tmp_path: Path, claims: dict, said: str) -> None:
    path = torch_pickle.write_zip(
        tmp_path / "a.pth", _tensor_pickle(**claims), {"data/0": bytes(16)}
    )
    with pytest.raises(ValueError, match=said):
        torch_file.read_state_dict(path)


@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_a_file_cut_short_or_changed_is_an_error_of_one_kind(tmp_path: Path, form: str) -> None:
    whole = (FIXTURES / f"state_dict_{form}.pth").read_bytes()
    path, rng = tmp_path / "a.pth", np.random.default_rng(0)
    for _ in range(200):
        data = bytearray(whole)
        data[rng.integers(len(data))] = rng.integers(256)
        path.write_bytes(data if rng.integers(2) else whole[: rng.integers(len(whole))])
        said = f"{path} is no state dict of PyTorch: "
        try:
            torch_file.read_state_dict(path)  # a changed number is still a number
        except ValueError as error:
            said = str(error)
        assert said.startswith(f"{path} is no state dict of PyTorch: ")


def test_a_program_is_refused(tmp_path: Path) -> None:
    path = torch_pickle.write_zip(tmp_path / "a.pt", b"\x80\x02}.", {"code/__torch__.py": b""})
    with pytest.raises(ValueError, match="TorchScript program, of which nothing is run"):
        torch_file.read_state_dict(path)


def test_what_is_no_file_of_torch_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        torch_file.read_state_dict(tmp_path / "none.pth")
    (tmp_path / "a.pth").write_text("<html>404</html>")
    with pytest.raises(ValueError, match=r"no state dict of PyTorch: .*; download it again, or"):
        torch_file.read_state_dict(tmp_path / "a.pth")
