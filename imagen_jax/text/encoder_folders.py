"""Where text encoders and their tokenizers are: in the package, in folders, in buckets."""

from pathlib import Path

from imagen_jax.config.sentences import join_texts
from imagen_jax.io import buckets, paths
from imagen_jax.text import encoder_digests, t5
from imagen_jax.text.checkpoints import huggingface_files, load
from imagen_jax.text.checkpoints.remote_folders import RemoteFolder
from imagen_jax.text.t5 import T5Config
from imagen_jax.text.tokenizer import Tokenizer

EMBEDDED = {name: Path(__file__).parent / name for name in ("t5_1_1_tiny", "t5_1_1_mini")}
TOKENIZER = "tokenizer"  # the folder that diffusers keeps it in, next to the encoder's


def locate_encoder(name_or_path: str) -> str:
    """The folder or address of an encoder. Errors: ValueError for another address than gs://."""
    return (
        str(EMBEDDED[name_or_path])
        if name_or_path in EMBEDDED
        else paths.path_or_address(name_or_path)
    )


def find_encoder(name_or_path: str) -> str:
    """As `locate_encoder`. Errors: FileNotFoundError too, where nothing is there."""
    place = locate_encoder(name_or_path)
    if not is_there(place):
        raise FileNotFoundError(
            f"no text encoder {name_or_path!r}: it is neither a folder with a T5X checkpoint, "
            f"nor Hugging Face's folder or safetensors file, nor embedded "
            f"({', '.join(EMBEDDED)})"
        )
    return place


def read_t5_config(name_or_path: str) -> T5Config:
    """The sizes of an encoder: embedded, in a folder, or one of Google's by its name.

    Errors: ValueError for none of these; as `load.find_layout` for a folder.
    """
    place = locate_encoder(name_or_path)
    if is_there(place):
        return load.find_layout(place)[0]
    if name_or_path in t5.SIZES:
        return t5.SIZES[name_or_path]
    raise ValueError(
        f"no text encoder {name_or_path!r}: it is no folder with a T5X checkpoint and none of "
        f"{', '.join((*EMBEDDED, *t5.SIZES))}"
    )


def is_there(place: str) -> bool:
    """Return whether a checkpoint may be there; folders of a bucket are not looked for."""
    remote = buckets.is_bucket(place)
    return remote or Path(place).is_dir() or huggingface_files.is_huggingface(Path(place))


def find_vocabulary(name_or_path: str, tokenizer: str = "") -> str:
    """The `vocabulary` of an encoder whose tokenizer is on this machine, else "".

    Errors: ValueError for several tokenizers, or a file that is no SentencePiece model.
    """
    place = locate_encoder(name_or_path)
    if not tokenizer and buckets.is_bucket(place):
        return ""
    model = tokenizer or _tokenizer_of(RemoteFolder.from_path(place))
    return encoder_digests.vocabulary_digest(Tokenizer.load(model)) if model else ""


def find_tokenizer(path: Path | str) -> str:
    """The only `*.model` file in an encoder's folder, its parent, or a `tokenizer` there.

    Of a bucket only the encoder's own folder is looked into.
    Errors: FileNotFoundError where there is none; ValueError for several.
    """
    folder = RemoteFolder.from_path(path)
    found = _tokenizer_of(folder)
    if found is None:
        raise FileNotFoundError(
            f"no SentencePiece *.model file in {folder} or next to it: put the encoder's there (of "
            "T5 v1.1 in any size the spiece.model of google/t5-v1_1-small), or name it with "
            "text.tokenizer"
        )
    return found


def _tokenizer_of(folder: RemoteFolder) -> str | None:
    places = [folder]
    if not folder.is_remote:  # listing a bucket's parent would list all that is below
        places += [folder.parent, folder.parent / TOKENIZER]
    for place in places:
        found = sorted(n for n in place.names() if n.endswith(".model") and not n.startswith("."))
        if len(found) == 1:
            return (place / found[0]).url
        if found:
            raise ValueError(
                f"{place} has several tokenizers ({join_texts(found)}): keep the encoder's own"
            )
    return None
