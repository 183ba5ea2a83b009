"""Ids that people can say to each other: "quiet-otter-42"."""

from __future__ import annotations

import secrets

# Words that are short, known to all who speak some English, spelled as they sound, and harmless in any pair.
_HOW = """
able amber awake bold brave brisk broad calm clear clever cool cosy crisp daring deep eager early
even fair fast fine first fleet fond free fresh full gentle giant glad golden good grand great green
happy hardy honest humble jolly just keen kind large late lasting lively long loud loyal lucky
mellow merry mighty mild neat nimble noble open patient plain polite prime proud pure quick quiet
rapid ready rich ripe rosy round royal safe sharp shiny silent silver simple smart smooth snowy soft
solid steady still strong sunny sweet swift tall tender tidy tiny true upper vast vivid warm wide
wild wise young
"""

_WHAT = """
acorn anchor apple arrow badger bamboo banjo beach beaver bell berry birch bird bison boat book
bridge brook bucket butter button cactus candle canyon carrot castle cedar cello cherry cliff clock
cloud clover comet copper coral cotton creek cricket crown daisy deer desert dolphin donkey dragon
drum eagle ember falcon feather fern finch fire flute forest fossil fox garden ginger goose grape
harbor hawk hazel hedge heron hill honey horse island ivory jungle kettle kite ladder lake lamp
lantern leaf lemon lion lizard lotus maple marble meadow melon mirror moon moss mountain nutmeg oak
oasis ocean olive onion orange orchid otter owl panda paper parrot peach pearl pebble penguin pepper
piano pigeon pine planet plum pond poppy puffin rabbit raven ribbon river robin rocket saddle salmon
seal shell ship silk sparrow spoon spring squirrel star stone storm summer swan table tiger timber
tomato tower trumpet tulip tunnel turtle valley velvet village violin walnut whale wheel willow
window winter wolf zebra
"""


def sayable() -> str:
    """A random one, of more than a million."""
    return f"{secrets.choice(_HOW.split())}-{secrets.choice(_WHAT.split())}-{secrets.randbelow(90) + 10}"
