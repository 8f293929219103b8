"""Pages rendered on the server, shown by the API and (the dashboard) by Airflow, each with its own sign-in.

`public` holds what the recipients of mail see. Pages work without script and load nothing from elsewhere.
"""
