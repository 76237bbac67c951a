"""Sizes that files claim: refused with the limit named, before memory or time is spent on them."""

import io
import os
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
import zlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from imagen_jax import cli, config, limits
from imagen_jax.data import inspect
from imagen_jax.data.images import decode, decoding_cost
from imagen_jax.data.images.decode import UnreadableImageError
from imagen_jax.data.sources import addresses, base, folders, parquet, parquet_process
from imagen_jax.io.errors import CorruptDataError
from imagen_jax.text.checkpoints import native, zarr_limits

INPUTS = Path(__file__).parent / "inputs"
BOMBS = {
    name: (INPUTS / f"hand-parquet-{name}.parquet").read_bytes()
    for name in ("rows-1000000000", "rows-100000000000", "dict-100000", "dict-2000", "img-500")
}


def png(width: int, height: int, *, depth: int, colour: int, channels: int) -> bytes:
    """A PNG of zeros."""
    row = b"\0" * (1 + width * channels * depth // 8)
    made = zlib.compressobj(9)
    data = b"".join(made.compress(row) for _ in range(height)) + made.flush()
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = [
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def progressive(width: int, height: int, *, scans: int, thumbnail: bytes = b"") -> bytes:
    """A progressive JPEG whose further scans change nothing."""
    file = io.BytesIO()
    Image.new("L", (width, height), 99).save(file, "JPEG", progressive=True, exif=thumbnail)
    whole = file.getvalue()
    start = whole.index(b"\xff\xda", len(thumbnail))
    first = whole[start : whole.index(b"\xff", start + 2)]
    return whole[:start] + first * scans + whole[start:]


def test_a_tiny_file_of_many_pixels_is_refused_by_the_memory_it_would_take() -> None:
    image = (INPUTS / "hand-100MP.webp").read_bytes()
    for read in (decode.read_header, decode.decode_image, decode.load_image):
        with pytest.raises(UnreadableImageError, match=r"needs .* set IMAGEN_MAX_IMAGE_MEMORY="):
            read(image)


@pytest.mark.parametrize(("depth", "colour", "channels"), [(16, 0, 1), (8, 6, 4)])
def test_modes_that_take_more_memory_are_bounded_by_it(
    monkeypatch: pytest.MonkeyPatch, depth: int, colour: int, channels: int
) -> None:
    image = png(300, 200, depth=depth, colour=colour, channels=channels)
    assert decode.decode_image(image).shape == (200, 300, 3)
    monkeypatch.setenv(
        "IMAGEN_MAX_IMAGE_MEMORY",
        str(decoding_cost.RGB_BYTES * 300 * 200 + decoding_cost.ROW_BYTES * 200),
    )
    with pytest.raises(UnreadableImageError, match="IMAGEN_MAX_IMAGE_MEMORY"):
        decode.read_header(image)
    plain = png(300, 200, depth=8, colour=2, channels=3)
    assert decode.decode_image(plain).shape == (200, 300, 3)


def test_scans_of_a_progressive_jpeg_are_counted_before_it_is_decoded() -> None:
    honest = progressive(64, 64, scans=0)
    assert decoding_cost.count_scans(honest) == honest.count(b"\xff\xda") > 3
    start = time.perf_counter()
    with pytest.raises(UnreadableImageError, match=r"scans, more than 100; .*IMAGEN_MAX_JPEG_SCAN"):
        decode.load_image(progressive(64, 64, scans=5_000), side=8)
    assert time.perf_counter() - start < 2


def test_two_hundred_scans_are_refused_in_a_moment() -> None:
    image = (INPUTS / "hand-progressive-bomb.jpg").read_bytes()
    start = time.process_time()
    for read in (decode.read_header, decode.decode_image):
        with pytest.raises(UnreadableImageError, match=r"scans, more than 100; .*JPEG_SCANS="):
            read(image)
    assert time.process_time() - start < 1


DECODING = """
import sys, time
from pathlib import Path
from imagen_jax.data.images import decode
image, before = Path(sys.argv[1]).read_bytes(), time.process_time()
print(decode.read_header(image).width, decode.decode_image(image).shape)
peak = Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]
print(int(peak) >> 10, time.process_time() - before)
"""  # `ru_maxrss` has the memory of the process that began this one


@pytest.mark.slow
@pytest.mark.parametrize("name", ["hand-grey16-100MP.png", "hand-rgba-100MP.png"])
def test_a_hundred_million_pixels_take_what_the_limit_says(name: str) -> None:
    """A hundred million are allowed."""
    run = subprocess.run(
        [sys.executable, "-c", DECODING, str(INPUTS / name)],
        capture_output=True,
        text=True,
        check=True,
    )
    shape, used = run.stdout.splitlines()
    assert shape == "10000 (10000, 10000, 3)"
    mebibytes, seconds = map(float, used.split())
    assert mebibytes < 2048
    assert seconds < 20


def test_scans_within_a_thumbnail_are_none_of_the_image() -> None:
    thumbnail = b"Exif\0\0" + b"\xff\xda" * 1000
    image = progressive(64, 64, scans=0, thumbnail=thumbnail)
    assert image.count(b"\xff\xda") > 1000
    assert decode.load_image(image, side=8).image.mode == "RGB"


@pytest.mark.parametrize("kind", ["junk", "segments", "chunks"])
def test_parts_that_pillow_would_look_at_for_minutes_are_refused(kind: str) -> None:
    whole = progressive(8, 8, scans=0)
    start = png(8, 8, depth=8, colour=2, channels=3)
    chunk = struct.pack(">I", 0) + b"teSt" + struct.pack(">I", zlib.crc32(b"teSt"))
    image = {
        "junk": whole[:2] + b"\xff\x00" * (4 << 20) + whole[2:],
        "segments": whole[:2] + b"\xff\xe9\0\2" * (1 << 20) + whole[2:],
        "chunks": start[:33] + chunk * (1 << 20) + start[33:],
    }[kind]
    begun = time.perf_counter()
    with pytest.raises(UnreadableImageError, match="more than 200,000 parts"):
        decode.read_header(image)
    assert time.perf_counter() - begun < 2


def test_fewer_scans_are_allowed_of_more_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    image = progressive(64, 64, scans=50)
    assert decode.read_header(image).width == 64
    monkeypatch.setenv("IMAGEN_MAX_SCANNED_PIXELS", str(64 * 64 * 50))
    with pytest.raises(UnreadableImageError, match="pixels in all its scans, more than 204,800"):
        decode.read_header(image)


def test_threads_wait_for_the_memory_that_others_decode_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "SHARE", 1 << 62)
    monkeypatch.setenv("IMAGEN_MAX_IMAGE_MEMORY", "10")
    budget, order = limits.MemoryBudget(limits.IMAGE_MEMORY), list[str]()
    started = threading.Event()

    def second() -> None:
        started.set()
        with budget.hold(6, "it needs"):
            order.append("second")

    thread = threading.Thread(target=second)
    with budget.hold(5, "it needs"):
        thread.start()
        started.wait()
        time.sleep(0.05)
        with budget.hold(5, "it needs"):
            order.append("first")
    thread.join(5)
    assert order == ["first", "second"]
    with (
        pytest.raises(ValueError, match="it needs 11 bytes of memory"),
        budget.hold(11, "it needs"),
    ):
        pass


def test_a_variable_that_is_no_number_is_refused_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("IMAGEN_MAX_IMAGE_PIXELS", "many")
    assert cli._run("data", ["check", "x"]) == 1
    assert "IMAGEN_MAX_IMAGE_PIXELS='many' is no whole number" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["-1", "1e400", "9" * 5000])
