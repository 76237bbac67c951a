"""SVG to pixels, within bounds: shapes, gradients, masks and a few filters; no text, no files.

What is drawn is written again from the elements that were looked through, so that the renderer sees
nothing else.
"""

import io
import math
import re
from collections.abc import Iterator
from typing import Any, NamedTuple
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import numpy as np
from jaxtyping import UInt8
from PIL import Image

NAMESPACE = "http://www.w3.org/2000/svg"
LINK = "{http://www.w3.org/1999/xlink}href"
MOST_CHARACTERS = 100_000  # of an image; those of emoji have up to 50,000
MOST_DRAWN = 4_000  # elements, each as often as something refers to it; emoji have up to 740
MOST_LAYERS = 200  # elements with a mask, a clip path or a filter, which cost most
MOST_DASHES = 200_000  # of strokes, by the least that their paths can have; 0.2 s
DEPTH = 32  # of elements in each other
SHAPES = {"path", "rect", "circle", "ellipse", "line", "polyline", "polygon", "use"}
PARTS = {"svg", "g", "defs", "title", "desc", "clipPath", "mask"}
GRADIENTS = {"linearGradient", "radialGradient", "stop"}
FILTERS = {"filter", "feBlend", "feColorMatrix", "feComposite", "feFlood", "feOffset"}
ELEMENTS = {*SHAPES, *PARTS, *GRADIENTS, *FILTERS, "feGaussianBlur"}
SILENT = frozenset({"metadata"})  # left out with all that is in it
OTHER = re.compile(r"<!(?!--)")  # of a document type, and so of entities
REFERENCE = re.compile(r"url\(\s*['\"]?([^)'\"]*)")
FILTER = re.compile(r"\s*(?:none|url\([^()]*\))\s*")  # no list of functions
COLOURED = ("fill", "stroke")  # what refers to a gradient
NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
LARGEST = 1e5  # of a size
GEOMETRY = {"d", "points", "x", "y", "width", "height", "r", "rx", "ry", "cx", "cy"}
GEOMETRY |= {"x1", "x2", "y1", "y2"}
DASHES = re.compile(r"stroke-dasharray\s*:([^;]*)", re.IGNORECASE)  # in a style

Box = tuple[float, float, float, float]  # left, top, width, height
RGB = UInt8[np.ndarray, "side side 3"]


class Drawn(NamedTuple):
    """What an element draws, copies and all."""

    elements: int
    characters: int
    layers: int
    height: int  # of elements in each other
    dashes: float  # at most

    def check(self) -> None:
        """Errors: ValueError for more than the limits."""
        if self.elements > MOST_DRAWN:
            raise ValueError(f"it draws more than {MOST_DRAWN:,} elements, copies and all")
        if self.characters > 2 * MOST_CHARACTERS:
            raise ValueError(f"it draws more than {2 * MOST_CHARACTERS:,} characters of paths")
        if self.layers > MOST_LAYERS:
            raise ValueError(f"it has more than {MOST_LAYERS} masks, clip paths and filters")
        if not self.dashes <= MOST_DASHES:
            raise ValueError(f"its strokes may have more than {MOST_DASHES:,} dashes")
        if self.height > 2 * DEPTH:
            raise ValueError(f"its elements refer to each other more than {2 * DEPTH} deep")


class BoundedTree(ElementTree.TreeBuilder):
    """Elements as they are read, of which not too many may be in each other."""

    def __init__(self) -> None:
        super().__init__()
        self._depth = 0

    def start(self, tag: Any, attrs: dict[Any, Any], /) -> Element:
        """Begin one. Errors: ValueError for one that is too deep."""
        self._depth += 1
        if self._depth > DEPTH:
            raise ValueError(f"its elements are more than {DEPTH} deep in each other")
        return super().start(tag, attrs)

    def end(self, tag: str, /) -> Element:
        """End one."""
        self._depth -= 1
        return super().end(tag)


def draw_svg(text: str, *, side: int) -> RGB:
    """A document on white, in the middle of a square and undistorted.

    Errors: ValueError for one that is no SVG, has more than the limits above, or that refers to
    anything outside itself.
    """
    root = _parse(text)
    return _render(root, _box_of(root), side)


def draw_body(body: str, box: Box, *, side: int) -> RGB:
    """The elements of a document whose box is given. Errors: as `draw_svg`."""
    head = f'<svg xmlns="{NAMESPACE}" xmlns:xlink="http://www.w3.org/1999/xlink">'
    return _render(_parse(f"{head}{body}</svg>"), box, side)


def _render(root: Element, box: Box, side: int) -> RGB:
    import resvg_py  # of the extra `data`

    left, top, width, height = box
    if not (0 < width <= LARGEST and 0 < height <= LARGEST):
        raise ValueError(f"its size is {width:g} x {height:g}: more than 0 and at most {LARGEST:g}")
    if not (abs(left) <= LARGEST and abs(top) <= LARGEST):
        raise ValueError(f"its corner is at {left:g}, {top:g}: at most {LARGEST:g} from 0")
    longer = max(width, height)
    corner = f"{left - (longer - width) / 2:g} {top - (longer - height) / 2:g}"
    root.attrib |= {"viewBox": f"{corner} {longer:g} {longer:g}", "width": "1", "height": "1"}
    try:
        drawn = resvg_py.svg_to_bytes(
            svg_string=ElementTree.tostring(root, encoding="unicode"),
            width=side,
            height=side,
            background="#ffffff",
            skip_system_fonts=True,  # which are files
        )
    except BaseException as error:
        # A fault inside the renderer is of a class that no module has.
        if not isinstance(error, ValueError) and type(error).__name__ != "PanicException":
            raise
        raise ValueError(f"it cannot be drawn: {error}") from error
    with Image.open(io.BytesIO(bytes(drawn)), formats=["PNG"]) as image:
        return np.asarray(image.convert("RGB"))


