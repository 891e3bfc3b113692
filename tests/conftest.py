"""Shapes and dtypes of every dlnotes signature are checked while the tests run."""

from jaxtyping import install_import_hook

_hook = install_import_hook("dlnotes", "beartype.beartype")