def test_a_variable_that_configs_read_is_refused_in_a_sentence(text: str) -> None:
    """Importing the package already makes configs, whose blocks are counted."""
    environment = {**os.environ, "IMAGEN_MAX_NETWORK_BLOCKS": text}
    command = [sys.executable, "-m", "imagen_jax", "sample", "shapes", "a"]
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert found.returncode == 1
    assert found.stderr.count("\n") == 1
    assert "is no whole number of 1 or more" in found.stderr


@pytest.mark.parametrize(
    "name",
    [
        *("rows-1000000000", "rows-100000000000", "dict-100000"),
        pytest.param("dict-2000", marks=pytest.mark.slow),
    ],
)
def test_parquet_that_expands_is_left_out_and_named(tmp_path: Path, name: str) -> None:
    good = pa.table({"image": [b"abc"], "text": ["a"]})
    pq.write_table(good, tmp_path / "good.parquet")
    (tmp_path / "bomb.parquet").write_bytes(BOMBS[name])
    source = parquet.open_parquet(str(tmp_path))
    names = {source.key(i).split("/")[0] for i in range(len(source))}
    assert names == {"good.parquet"}
    reason = "row group too large" if name == "dict-2000" else "damaged file"
    assert "bomb.parquet" in "".join(source.skipped[reason])