def _parse(text: str) -> Element:
    if len(text) > MOST_CHARACTERS:
        raise ValueError(f"it has {len(text):,} characters, more than {MOST_CHARACTERS:,}")
    if OTHER.search(text):
        raise ValueError("it declares a document type")
    parser = ElementTree.XMLParser(target=BoundedTree())
    try:
        parser.feed(text)
        root = parser.close()
    except UnicodeEncodeError as error:
        raise ValueError(f"it has half a character at {error.start:,}") from error
    except ElementTree.ParseError as error:
        raise ValueError(f"it is no XML: {error}") from error
    if root.tag != f"{{{NAMESPACE}}}svg":
        raise ValueError(f"it is {root.tag[:80]!a} and no svg of {NAMESPACE}")
    _leave_out_silent(root)
    for element in root.iter():
        _check_element(element)
    _check_count(root)
    return root


def _leave_out_silent(element: Element) -> None:
    for child in list(element):
        if _name(child) in SILENT or not child.tag.startswith(f"{{{NAMESPACE}}}"):
            element.remove(child)  # editors leave notes in namespaces of their own
        else:
            _leave_out_silent(child)


def _check_element(element: Element) -> None:
    name = _name(element)
    if name not in ELEMENTS:
        raise ValueError(
            f"it has an element {name!a}, which is none of shapes, gradients and filters"
        )
    for place in _places(element):
        if not place.startswith("#"):
            raise ValueError(f"an element {name} refers to {place[:40]!a}, outside of the image")
    if not FILTER.fullmatch(element.get("filter", "none")) or "filter" in element.get("style", ""):
        raise ValueError(f"an element {name} has a filter other than one of its own document")
    if any("@" in value or "\\" in value for value in element.attrib.values()):
        raise ValueError(f"an element {name} has a style sheet in an attribute")


def _places(element: Element) -> Iterator[str]:
    """What an element refers to."""
    for attribute, value in element.attrib.items():
        if attribute in ("href", LINK):
            yield value.strip()
        yield from (found.strip() for found in REFERENCE.findall(value))


def _has_layer(element: Element) -> bool:
    others = {name: value for name, value in element.attrib.items() if name not in COLOURED}
    return any(REFERENCE.search(value) for value in others.values())


def _check_count(root: Element) -> None:
    """Errors: ValueError for more elements than may be drawn, copies and all, or for a circle."""
    named = {e.attrib["id"]: e for e in root.iter() if "id" in e.attrib}
    measured: dict[str, Drawn] = {}
    longest = _largest_number(root)  # a line between two numbers of a path is hardly longer

    def measure(element: Element, depth: int) -> Drawn:
        if depth > 2 * DEPTH:  # as one that draws itself is
            raise ValueError(f"its elements refer to each other more than {2 * DEPTH} deep")
        inner = [measure(child, depth + 1) for child in element]
        inner += [referred(place[1:], depth + 1) for place in _places(element)]
        characters = sum(map(len, element.attrib.values())) + sum(one.characters for one in inner)
        period = _dash_period(element)
        found = Drawn(
            1 + sum(one.elements for one in inner),
            characters,
            _has_layer(element) + sum(one.layers for one in inner),
            1 + max((one.height for one in inner), default=0),
            characters * longest / period if period else math.fsum(one.dashes for one in inner),
        )
        found.check()
        return found

    def referred(name: str, depth: int) -> Drawn:
        if name in named and name not in measured:
            measured[name] = measure(named[name], depth)
        return measured.get(name, Drawn(0, 0, 0, 0, 0.0))

    measure(root, 1)


def _largest_number(root: Element) -> float:
    """Return the largest coordinate or size of any shape."""
    written = (v for e in root.iter() for name, v in e.attrib.items() if name in GEOMETRY)
    return max((abs(float(n)) for text in written for n in NUMBER.findall(text)), default=0.0)


def _dash_period(element: Element) -> float:
    """Return the length of a dash and of the gap behind it; 0.0 for a stroke without.

    Errors: ValueError for lengths that depend on something else.
    """
    styled = DASHES.search(element.get("style", ""))
    written = styled[1] if styled else element.get("stroke-dasharray", "none")
    if re.search(r"[%a-df-z]", written.replace("px", "").replace("none", ""), re.IGNORECASE):
        raise ValueError(
            f"an element {_name(element)} has dashes of {written[:40]!a}: give numbers"
        )
    return math.fsum(abs(float(number)) for number in NUMBER.findall(written))


def _box_of(root: Element) -> Box:
    numbers = [float(n) for n in NUMBER.findall(root.attrib.get("viewBox", ""))]
    if len(numbers) == 4:
        return numbers[0], numbers[1], numbers[2], numbers[3]
    sides = [NUMBER.match(root.attrib.get(name, "")) for name in ("width", "height")]
    if None in sides:
        raise ValueError("it has neither a viewBox nor a width and a height")
    width, height = (float(side[0]) for side in sides if side is not None)
    return 0.0, 0.0, width, height


def _name(element: Element) -> str:
    return element.tag.rpartition("}")[2]
