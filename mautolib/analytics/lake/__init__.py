"""Schema `analytics` as Parquet in a folder or a bucket, for DuckDB, Spark and Trino: see docs/lake-export.md.

Promise: a file is whole or not there; a file is written again exactly when a row in it came, changed or went; nothing
is exported that an analyst may not read. Called by the `cohort_analytics` DAG and by `mauto lake`.
"""

from mautolib.analytics.lake.exporting import DAYS, Exported, export

__all__ = ["DAYS", "Exported", "export"]
