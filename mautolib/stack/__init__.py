"""The local stack: PostgreSQL, Airflow, the API and a mail sink under one launcher.

`python -m mautolib.stack up|down|status|...` is its command line; `launcher.Stack` the same for the demo. Everything
it keeps is in one folder, the home. It configures processes and never touches the domain.
"""
