"""DeepFloyd IF's cleaner of captions, which its networks were trained behind.

It was made for captions of web shops: besides markup and addresses it takes out article numbers,
"free shipping", Chinese characters and brackets. What it does is diffusers' behaviour, order and
oddities included, as the networks know no other; the rules are this package's own code.
"""

import html
import re
import urllib.parse
import warnings

from imagen_jax import extras

MODULES = ("ftfy", "bs4")
TIMES = 2  # each caption goes through
FORMATS = "png|jpg|jpeg|bmp|webp|eps|pdf|apk|mp4"
ADDRESS = r"[a-zA-Z0-9.\-]+[.](?:com|co|ru|net|org|edu|gov|it)[\w/-]*\b/?(?!@)"
DASHES = (
    "\u002d\u058a\u05be\u1400\u1806\u2010-\u2015\u2e17\u2e1a\u2e3a\u2e3b\u2e40\u301c\u3030\u30a0"
    "\ufe31\ufe32\ufe58\ufe63\uff0d"
)
PUNCTUATION = r"#®•©™&@·º½¾¿¡§~)(\]\[}{|\\/*"
MOST_JOINTS = 3  # dashes and underscores; a caption with more is words joined by them

Rule = tuple[re.Pattern[str], str]


def _rules(*pairs: tuple[str, str]) -> tuple[Rule, ...]:
    return tuple((re.compile(pattern), put) for pattern, put in pairs)


BEFORE_MARKUP = _rules(
    ("<person>", "person"),
    (rf"\b(?:https?:(?:/{{1,3}}|[a-zA-Z0-9%])|{ADDRESS})", ""),
    (rf"\b(?:www:(?:/{{1,3}}|[a-zA-Z0-9%])|{ADDRESS})", ""),
)
AFTER_MARKUP = _rules(
    (r"@[\w\d]+\b", ""),  # a nickname
    ("[\u31c0-\u31ef\u31f0-\u31ff\u3200-\u32ff\u3300-\u33ff\u3400-\u4dbf\u4dc0-\u4dff]+", ""),
    ("[\u4e00-\u9fff]+", ""),  # Chinese characters
    (f"[{DASHES}]+", "-"),
    ("[`´«»“”¨]", '"'),
    ("[‘’]", "'"),
    ("&quot;?", ""),
    ("&amp", ""),
    (r"\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}", " "),  # an address of four numbers
    (r"\d:\d\d\s+$", ""),
    (r"\\n", " "),
    (r"#\d{1,3}\b", ""),
    (r"#\d{5,}\b", ""),
    (r"\b\d{6,}\b", ""),
    (rf"[\S]+\.(?:{FORMATS})", ""),
    ("[\"']{2,}", '"'),
    (r"[.]{2,}", " "),
    (f"[{PUNCTUATION}]+", " "),
    (r"\s+\.\s+", " "),
)
JOINT = re.compile("[-_]")
AFTER_MENDING = _rules(
    (r"\b[a-zA-Z]{1,3}\d{3,15}\b", ""),  # numbers of articles: jc6640
    (r"\b[a-zA-Z]+\d+[a-zA-Z]+\b", ""),  # jc6640vc
    (r"\b\d+[a-zA-Z]+\d+\b", ""),  # 6640vc231
    (r"(worldwide\s+)?(free\s+)?shipping", ""),
    (r"(free\s)?download(\sfree)?", ""),
    (r"\bclick\b\s(?:for|on)\s\w+", ""),
    (rf"\b(?:{FORMATS})(\simage[s]?)?", ""),
    (r"\bpage\s+\d+\b", ""),
    (r"\b\d*[a-zA-Z]+\d+[a-zA-Z]+\d+[a-zA-Z\d]*\b", " "),  # j2d1a2a
    (r"\b\d+\.?\d*[xх×]\d+\.?\d*\b", ""),  # a size, 20x30; the second x is Cyrillic
    (r"\b\s+:\s+", ": "),
    (r"(\D[,\./])\b", r"\1 "),
    (r"\s+", " "),
)
ENDS = _rules(
    (r"^[\"']([\w\W]+)[\"']$", r"\1"),
    (r"^['_,\-:;]", ""),
    (r"['_,\-:+]$", ""),
    (r"^\.\S+$", ""),
)


def clean_caption(caption: str) -> str:
    """Clean a caption, and make it lower case, as DeepFloyd IF's pipelines do.

    Errors: ValueError where ftfy or beautifulsoup4 is not installed.
    Source: github.com/deep-floyd/IF; its behaviour in diffusers 0.42.1.
    """
    for module in MODULES:
        extras.require(module, "DeepFloyd's caption cleaner needs")
    for _ in range(TIMES):
        caption = _clean_once(caption)
    return caption


def _clean_once(caption: str) -> str:
    import ftfy

    caption = urllib.parse.unquote_plus(caption).strip().lower()
    caption = _apply(BEFORE_MARKUP, caption)
    caption = _apply(AFTER_MARKUP, _without_markup(caption))
    if len(JOINT.findall(caption)) > MOST_JOINTS:
        caption = JOINT.sub(" ", caption)
    caption = html.unescape(html.unescape(ftfy.fix_text(caption)))
    caption = _apply(AFTER_MENDING, caption.strip())
    return _apply(ENDS, caption.strip()).strip()


def _without_markup(caption: str) -> str:
    import bs4

    with warnings.catch_warnings():
        # A caption that looks like a path or an address is a caption all the same.
        warnings.simplefilter("ignore", bs4.MarkupResemblesLocatorWarning)
        return bs4.BeautifulSoup(caption, features="html.parser").text


def _apply(rules: tuple[Rule, ...], caption: str) -> str:
    for pattern, put in rules:
        caption = pattern.sub(put, caption)
    return caption
