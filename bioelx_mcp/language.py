"""Language tags in any spelling to one: BCP-47, as names of all sources carry it and as filters ask for it.

Understood besides BCP-47: ISO 639-2 and 639-3 codes (the UMLS's ENG, GER, SCR), underscores, and the codes of
Wikimedia's projects that mean something else, or nothing, elsewhere. langcodes is imported at the first call.
"""

from functools import lru_cache

from bioelx_mcp.errors import UsageError

# https://meta.wikimedia.org/wiki/Special_language_codes, and what Wikidata adds. Forms of address and simple
# English are the language itself; where a dialect has no code of its own, its language stands for it.
_WIKIMEDIA = {
    "als": "gsw",
    "bat-smg": "sgs",
    "be-x-old": "be-tarask",
    "bh": "bho",
    "cbk-zam": "cbk",
    "crh-ro": "crh-Latn-RO",
    "de-formal": "de",
    "eml": "egl",
    "es-formal": "es",
    "fiu-vro": "vro",
    "hu-formal": "hu",
    "map-bms": "jv",
    "nl-informal": "nl",
    "nrm": "nrf",
    "roa-rup": "rup",
    "roa-tara": "nap",
    "simple": "en",
    "sr-ec": "sr-Cyrl",
    "sr-el": "sr-Latn",
    "zh-classical": "lzh",
    "zh-min-nan": "nan",
}
_NO_LANGUAGE = {"", "und", "mul", "zxx", "mis"}  # unstated, several, none, one without a code
# Who writes `no` (Wikipedia, the UMLS's NOR) nearly always means Bokmål, and Bokmål is Norwegian for sure,
# so that one name for both is the wider; Nynorsk stays `nn`.
_ONE_OF_TWO = {"nb": "no"}


@lru_cache(maxsize=4096)
def normalize_language(text: str) -> str | None:
    """The canonical BCP-47 tag; empty where the text says that no one language is known; None where it is no tag.

    What is private (`x-...`, `qaa` to `qtz`) is no language; a private part behind a language is left out.
    """
    tag = text.strip().replace("_", "-").lower()
    tag = _WIKIMEDIA.get(tag, tag).partition("-x-")[0]
    if tag in _NO_LANGUAGE:
        return ""
    from langcodes import standardize_tag, tag_is_valid  # 30 ms

    # A first subtag of one, four or more letters is no language, and langcodes would raise or guess.
    first = tag.partition("-")[0]
    if len(first) not in (2, 3) or "qaa" <= first <= "qtz" or not tag_is_valid(tag):
        return None
    tag = standardize_tag(tag, macro=True)  # also `cmn` to `zh`, as CLDR has it
    primary, *others = tag.split("-")
    if any(len(other) == 3 and other.isalpha() for other in others):
        return None  # langcodes lets any three letters pass as an extended language: `pt-bra`
    return "-".join([_ONE_OF_TWO.get(primary, primary), *others])


def primary_language(tag: str) -> str:
    """The language of a normalised tag, without script, region and variant: `pt` of `pt-BR`."""
    return tag.partition("-")[0]


def wanted_language(text: str) -> str:
    """The canonical tag of a language that somebody asks for.

    Raises:
        UsageError: it is none.
    """
    tag = normalize_language(text)
    if not tag:
        raise UsageError(f"languages: {text!r} is no BCP-47 tag")
    return tag


@lru_cache
def wanted_languages(languages: tuple[str, ...]) -> frozenset[str]:
    """What `speaks` compares with; see `wanted_language`."""
    return frozenset(map(wanted_language, languages))


def speaks(tag: str, wanted: frozenset[str]) -> bool:
    """Whether a normalised tag, or its language, is among the wanted ones: `pt` also wants `pt-BR`."""
    return tag in wanted or primary_language(tag) in wanted
