"""Recipes: ready-made workflows with the templates, segments and rules they need, as JSON files beside this module.

`recipe` reads one, `load` makes what it describes, once. docs/recipes explains them; `python -m mautolib.recipes` is
the command. A recipe that is loaded is the user's: nothing here changes it any more.
"""

from mautolib.recipes.book import NAMES, Recipe, recipe
from mautolib.recipes.loading import Part, load

__all__ = ["NAMES", "Part", "Recipe", "load", "recipe"]
