"""Kafka: requests and responses of all versions that clients send, and the records in them."""

from services.capture.dissectors.kafka.conversation import Kafka
from services.capture.dissectors.kafka.headers import SIGNATURES

__all__ = ["SIGNATURES", "Kafka"]
