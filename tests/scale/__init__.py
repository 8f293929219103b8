"""The main job on several Airflow workers, beside the same job on one machine: `make scale-check`."""
