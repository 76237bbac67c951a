"""Captioned images: tars and their indices, tables, Parquet, TFDS, mixtures, prompts, captions."""

import io
import json
import os
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from fuzz.mutator import Files, Link, read_files, write_files
from fuzz.target import Target
from PIL import Image

from imagen_jax.cli import prompts
from imagen_jax.data.sources import addresses, base, folders, parquet, tars
from imagen_jax.data.sources.base import Address, Source
from imagen_jax.io import remote_files
from imagen_jax.io.errors import CorruptDataError
from imagen_jax.text import cleaning, encoder_folders, tokenizer

HOSTILE = Path(__file__).parents[2] / "hostile" / "inputs"
MADE = 10**18  # ns, when a tar was last changed: an index is of the tar of a time
EXAMPLES = 3
SPAWNS = frozenset({"subprocess.Popen", "os.fork", "os.posix_spawn", "os.kill"})


def _read_all(source: Source) -> None:
    """Read every example as encoding does: one that is damaged is left out by name."""
    for index in range(min(len(source), 50)):
        source.key(index).encode()
        try:
            example = source[index]
        except CorruptDataError:
            continue
        assert isinstance(example["image"], bytes)
        assert all(caption.encode() for caption in example["captions"] if caption)
    base.summarise_skips(source.skipped).encode()


def _tar(members: Iterable[tuple[str, bytes]], form: int = tarfile.USTAR_FORMAT) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return file.getvalue().rstrip(b"\0") + b"\0" * 2048


def _tar_files() -> list[bytes]:
    plain = [(f"{n}{end}", f"{end} {n}".encode()) for n in range(3) for end in (".jpg", ".txt")]
    about = json.dumps({"caption": "a", "status": "success", "alt": {"texts": ["b", "c"]}}).encode()
    named = [("a/é.png", b"png"), ("a/é.json", about), (f"{'x' * 120}.webp", b"w"), ("..", b"")]
    return [_tar(plain), _tar(named, tarfile.PAX_FORMAT), _tar(named, tarfile.GNU_FORMAT)]


def _tars(_: Path) -> list[Files]:
    hostile = [one.read_bytes() for one in sorted(HOSTILE.glob("*.tar"))]
    return [{"a.tar": data} for data in (*_tar_files(), *hostile)]


def _parse_tar(folder: Path) -> None:
    _set_time(folder)
    _read_all(tars.open_tars(str(folder / "a.tar"), cache=folder / "cache"))


def _parse_index(folder: Path) -> None:
    """An index of somebody's is used where it is of the tar: captions stay with their images."""
    _parse_tar(folder)
    found = tars.open_tars(str(folder / "a.tar"), cache=folder / "cache")
    for example in (found[index] for index in range(len(found))):
        if example["image"].startswith(b".jpg"):
            assert example["caption"] == example["image"].decode().replace(".jpg", ".txt")


def _set_time(folder: Path) -> None:
    if (folder / "a.tar").is_file() and not (folder / "a.tar").is_symlink():
        os.utime(folder / "a.tar", ns=(MADE, MADE))


def _indexed_tars(scratch: Path) -> list[Files]:
    found = []
    for number, data in enumerate(_tar_files()):
        folder = scratch / f"indexed-{number}"
        write_files({"a.tar": data}, folder)
        _parse_tar(folder)
        found.append(read_files(folder))
    return found


def _seal_index(files: Files) -> Files:
    index = files.get("a.tar.index", b"")
    if isinstance(index, Link):
        return files
    return {**files, "a.tar.index": zlib.crc32(index[4:]).to_bytes(4, "little") + index[4:]}


def _table(name: str) -> list[Files]:
    images: Files = {f"{n}.jpg": b"image" for n in range(EXAMPLES)}
    rows = [{"file_name": f"{n}.jpg", "text": f'a "{n}", é'} for n in range(EXAMPLES)]
    nested = [{"file_name": f"{n}.jpg", "text": ["a", "b"]} for n in range(EXAMPLES)]
    if name.endswith("csv"):
        quoted = [(r["file_name"], '"' + r["text"].replace('"', '""') + '"') for r in rows]
        texts = ["file_name,text\n" + "".join(f"{a},{b}\n" for a, b in quoted)]
    else:
        texts = ["".join(f"{json.dumps(row)}\n" for row in table) for table in (rows, nested)]
    codecs = ("utf-8", "utf-16", "utf-8-sig")
    return [{**images, name: text.encode(codec)} for text in texts for codec in codecs]


def _json_tables(_: Path) -> list[Files]:
    hostile = [read_files(one) for one in sorted(HOSTILE.glob("hand-jsonl-*"))]
    return [*_table("metadata.jsonl"), *hostile]


def _csv_tables(_: Path) -> list[Files]:
    return _table("metadata.csv")


def _pairs(_: Path) -> list[Files]:
    texts = ("a caption", "é" * 9, "\ufeffx")
    files: Files = {f"d/{n}.png": b"png" for n in range(EXAMPLES)}
    return [{**files, **{f"d/{n}.txt": text.encode() for n, text in enumerate(texts)}}]


def _parse_folder(folder: Path) -> None:
    _read_all(folders.open_folder(str(folder)))


