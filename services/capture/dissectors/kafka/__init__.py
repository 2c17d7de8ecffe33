"""Kafka: requests and responses of all versions that clients send, and the records in them."""

from services.capture.dissectors.kafka.conversation import SIGNATURES, Kafka

__all__ = ["SIGNATURES", "Kafka"]
