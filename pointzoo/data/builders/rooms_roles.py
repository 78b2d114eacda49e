"""What each model of the furniture libraries is used for in a room, and its ScanNet-20 class.

The first rule that matches a model decides; a model that none matches is not used. Heights and
widths keep out models that only share a name (a table 1.02 m high is no dining table).
"""

from __future__ import annotations

import re
from typing import NamedTuple

from pointzoo.data.builders.sh3d_reader import Model
from pointzoo.data.scene_classes import SCANNET20


class Use(NamedTuple):
    """What a model is used for.

    Attributes:
        role: What the room programs ask for.
        label: Index in :data:`~pointzoo.data.rooms.SCANNET20`, -1 for what ScanNet leaves out.
    """

    role: str
    label: int


class _Rule(NamedTuple):
    role: str
    label: str
    name: str
    category: str = ""
    width: tuple[float, float] = (0.0, 9.0)
    height: tuple[float, float] = (0.0, 2.6)


# fmt: off
_RULES = (
    # Not for rooms.
    _Rule("", "", r".*", r"Exterior|Characters|Vehicles|Staircases"),
    _Rule("", "", r"toy train|train$|urinal|motorbike|elevator|garage|chimney|pallet|fence"),
    _Rule("", "", r"railing"),
    _Rule("", "", r"contemporary living|shipping|mower|spiral|tatami|barnum|punching|dart|cone$"),
    _Rule("", "", r"shutter|plug$|switch$|socket$|hospital|urn$|wheelchair|parking|service hatch"),
    _Rule("", "", r"^double vanity|handrail|screen door|table tennis$"),
    # Openings.
    _Rule("window", "window", r"window|skylight", r"Doors", (0.5, 2.6), (0.8, 2.3)),
    _Rule("door", "door", r"door", r"Doors", (0.7, 1.2), (1.9, 2.2)),
    _Rule("double_door", "door", r"door", r"Doors", (1.2, 2.0), (1.9, 2.2)),
    # Beds and bedroom.
    _Rule("bed_child", "bed", r"bunk|mezzanine|crib|baby bed|captain|child bed", r"Bedroom"),
    _Rule("bed_double", "bed", r"\bbed$", r"Bedroom", (1.2, 2.4)),
    _Rule("bed_single", "bed", r"\bbed$", r"Bedroom", (0.8, 1.2)),
    _Rule("bed_single", "bed", r"air mattress", r"Bedroom"),
    _Rule("nightstand", "cabinet", r"bedside"),
    _Rule("wardrobe", "cabinet", r"wardrobe|^cupboard", r"Bedroom"),
    _Rule("dresser", "cabinet", r"dresser|^chest$|sideboard"),
    _Rule("dresser", "otherfurniture", r"changing table"),
    _Rule("dressing_table", "table", r"dressing table"),
    # Seats.
    _Rule("sofa_bed", "sofa", r"opened convertible|^futon$"),
    _Rule("sofa_corner", "sofa", r"corner sofa|^couch$", "", (2.25, 4.0)),
    _Rule("sofa", "sofa", r"sofa|couch", r"Living|Bedroom"),
    _Rule("office_chair", "chair", r"^(arm)?chair$", r"Office"),
    _Rule("armchair", "chair", r"armchair(?! ottoman)"),
    _Rule("bar_chair", "chair", r"bar chair|bar stool"),
    _Rule("child_chair", "chair", r"child(ren)? chair|baby high"),
    _Rule("class_seat", "chair", r"class seat"),
    _Rule("chair", "chair", r"chair", r"Living|Kitchen"),
    _Rule("bar_stool", "otherfurniture", r"stool", "", (0.2, 0.7), (0.6, 1.2)),
    _Rule("stool", "otherfurniture", r"stool|puff$|piano bench|^bench$|ottoman", r"Living|Kitchen"),
    # Tables and desks.
    _Rule("child_table", "table", r"child(ren)? table"),
    _Rule("coffee_table", "table", r"table", r"Living", (0.6, 1.7), (0.3, 0.58)),
    _Rule("side_table", "table", r"table", r"Living", (0.4, 0.85), (0.4, 0.8)),
    _Rule("dining_table", "table", r"table(?! lamp)", r"Living|Office", (0.9, 2.5), (0.68, 0.95)),
    _Rule("bar_table", "table", r"bar table"),
    _Rule("table_other", "otherfurniture", r"pool table|football table"),
    _Rule("desk", "desk", r"desk", r"Office"),
    _Rule("drawing_table", "table", r"technical table"),
    # Storage.
    _Rule("tv_stand", "cabinet", r"tv stand|television cabinet"),
    _Rule("bookshelf", "bookshelf", r"bookcase|shelves|shelf", r"Living|Office|Bedroom"),
    _Rule("wall_shelf", "bookshelf", r"upper shelves", r"Kitchen"),
    _Rule("filing", "cabinet", r"filing|locker"),
    _Rule("safe", "otherfurniture", r"^safe$"),
    # Kitchen.
    _Rule("fridge", "refridgerator", r"fridge|refrigerator"),
    _Rule("stove", "otherfurniture", r"large stove|propane stove|chest freezer"),
    _Rule("washer", "otherfurniture", r"washing machine|dryer machine"),
    _Rule("kitchen_tall", "cabinet", r"high cabinet|double oven", r"Kitchen"),
    _Rule("kitchen_base", "cabinet", r"^(small )?lower cabinet$|drawers cabinet", r"Kitchen"),
    _Rule("kitchen_island", "cabinet", r"island", r"Kitchen"),
    _Rule("kitchen_upper", "cabinet", r"upper cabinet$|glass door cabinet", r"Kitchen"),
    _Rule("hood", "", r"hood", r"Kitchen"),
    _Rule("bin", "otherfurniture", r"trash ?can|dustbin|recycling bin"),
    _Rule("broom", "", r"broom", r"Kitchen"),
    _Rule("worktop", "", r"microwave|small oven|coffee (machine|maker|brewer)|toaster|blender"
                         r"|mixer|boiler|deep fryer|knife stand|kitchen scale|bread box"
                         r"|cooker$|utensils|paper towel|large pan|spice|kitchen tools",
          r"Kitchen"),
    _Rule("tableware", "", r"plate|bowl|glass$|cup$|mug|bottle|apples|tray|teapot|vase|milk|cake"
                           r"|coffee press|pottery|jar|sugar|fruit|salad|bread|candle|chicken"
                           r"|hamburger|oil servers", r"Kitchen|Lights"),
    # Bathroom.
    _Rule("bathtub", "bathtub", r"\bbath$|bathtub", r"Bathroom"),
    _Rule("toilet", "toilet", r"toilets unit", r"Bathroom"),
    _Rule("toilet", "toilet", r"bidet", r"Bathroom"),
    _Rule("washbasin_wall", "sink", r"washbasin|small lavatory|^basin$", r"Bathroom",
          (0.4, 0.9), (0.1, 0.6)),
    _Rule("washbasin", "sink", r"washbasin", r"Bathroom", (0.4, 0.9), (0.6, 1.2)),
    _Rule("vanity", "cabinet", r"vanity", r"Bathroom", (0.6, 1.3), (0.6, 1.2)),
    _Rule("shower_stall", "otherfurniture", r"shower stall", r"Bathroom"),
    _Rule("shower_curtain", "shower curtain", r"shower curtain", r"Bathroom"),
    _Rule("towel_rack", "", r"towel rack", r"Bathroom"),
    _Rule("basket", "", r"clothes basket", r"Bathroom"),
    _Rule("toilet_small", "", r"toilet brush|potty", r"Bathroom"),
    _Rule("bath_small", "", r"bottle|flacon|soap|cosmetics|sponge|towel$", r"Bathroom|Kitchen"),
    # Heating.
    _Rule("radiator", "otherfurniture", r"radiator", "", (0.4, 2.2), (0.4, 1.0)),
    _Rule("fireplace", "otherfurniture", r"fireplace"),
    # Electric.
    _Rule("wall_tv", "", r"wall flat tv"),
    _Rule("tv", "", r"^tv\b", r"Living"),
    _Rule("stereo", "", r"speaker|stereo|dvd|playstation|radio$|mp3", "", (0.0, 0.6)),
    _Rule("computer", "", r"laptop|imac|ibook", r"Office"),
    _Rule("ac", "", r"internal unit"),
    _Rule("cooler", "otherfurniture", r"water cooler"),
    _Rule("printer", "", r"printer", r"Office"),
    _Rule("fan", "otherfurniture", r"rigged fan|table fan"),
    # Lamps.
    _Rule("hanging_lamp", "", r"hanging light|chandelier|pendant|ceiling fan", r"Lights|Misc"),
    _Rule("ceiling_lamp", "", r"ceiling lamp|fluorescent|track lights", r"Lights"),
    _Rule("floor_lamp", "", r"^lamp$", r"Lights", (0.0, 0.7), (1.0, 2.0)),
    _Rule("table_lamp", "", r"lamp$|lantern", r"Lights", (0.1, 0.6), (0.15, 0.85)),
    # Plants.
    _Rule("plant_big", "", r"plant|ficus|yucca|spathi|christmas", r"Living",
          (0.2, 1.4), (0.6, 2.1)),
    _Rule("plant_small", "", r"plant|orchid|tulip|flowers|bamboo|bonsai|cactus|lily|christmas",
          r"Living", (0.0, 0.9), (0.05, 0.6)),
    _Rule("vase", "", r"vase", r"Misc"),
    # Small and lying about.
    _Rule("rug", "floor", r"rug$|round carpet", r"Living"),
    _Rule("piano", "otherfurniture", r"piano$"),
    _Rule("guitar", "", r"guitar", r"Living"),
    _Rule("aquarium", "", r"aquarium", r"Living"),
    _Rule("fitness", "otherfurniture", r"treadmill|indoor bike|abdominal", r"Misc"),
    _Rule("bench_work", "otherfurniture", r"workbench", r"Misc"),
    _Rule("clothes_rack", "otherfurniture", r"clothes rack|clothes horse"),
    _Rule("hanging_clothes", "", r"hanging clothes|^suit$", r"Bedroom"),
    _Rule("shoes", "", r"slippers|sneakers|shoes|mocassin|bootie", r"Bedroom"),
    _Rule("toy", "", r"teddy|xylophone|doll|puzzle|rocking horse|toy|car model|biplane|rubik"
                     r"|soccer|basketball$", "", (0.05, 0.9)),
    _Rule("floor_thing", "", r"box$|crate|suitcase|backpack|handbag|briefcase|gift|trunck|basket$"
                             r"|barrel|helmet|extinguisher|umbrella|newspaper",
          "", (0.1, 1.2), (0.05, 1.0)),
    _Rule("bed_thing", "", r"folded clothes|dress$|jacket|trousers|skirt|^short$|^cap$|^hat$"),
    _Rule("office_thing", "", r"phone$|letter tray|penbox|calendar|stapler|headphones|book$|tablet"
                              r"|keyboard|clock$|glasses$|camera$|game$|chessboard|joystick",
          "", (0.04, 0.6)),
    _Rule("whiteboard", "", r"white board|^screen$"),
    _Rule("wall_thing", "", r"cuckoo|wall hanger|intercom|thermometer|smoke|wall light|wall lamp"
                            r"|emergency|cctv", "", (0.05, 0.9), (0.02, 0.9)),
    _Rule("picture", "picture", r"^frame", r"Misc"),
)
# fmt: on
_COMPILED = tuple((r, re.compile(r.name), re.compile(r.category)) for r in _RULES)


def use_of(model: Model) -> Use | None:
    """What a model is used for in a room, or None."""
    name = model.name.lower()
    width, _, height = model.size
    for rule, in_name, in_category in _COMPILED:
        fits = rule.width[0] <= width <= rule.width[1]
        fits = fits and rule.height[0] <= height <= rule.height[1]
        if fits and in_name.search(name) and in_category.search(model.category):
            label = SCANNET20.index(rule.label) if rule.label else -1
            return Use(rule.role, label) if rule.role else None
    return None