def test_texts_that_a_dictionary_repeats_beyond_memory_cost_their_row_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each fits; but a row group is read whole."""
    one = pa.array(["x" * 10**5])
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * 3100, pa.int32()), one)
    table = pa.table({"image": [b"abc"] * 3100, "text": texts})
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=3000)
    monkeypatch.setenv("IMAGEN_MAX_PARQUET_MEMORY", str(2 * 10**8))
    source = parquet.open_parquet(str(tmp_path))
    assert source.skipped["row group too large"].total == 3000
    assert len(source) == 100
    assert len(source[0]["caption"]) == 10**5


def test_images_that_expand_beyond_memory_cost_their_row_group_alone(tmp_path: Path) -> None:
    (tmp_path / "bomb.parquet").write_bytes(BOMBS["img-500"])
    source = parquet.open_parquet(str(tmp_path))
    with pytest.raises(CorruptDataError, match=r"row group 0: .* set IMAGEN_MAX_PARQUET_MEMORY"):
        source[0]


def test_parquet_that_ends_the_library_ends_no_job(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [b"abc"], "text": ["a"]}), tmp_path / "good.parquet")
    shutil.copy(INPUTS / "parquet-crash_sig6-10147", tmp_path / "bad.parquet")
    source = parquet.open_parquet(str(tmp_path))
    assert [source.key(i) for i in range(len(source))] == ["good.parquet/0"]
    (said,) = source.skipped["damaged file"]
    assert said.startswith("bad.parquet: ")


DAMAGE = {
    "nested": lambda whole: whole,
    "encrypted": lambda whole: b"PARE" + whole[4:-4] + b"PARE",
    "footer": lambda whole: whole[:-60] + b"\xff" * 30 + whole[-30:],
    "length": lambda whole: whole[:-8] + b"\xff\xff\xff\x7fPAR1",
    "empty": lambda whole: b"",
    "magic": lambda whole: b"PAR1PAR1",
    "zeros": lambda whole: whole[:-100] + bytes(92) + whole[-8:],
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_file_that_is_none_costs_no_other(tmp_path: Path, damage: str) -> None:
    table = pa.table({"image": [b"abc"], "text": ["a"]})
    pq.write_table(table, tmp_path / "good.parquet")
    nested = "a"
    for _ in range(60):
        nested = [nested]
    table = pa.table({"image": [b"abc"], "text": pa.array([nested])})
    pq.write_table(
        table if damage == "nested" else pa.table({"image": [b"x"], "text": ["a"]}),
        tmp_path / "bad.parquet",
    )
    whole = (tmp_path / "bad.parquet").read_bytes()
    (tmp_path / "bad.parquet").write_bytes(DAMAGE[damage](whole))
    source = parquet.open_parquet(str(tmp_path))
    assert [source.key(i) for i in range(len(source))] == ["good.parquet/0"]
    (said,) = source.skipped["damaged file"]
    assert said.startswith("bad.parquet: ")


def test_a_reader_that_dies_is_named_and_replaced(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [b"abc"], "text": ["a"]}), tmp_path / "x.parquet")
    with parquet_process._POOL.borrow() as reader:
        os.kill(reader._process.pid, signal.SIGABRT)
        reader._process.wait()
        with pytest.raises(CorruptDataError, match="ended with SIGABRT"):
            list(reader.ask({"task": "scan", "path": "x"}))
    assert len(parquet.open_parquet(str(tmp_path))) == 1


def test_a_chunk_without_room_in_memory_is_refused(tmp_path: Path) -> None:
    shutil.copy(INPUTS / "hand-zarray-huge-chunk.json", tmp_path / ".zarray")
    request = {"driver": "zarr", "kvstore": {"driver": "file", "path": f"{tmp_path}/"}}
    with pytest.raises(ValueError, match=r"w states .* bytes in a chunk, more than .*CHUNK_BYTES="):
        zarr_limits.check_array(request, "w")


@pytest.mark.parametrize(
    ("metadata", "says"),
    [
        ({"shape": [2**40, 64], "chunks": [64, 64], "dtype": "<f4"}, "IMAGEN_MAX_TENSOR_BYTES="),
        ({"shape": [4, 4], "chunks": [2**15, 2**10], "dtype": "<f4"}, "metadata are damaged"),
        ({"shape": [4, -4], "chunks": [4, 4], "dtype": "<f4"}, "the shape .* which is none"),
        ({"shape": "4", "chunks": [4, 4], "dtype": "<f4"}, "the shape .* which is none"),
        (
            {
                "shape": [64, 64],
                "data_type": "bfloat16",
                "chunk_grid": {"configuration": {"chunk_shape": [64, 64]}},
                "codecs": [{"configuration": {"chunk_shape": [2**20, 2**20], "codecs": []}}],
            },
            "IMAGEN_MAX_CHUNK_BYTES=",
        ),
    ],
)
def test_sizes_in_metadata_are_bounded(metadata: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=f"w states .*{says}"):
        zarr_limits.check_array({"metadata": metadata}, "w")
    sound = {"shape": [32128, 4096], "chunks": [32128, 4096], "dtype": "<f4"}
    zarr_limits.check_array({"metadata": sound}, "w")


def test_a_config_of_too_many_blocks_is_refused_when_it_is_read() -> None:
    text = (INPUTS / "hand-config-res_blocks.json").read_text()
    with pytest.raises(ValueError, match=r"res_blocks=1000000000 .* set IMAGEN_MAX_NETWORK_BLOCKS"):
        config.from_json(text)
    assert config.from_json(text.replace("1000000000", "4")).stage.model.res_blocks == 4


def test_levels_and_refiner_layers_are_bounded_too() -> None:
    with pytest.raises(ValueError, match="refiner_layers has 1,000,000 blocks or layers"):
        config.TextConditioning(refiner_layers=10**6)
    levels = (*[config.Level(channels=128, blocks=300)] * 2, *config.EfficientUNet().levels)
    with pytest.raises(ValueError, match="the levels have 622 blocks"):
        config.EfficientUNet(levels=levels)


def test_an_encoder_of_too_many_layers_is_refused(tmp_path: Path) -> None:
    shutil.copy(INPUTS / "hand-encoder-layers.json", tmp_path / native.DESCRIPTION)
    with pytest.raises(ValueError, match=r"states 1,000,000,000 .* set IMAGEN_MAX_NETWORK_BLOCKS"):
        native.layout(tmp_path)
    text = (INPUTS / "hand-encoder-layers.json").read_text()
    for wrong in ('"2"', "-1", "true", "null", "2.0"):
        made = text.replace('"layers": 1000000000', f'"layers": {wrong}')
        (tmp_path / native.DESCRIPTION).write_text(made)
        with pytest.raises(ValueError, match=r"has layers=.*, which is no size|layers: expected"):
            native.layout(tmp_path)


@pytest.mark.parametrize(
    "name", ["nested-300", "nested-450", "nested-480", "nested-900", "surrogate"]
)
def test_a_hostile_caption_of_a_tar_costs_its_example_alone(tmp_path: Path, name: str) -> None:
    tar = shutil.copy(INPUTS / f"hand-{name}.tar", tmp_path)
    if (index := INPUTS / f"hand-{name}.tar.index").is_file():
        shutil.copy(index, tmp_path)  # of another time of the tar, and by another version
    source = addresses.open_source(addresses.parse_address(f"tars:{tar}"), tmp_path)
    report = inspect.inspect_source(f"tars:{tar}", data_dir=tmp_path, progress=False)
    assert len(source) == report.looked_at == 1
    assert report.left_out
    assert f"hand-{name}.tar: {0 if name == 'surrogate' else 1}" in str(report.left_out)


@pytest.mark.parametrize("name", ["int", "nested", "surrogate", "surrogate-name"])
def test_a_hostile_row_of_a_table_costs_itself_alone(name: str) -> None:
    source = folders.open_folder(str(INPUTS / f"hand-jsonl-{name}"))
    assert list(source.names) == ["a.jpg"]
    assert source.skipped


def test_captions_nested_in_honest_lists_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    nested = {"alt": [[["one"], ["two"]], {"x": 1, "alt": "no"}["alt"]]}
    assert base.make_texts(nested, "alt") == ("one", "two", "no")
    monkeypatch.setenv("IMAGEN_MAX_NESTING", "2")
    with pytest.raises(TypeError, match="more than 2 levels"):
        base.make_texts(nested, "alt")


def test_a_prompt_of_other_bytes_than_utf_8_is_one_sentence() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "imagen_jax", "sample", "shapes", b"caf\xe9"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 1
    assert run.stderr.startswith("imagen sample: error: prompt 1, ")
    assert run.stderr.count("\n") == 1
    assert "byte 0xe9" in run.stderr


BUILDING = """
import time
from pathlib import Path
from imagen_jax.runtime import preemption

preemption.PATIENCE = 0.2
with preemption.watch_between_batches(Path("out")) as check:
    print("building", flush=True)
    {wait}
"""


@pytest.mark.parametrize(
    "wait",
    [
        "while True: time.sleep(0.01)",
        "import ctypes; ctypes.CDLL(None).pause(); ctypes.CDLL(None).sleep(60)",
    ],
    ids=["Python", "library"],
)
def test_sigterm_ends_a_process_that_never_comes_to_a_batch(wait: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", BUILDING.format(wait=wait)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "building\n"
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=20)
    assert process.returncode == 75
    assert "asked to stop" in said
