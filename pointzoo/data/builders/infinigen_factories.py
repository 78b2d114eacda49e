"""Which Infinigen factories the object corpus is made of.

Chosen from the object factories of Infinigen 1.15.5 by making a few seeds of each and looking at
them. Left out: those that take more than a few seconds an object (the trees, Fern, Balloon,
AquariumTank, Oven, FruitContainer, PlantContainer, Mushroom, creatures), those that fail
(Countertop, DoorCasing, PlateRackBase, HookBase), those whose scale is wrong (Toaster) and those
that repeat another factory's shapes under a second name (Lamp, Mirror, Comforter, Microwave's
siblings excepted).
"""

from __future__ import annotations

from typing import NamedTuple


class Factory(NamedTuple):
    """One factory class of Infinigen.

    Attributes:
        module: Its module below ``infinigen.assets.objects``.
        name: Class name without the suffix ``Factory``; the class name in the corpus.
        share: Objects of it in each round; furniture gets two.
    """

    module: str
    name: str
    share: int = 1


FACTORIES: tuple[Factory, ...] = (
    Factory("seating.chairs.office_chair", "OfficeChair", 2),
    Factory("seating.chairs.chair", "Chair", 2),
    Factory("seating.chairs.bar_chair", "BarChair"),
    Factory("seating.sofa", "Sofa", 2),
    Factory("seating.sofa", "ArmChair", 2),
    Factory("seating.bedframe", "BedFrame", 2),
    Factory("seating.mattress", "Mattress"),
    Factory("seating.pillow", "Pillow"),
    Factory("tables.dining_table", "TableDining", 2),
    Factory("tables.dining_table", "SideTable"),
    Factory("tables.dining_table", "CoffeeTable"),
    Factory("tables.cocktail_table", "TableCocktail"),
    Factory("shelves.simple_desk", "SimpleDesk", 2),
    Factory("shelves.simple_desk", "SidetableDesk"),
    Factory("shelves.cell_shelf", "CellShelf", 2),
    Factory("shelves.cell_shelf", "TVStand"),
    Factory("shelves.large_shelf", "LargeShelf", 2),
    Factory("shelves.simple_bookcase", "SimpleBookcase", 2),
    Factory("shelves.triangle_shelf", "TriangleShelf"),
    Factory("shelves.cabinet", "Cabinet", 2),
    Factory("shelves.single_cabinet", "SingleCabinet", 2),
    Factory("shelves.kitchen_cabinet", "KitchenCabinet"),
    Factory("shelves.kitchen_space", "KitchenSpace"),
    Factory("shelves.kitchen_space", "KitchenIsland"),
    Factory("lamp.lamp", "DeskLamp", 2),
    Factory("lamp.lamp", "FloorLamp", 2),
    Factory("lamp.ceiling_lights", "CeilingLight"),
    Factory("lamp.ceiling_classic_lamp", "CeilingClassicLamp"),
    Factory("windows.window", "Window", 2),
    Factory("elements.doors.panel", "PanelDoor"),
    Factory("elements.doors.panel", "GlassPanelDoor"),
    Factory("elements.doors.lite", "LiteDoor"),
    Factory("elements.doors.louver", "LouverDoor"),
    Factory("elements.staircases.straight", "StraightStaircase"),
    Factory("elements.staircases.l_shaped", "LShapedStaircase"),
    Factory("elements.staircases.u_shaped", "UShapedStaircase"),
    Factory("elements.staircases.spiral", "SpiralStaircase"),
    Factory("elements.staircases.curved", "CurvedStaircase"),
    Factory("elements.staircases.cantilever", "CantileverStaircase"),
    Factory("elements.pillars", "Pillar"),
    Factory("elements.rug", "Rug"),
    Factory("elements.warehouses.rack", "Rack"),
    Factory("elements.warehouses.pallet", "Pallet"),
    Factory("bathroom.bathtub", "Bathtub"),
    Factory("bathroom.bathroom_sink", "BathroomSink"),
    Factory("bathroom.bathroom_sink", "StandingSink"),
    Factory("bathroom.toilet", "Toilet"),
    Factory("bathroom.hardware", "Hardware"),
    Factory("appliances.microwave", "Microwave"),
    Factory("appliances.dishwasher", "Dishwasher"),
    Factory("appliances.beverage_fridge", "BeverageFridge"),
    Factory("appliances.tv", "TV"),
    Factory("appliances.tv", "Monitor"),
    Factory("wall_decorations.wall_art", "WallArt"),
    Factory("wall_decorations.range_hood", "RangeHood"),
    Factory("wall_decorations.wall_shelf", "WallShelf"),
    Factory("table_decorations.book", "Book"),
    Factory("table_decorations.book", "BookColumn"),
    Factory("table_decorations.book", "BookStack"),
    Factory("table_decorations.sink", "Sink"),
    Factory("table_decorations.sink", "Tap"),
    Factory("table_decorations.vase", "Vase", 2),
    Factory("clothes.pants", "Pants"),
    Factory("clothes.shirt", "Shirt"),
    Factory("clothes.towel", "Towel"),
    Factory("clothes.blanket", "Blanket"),
    Factory("tableware.pot", "Pot"),
    Factory("tableware.pan", "Pan"),
    Factory("tableware.bottle", "Bottle"),
    Factory("tableware.jar", "Jar"),
    Factory("tableware.bowl", "Bowl"),
    Factory("tableware.food_box", "FoodBox"),
    Factory("tableware.can", "Can"),
    Factory("tableware.food_bag", "FoodBag"),
    Factory("tableware.spoon", "Spoon"),
    Factory("tableware.lid", "Lid"),
    Factory("tableware.chopsticks", "Chopsticks"),
    Factory("tableware.cup", "Cup", 2),
    Factory("tableware.fork", "Fork"),
    Factory("tableware.fork", "Spatula"),
    Factory("tableware.wineglass", "Wineglass"),
    Factory("tableware.knife", "Knife"),
    Factory("tableware.plate", "Plate"),
    Factory("tableware.plant_container", "PlantPot"),
    Factory("organizer.basket", "BasketBase"),
    Factory("organizer.hook", "SpatulaOnHookBase"),
    Factory("small_plants.snake_plant", "SnakePlant", 2),
    Factory("small_plants.succulent", "Succulent"),
    Factory("grassland.flowerplant", "FlowerPlant", 2),
    Factory("grassland.flower", "Flower"),
    Factory("monocot.grasses", "MaizeMonocot"),
    Factory("monocot.tussock", "TussockMonocot"),
)
