"""The only place where systems have names."""

from facerestore.recipes.catalog import RecipeInfo as RecipeInfo
from facerestore.recipes.catalog import get as get
from facerestore.recipes.catalog import list_recipes as list_recipes
from facerestore.recipes.loading import load as load
from facerestore.recipes.recipe import Recipe as Recipe