def _parquet_files(_: Path) -> list[Files]:
    image = [{"bytes": b"image", "path": "a"}] * EXAMPLES
    tables = [
        {"image": [b"i"] * EXAMPLES, "text": ["a", None, "é"]},
        {"image": image, "text": [["a", "b"], [], None]},
    ]
    found = []
    for table in tables:
        for compression in ("snappy", "zstd", "none"):
            file = io.BytesIO()
            pq.write_table(pa.table(table), file, row_group_size=2, compression=compression)
            found.append({"a.parquet": file.getvalue()})
    # Those whose dictionaries unpack to gigabytes take longer than an input may here.
    hostile = [*sorted(HOSTILE.glob("hand-parquet-rows-*")), HOSTILE / "parquet-crash_sig6-10147"]
    return [*found, *({"a.parquet": one.read_bytes()} for one in hostile)]


def _parse_parquet(folder: Path) -> None:
    _read_all(parquet.open_parquet(str(folder / "a.parquet")))


def _mixtures(_: Path) -> list[Files]:
    tars_of = "tars:in/{000..003}-{a,b}.tar?text=caption"
    lines = ("# all", "folder:in?weight=2", tars_of, "tars:in/*.tar", "shapes/full?split=test")
    return [{"mixture": "\n".join(lines).encode()}, {"mixture": b"tfds:coco/2014?image=x&text=y/z"}]


def _parse_mixture(folder: Path) -> None:
    for address in addresses.read_addresses(str(folder / "mixture")):
        form, _, place = address.dataset.partition(":")
        if form in ("tars", "parquet"):
            next(remote_files.expand_braces(place), None)


def _prompt_files(_: Path) -> list[Files]:
    text = "a red circle\n\na blue square, é\r\nthe last"
    return [{"prompts": text.encode(codec)} for codec in ("utf-8", "utf-16", "utf-32", "utf-8-sig")]


def _parse_prompts(folder: Path) -> None:
    """Prompts go as far as tokens, captions of datasets as far as their cleaning, too."""
    found = prompts.read_prompts(folder / "prompts")
    prompts.check(found, negative_prompt="")
    cleaned = [cleaning.clean_caption(prompt) for prompt in found]
    tokens, mask = _words().tokenize(found + cleaned, max_length=8)
    assert tokens.shape == mask.shape == (2 * len(found), 8)


def _words() -> tokenizer.Tokenizer:
    if not _WORDS:
        place = encoder_folders.EMBEDDED["t5_1_1_tiny"]
        _WORDS.append(tokenizer.Tokenizer.load(encoder_folders.find_tokenizer(place)))
    return _WORDS[0]


_WORDS: list[tokenizer.Tokenizer] = []


def _tfds_datasets(scratch: Path) -> list[Files]:
    import tensorflow_datasets as tfds

    class Own(tfds.core.GeneratorBasedBuilder):
        """Somebody's dataset."""

        VERSION = tfds.core.Version("1.0.0")

        def _info(self) -> tfds.core.DatasetInfo:
            features = {
                "image": tfds.features.Image(shape=(8, 8, 3), encoding_format="png"),
                "caption": tfds.features.Text(),
                "captions": tfds.features.Sequence({"text": tfds.features.Text()}),
                "label": tfds.features.ClassLabel(names=["a", "b"]),
            }
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features)
            )

        def _split_generators(self, dl_manager: object) -> dict[str, object]:
            return {"train": self._generate_examples()}

        def _generate_examples(self) -> Iterator[tuple[int, dict[str, object]]]:
            for number in range(EXAMPLES):
                image = io.BytesIO()
                Image.new("RGB", (8, 8)).save(image, "PNG")
                captions = [{"text": "a"}] * number
                example = {"image": image, "caption": "é", "captions": captions, "label": "a"}
                yield number, example

    place = scratch / "tfds"
    if not place.is_dir():
        tfds.disable_progress_bar()
        builder = Own(data_dir=place, file_format="array_record")
        builder.download_and_prepare(download_dir=scratch / "unused")
    return [read_files(place)]


def _parse_tfds(folder: Path) -> None:
    from imagen_jax.data.sources import tfds

    _read_all(tfds.open_tfds(Address("tfds:own"), folder))
    _read_all(tfds.open_tfds(Address("tfds:own", text="captions/text"), folder))


TARGETS = [
    Target(name="tar", corpus=_tars, parse=_parse_tar),
    Target(
        name="tar_index",
        corpus=_indexed_tars,
        parse=_parse_index,
        focus=("*.index",),
        seal=_seal_index,
    ),
    Target(
        name="table_jsonl",
        is_confined=True,
        corpus=_json_tables,
        parse=_parse_folder,
        focus=("*.jsonl",),
    ),
    Target(
        name="table_csv",
        is_confined=True,
        corpus=_csv_tables,
        parse=_parse_folder,
        focus=("*.csv",),
    ),
    Target(name="captioned_folder", is_confined=True, corpus=_pairs, parse=_parse_folder),
    Target(
        name="parquet",
        corpus=_parquet_files,
        parse=_parse_parquet,
        is_cheap=False,
        allows=SPAWNS,
    ),
    Target(name="mixture", corpus=_mixtures, parse=_parse_mixture),
    Target(name="prompts", corpus=_prompt_files, parse=_parse_prompts),
    Target(name="tfds", corpus=_tfds_datasets, parse=_parse_tfds, is_cheap=False),
]
