"""A filter as a condition of DuckDB's SQL over recordings.schema.ENTRIES."""

from kfl.sql.conditions import where

__all__ = ["where"]
