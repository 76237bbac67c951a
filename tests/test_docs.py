"""The README and the pages of docs/: short, their links lead somewhere, their commands parse."""

import functools
import importlib
import os
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import deepfloyd_references
import pytest
import tyro
import your_data

from imagen_jax import cli

ROOT = Path(__file__).parent.parent
DOCS = [
    page
    for page in sorted((ROOT / "docs").rglob("*.md"))
    # Those are written from the code, and checked when the site is built.
    if "reference" not in page.relative_to(ROOT).parts
]
PAGES = (
    *sorted(ROOT.glob("*.md")),
    *DOCS,
    *(ROOT / folder / "README.md" for folder in ("launch", "experiments", "benchmarks")),
    *sorted((ROOT / "imagen_jax" / "pretrained").glob("*/README.md")),
)
FENCE = re.compile(r"^```([\w{}-]*).*?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


class ParsedError(Exception):
    """The command's options are right, and its work is not wanted."""


def _prose(page: Path) -> str:
    return FENCE.sub("", page.read_text())


@functools.cache
def _anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to a page's headings."""
    headings = (heading.lower() for heading in HEADING.findall(_prose(page)))
    return {re.sub(r"[^\w -]", "", heading).replace(" ", "-") for heading in headings}


def broken_links(page: Path) -> list[str]:
    """Relative links and images of a page that lead to no file, or to no heading of one."""
    found = []
    text = re.sub(r"`[^`]*`", "", _prose(page))  # what is shown as code links nothing
    for link in LINK.findall(text):
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if re.match(r"[a-z]+:", link):
            continue
        if not target.is_file() or (anchor and anchor not in _anchors(target.resolve())):
            found.append(link)
    return found


def _commands(page: Path) -> Iterator[list[str]]:
    """Arguments of each line in a ```bash block that begins with `imagen`."""
    for language, block in FENCE.findall(page.read_text()):
        if language != "bash":
            continue
        for line in block.replace("\\\n", "").splitlines():
            for words in _split(shlex.split(line, comments=True), "&&"):
                if words[:1] == ["imagen"]:
                    yield [word for word in words[1:] if word != "..."]


def _split(words: list[str], separator: str) -> Iterator[list[str]]:
    while separator in words:
        end = words.index(separator)
        yield words[:end]
        words = words[end + 1 :]
    yield words


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 200


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(page: Path) -> None:
    assert broken_links(page) == []


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    (tmp_path / "other.md").write_text("# A heading, in `code`\n\n```bash\n# no heading\n```\n")
    right = "[a](other.md) ![b](other.md) [c](other.md#a-heading-in-code) [d](https://x.org/e.md)"
    page.write_text(f"{right} `[e](none.md)`\n\n```\n[f](none.md)\n```\n")
    assert broken_links(page) == []
    page.write_text("[a](none.md) ![b](none.png) [c](other.md#no-heading) [d](#none)\n")
    assert broken_links(page) == ["none.md", "none.png", "other.md#no-heading", "#none"]


def test_every_page_is_in_the_index() -> None:
    text = (ROOT / "docs" / "index.md").read_text()
    for page in DOCS:
        name = str(page.relative_to(ROOT / "docs").with_suffix(""))
        listed = re.search(rf"^{re.escape(name)}$", text, re.MULTILINE)
        assert listed or name.startswith(("index", "studies/")), name


def named_files(text: str) -> set[str]:
    """Python files that a page names in `code`, whole or from the package or a folder on."""
    return set(re.findall(r"`([\w/.-]+\.py)`", text))


def test_files_that_pages_name_exist() -> None:
    files = [str(file.relative_to(ROOT)) for file in ROOT.rglob("*.py") if ".venv" not in str(file)]
    for page in PAGES:
        if page.name == "CHANGELOG.md":
            continue
        for name in named_files(_prose(page)) - {str(your_data.CONFIG)}:  # the reader's
            assert any(f"/{file}".endswith(f"/{name}") for file in files), f"{page}: {name}"


def test_files_that_packages_list_exist() -> None:
    for package in (ROOT / "imagen_jax").rglob("__init__.py"):
        for name in re.findall(r"^\| `([\w/]+\.py)`", package.read_text(), re.MULTILINE):
            assert (package.parent / name).is_file(), f"{package}: {name}"


def test_symbols_of_the_paper_map_exist() -> None:
    page = ROOT / "docs" / "concepts" / "paper-map.md"
    rows = re.findall(r"^\| [^|]+ \| [^|]+ \| (`[^|]+) \| (`[^|]+) \|$", page.read_text(), re.M)
    assert len(rows) > 40
    for places, symbols in rows:
        names = re.findall(r"`([\w/.]+)`", places)
        first = (ROOT / names[0]).parent
        files = [ROOT / name if (ROOT / name).exists() else first.parent / name for name in names]
        files = [file if file.exists() else first / file.name for file in files]
        text = "".join(
            part.read_text()
            for file in files
            for part in (sorted(file.rglob("*.py")) if file.is_dir() else [file])
        )
        for symbol in re.findall(r"`([\w.]+)`", symbols):
            name = symbol.rpartition(".")[2]
            assert re.search(rf"^(?:def|class) {name}\b|^{name}\b", text, re.M), (places, symbol)


def test_the_table_of_allowed_imports_is_the_tests() -> None:
    from test_layers import ALLOWED, OPEN_TO_ALL

    page = (ROOT / "docs" / "architecture.md").read_text()
    rows = dict(
        re.findall(r"^\| `(\w+)` \| (.*) \|$", page.partition("## Allowed imports")[2], re.M)
    )
    expected = {
        part: ", ".join(f"`{name}`" for name in sorted(allowed)) or "nothing"
        for part, allowed in ALLOWED.items()
        if allowed is not None and not part.startswith("__") and part not in OPEN_TO_ALL
    }
    assert rows == {**expected, "cli": "everything"}


def test_commands_parse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = {tuple(words) for page in PAGES for words in _commands(page)}
    assert len(commands) > 30
    _stop_after_parsing(monkeypatch)
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    your_data.save_config(tmp_path)
    for number, name in enumerate(("if_I", "if_II"), 1):  # as the guide of DeepFloyd IF has them
        shutil.copytree(deepfloyd_references.FOLDER / name, tmp_path / "deepfloyd" / str(number))
    monkeypatch.chdir(tmp_path)
    for words in sorted(commands):
        _check(words)


def test_a_wrong_command_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    _stop_after_parsing(monkeypatch)
    for line in (
        "sample shapes --no-such-option 1",
        "train no/such/config --workdir runs/mine",
        "train tiny/base8 --workdir runs/mine --optim.no-such-field 1",
        "no-such-command",
    ):
        with pytest.raises(AssertionError, match=line.split()[0]):
            _check(tuple(line.split()))


def _stop_after_parsing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every command parse its options as it does, and end it there."""

    def stopped(parse):
        def parsed(*args, **kwargs):
            parse(*args, **kwargs)
            raise ParsedError

        return parsed

    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(tyro, "cli", stopped(tyro.cli))
    extras = tyro.extras
    name = "subcommand_cli_from_dict"
    monkeypatch.setattr(extras, name, stopped(getattr(extras, name)))


def _check(words: tuple[str, ...]) -> None:
    command, *rest = words
    if command == "--version":
        return
    assert command in cli.COMMANDS, f"imagen {shlex.join(words)}: no such command"
    module = importlib.import_module(f"imagen_jax.cli.{cli.MODULES.get(command, command)}")
    ended = ""
    try:
        module.run(rest)
    except ParsedError:
        pass
    except SystemExit as stop:
        ended = "wrong options" if stop.code else ""  # --help ends with 0
    except (ValueError, OSError) as error:
        ended = str(error)
    assert not ended, f"imagen {shlex.join(words)}: {ended}"


def test_the_readme_has_the_plans_of_their_page() -> None:
    """Network, slice, memory, time and share of each plan, as the table of all plans has them."""
    plans = (ROOT / "docs" / "benchmarks" / "plans.md").read_text().splitlines()
    cells = [[cell.strip(" `") for cell in line.split("|")[1:-1]] for line in plans]
    rows = re.findall(r"^\| `imagen/(\w+)` \|(.*)\|$", (ROOT / "README.md").read_text(), re.M)
    assert len(rows) >= 3
    for network, rest in rows:
        row = [cell.strip() for cell in rest.split("|")]
        wanted = {f"train `{network}", *row}
        assert any(wanted <= set(found) for found in cells), (network, row)


@pytest.mark.slow
def test_the_readme_samples_in_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ((_, code),) = (f for f in FENCE.findall((ROOT / "README.md").read_text()) if f[0] == "python")
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    assert os.listdir(tmp_path) == ["star.png"]


@pytest.mark.slow
def test_the_step_rule_of_the_sampling_guide_runs() -> None:
    page = (ROOT / "docs" / "guides" / "sampling.md").read_text()
    (code,) = (b for kind, b in FENCE.findall(page) if kind == "python" and "step_rule" in b)
    exec(code, {})
