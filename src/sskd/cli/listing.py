"""`sskd list`: what there is."""

import inspect

import timm
import torch

from sskd.bench.recipe import load_recipe, packaged
from sskd.data import SOURCES
from sskd.errors import UserError
from sskd.methods import METHODS
from sskd.methods.find import announced, find_method
from sskd.methods.options import function_of, options_of
from sskd.models import zoo
from sskd.terminal import Table, Terminal


def list_models() -> None:
    """List the networks."""
    table = Table("network", "published name", "parameters (100 classes)", title="The zoo")
    published = {ours: theirs for theirs, ours in zoo.PUBLISHED.items()}
    for name in zoo.names():
        table.add_row(name, published[name], f"{_parameters(name):,}")
    console = Terminal()
    console.print(table)
    console.print(
        "Any other classifier can be named too: timm's as timm spells it (resnet18, mobilenetv3_small_050, ...), "
        "torchvision:NAME, hf-hub:OWNER/NAME, local-dir:PATH, or package.module:factory of your own.",
        highlight=False,
    )


def _parameters(name: str) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in timm.create_model(name).parameters())


def list_methods() -> None:
    """List the methods and their options."""
    table = Table("method", "what it is", "options and defaults", title="Methods")
    for name in [*METHODS, *announced()]:
        try:
            method = find_method(name)
        except UserError as error:  # of another package; the others are listed all the same
            table.add_row(name, str(error), "")
            continue
        about = (getattr(inspect.getmodule(function_of(method)), "__doc__", None) or "").strip().split("\n", 1)[0]
        options = ", ".join(f"{key}={value}" for key, value in options_of(method).items())
        table.add_row(name, about, options or "none")
    Terminal().print(table)


def list_recipes() -> None:
    """List the bench recipes that come with sskd."""
    table = Table("recipe", "what it measures", "pairs", "methods", "seeds", title="Bench recipes")
    for name in packaged():
        recipe = load_recipe(name)
        counts = (str(len(values)) for values in (recipe.pairs, recipe.methods, recipe.seeds))
        table.add_row(name, recipe.about, *counts)
    console = Terminal()
    console.print(table)
    console.print("sskd bench RECIPE runs one; RECIPE may be a YAML file of your own: see docs/bench.md.")


def list_data() -> None:
    """List the data sets."""
    table = Table("data", "what it is", title="Data sets")
    for name, load in SOURCES.items():
        table.add_row(name, (inspect.getdoc(inspect.getmodule(getattr(load, "func", load))) or "").split("\n", 1)[0])
    console = Terminal()
    console.print(table)
    console.print("Say --data NAME, NAME:PATH, or the path of a folder of class folders, parquet files or tar shards.")
