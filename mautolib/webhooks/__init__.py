"""Speaking to the outside over HTTP: which addresses may be reached, and telling facts to who subscribed.

The guard is what everything that fetches a URL goes through: certificates and confirmations of notices, and deliveries.
Outbound webhooks: a fact of the outbox becomes one delivery for each endpoint that listens; a delivery is attempted
until it is taken or its schedule ends. Every attempt is logged, every one carries the same message id.
`endpoints` and `reading` are for the API; `delivery.run` is what the DAG and the command line call.
"""

from mautolib.webhooks.model import DeliveryStatus, TestResult
from mautolib.webhooks.replaying import give_up, retry_delivery, retry_many
from mautolib.webhooks.secrets import new_secret, open_secret, rotate_secret, seal_secret
from mautolib.webhooks.testing import send_test

__all__ = [
    "DeliveryStatus", "TestResult", "give_up", "new_secret", "open_secret", "retry_delivery", "retry_many",
    "rotate_secret", "seal_secret", "send_test",
]  # fmt: skip
