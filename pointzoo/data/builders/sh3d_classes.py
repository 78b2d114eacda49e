"""Which of 21 classes a Sweet Home 3D model belongs to, by the name its catalogue gives it.

The rules were written by reading all 1,485 names and looking at every shape they select. The first
rule that matches decides. A name that no rule matches has no class: the model is left out, as it
belongs to none of the classes that have enough members.
"""

from __future__ import annotations

import re
from typing import NamedTuple


class Rule(NamedTuple):
    """One line of the table.

    Attributes:
        label: The class, or None to leave the model out.
        name: Regular expression searched in the lower-case name.
        category: Regular expression that the catalogue's category must match, if any.
    """

    label: str | None
    name: str
    category: str = ""


CLASS_NAMES: tuple[str, ...] = (
    "armchair",
    "bed",
    "bookshelf",
    "cabinet",
    "chair",
    "cloth",
    "cup",
    "desk",
    "door",
    "lamp",
    "oven",
    "person",
    "picture",
    "plant",
    "radiator",
    "sofa",
    "stairs",
    "table",
    "vehicle",
    "wardrobe",
    "window",
)

RULES: tuple[Rule, ...] = (
    # Names that a later rule would take for something else.
    Rule(None, r"light source|light switch|plug\b|socket|switch"),
    Rule(None, r"toy|car model|biplane|p40|train\b|doll|rocking horse|mannequin|deer|sleeping bag"),
    Rule(None, r"contemporary living room|table tennis|football table|pool table|technical table"),
    Rule(None, r"desk extension|changing table|chair ottoman|filing|letter tray|flashlight"),
    Rule(None, r"plate, glass|cutlery|chessboard|ironing|curtain rod|clothes (line|hanger|horse)"),
    Rule(None, r"clothes (basket|wash|washer)|folded|shopping|wire coat|shower|opened quadruple"),
    Rule(None, r"rice cooker|shutter|cooking plate|under glass|glass blocks|railing|handrail"),
    Rule(None, r"fish bowl|greenhouse"),
    Rule(None, r"rack$", r"Bathroom"),
    # Architecture.
    Rule("stairs", r"stair|ladder|escalator"),
    Rule("window", r"window|skylight", r"Doors and windows"),
    Rule("door", r"door|service hatch", r"Doors and windows"),
    Rule("door", r"^gate|fence grid gate|sliding doors"),
    # Seats and beds.
    Rule("sofa", r"sofa|couch|futon"),
    Rule("armchair", r"armchair"),
    Rule(None, r"wheelchair|baby high chair|deck chair|beach chair|swinging chair|relax chair"),
    Rule("chair", r"chair|class seat"),
    Rule(None, r"bedside"),
    Rule("bed", r"\bbed\b|daybed|crib"),
    # Surfaces.
    Rule("desk", r"desk(?! lamp)\b"),
    Rule("table", r"\btable\b(?! (lamp|fan))|table on|^pc table|bedside table"),
    # Storage.
    Rule("wardrobe", r"wardrobe|pantry|locker|closet|^cupboard$"),
    Rule("bookshelf", r"bookcase|bookshel|shelf|shelves|shelving|rack (full|low|medium)|cd rack"),
    Rule(
        "cabinet",
        r"cabinet|dresser|sideboard|cupboard|chest\b(?! freezer)|drawer|vanity"
        r"|tv (unit|stand)",
    ),
    # Household.
    Rule("oven", r"oven|cooker|stove|microwave|hob|cooktop"),
    Rule("radiator", r"radiator|fireplace|furnace"),
    Rule("lamp", r"lamp|light|spotlight|uplight|fluorescent|lantern|candlestick", r"Lights"),
    Rule("lamp", r"lantern"),
    Rule("picture", r"frame|picture|mirror$", r"Misc|Bath"),
    Rule("cup", r"\bcup\b(?! cake)|\bmug\b|\bglass$|^glass|flute|carafe", r"Kitchen"),
    # Living things and what they wear.
    Rule("person", r"male|female|boy|girl", r"Characters"),
    Rule(
        "plant",
        r"plant\b|ficus|cactus|bonsai|bamboo|yucca|orchid|tulip|lily|flowers|spathiphyllum|palm"
        r"|bush|tree|acacia|tupelo|pine\b|cypress|maple|poplar|aspen|sassafras|willow|beech|hedge",
        r"Living|Exterior",
    ),
    Rule("vehicle", r"", r"Vehicles"),
    Rule(
        "cloth",
        r"dress$|skirt|jacket|trousers|short$|suits?$|hanging|towel$|cap$|hat$|glove|curtain"
        r"|carpet|rug\b|bathmat|doormat",
    ),
)

_COMPILED = tuple((r.label, re.compile(r.name), re.compile(r.category)) for r in RULES)


def class_of(name: str, category: str) -> str | None:
    """Class of a model, or None if it belongs to none of :data:`CLASS_NAMES`.

    Args:
        name: English name in the catalogue.
        category: English category in the catalogue.
    """
    lower = name.lower()
    for label, in_name, in_category in _COMPILED:
        if in_name.search(lower) and in_category.search(category):
            return label
    return None
