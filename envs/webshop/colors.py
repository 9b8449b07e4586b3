"""The color words of WebShop and what they do to an option.

Owns: the list, whose order matters, and `normalize_color`. Called by `reward`. Must not know: products, goals.
"""

from __future__ import annotations

COLORS = """
alabaster apricot aqua ash asphalt azure banana beige black blue blush bordeaux bronze brown burgundy camel camo
caramel champagne charcoal cheetah chestnut chocolate christmas coffee cognac copper coral cranberry cream crystal
dark denim eggplant elephant espresso fuchsia gold granite grape graphite grass gray green grey heather indigo ivory
ivy khaki lavender lemon leopard light lilac lime magenta maroon mauve merlot midnight mint mocha multicolor
mushroom mustard natural navy nude olive orange peach pewter pink plum purple rainbow red rose royal rust sand
sapphire seashell silver skull slate steel stone stonewash sunflower tan taupe teal tiger turquoise violet walnut
wheat white wine yellow
""".split()  # noqa: SIM905  a hundred words, not a hundred lines

Option = str | tuple[str, str]
"""A chosen value, or a goal's option: a value (human goals) or a (name, value) pair (synthetic goals)."""


def normalize_color(option: Option) -> Option:
    """The first color word that the option contains, or the option itself.

    In a string a color may be part of a word ("titanium" gives "tan"). In a pair it must be the whole name or the
    whole value: WebShop asks a tuple the same question as a string.
    """
    for color in COLORS:
        if color in option:
            return color
    return option
