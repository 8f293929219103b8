"""MarketingAutomation-Lite: the domain library under the Airflow DAGs and the HTTP service.

It imports neither airflow nor fastapi nor pydantic; both faces call its verbs (ARCHITECTURE.md).
"""

__version__ = "0.1.0"
